//! Writing groups of clicks.

use chrono::NaiveDate;
use linnet_shortener::store::{
    ClickGroup, ClickTotals, KindCounts, LinkDays, SHARDS, Store, ValueDelta,
};
use sqlx::PgPool;

use crate::support::{count, run};

const DAY: &str = "2026-03-01";

/// Writes `clicks` of link 2, all in one hour, each with these values.
async fn write(store: &Store, batch: u8, hour: i32, clicks: i64, visitors: i64, values: &[i32]) {
    let day: NaiveDate = DAY.parse().unwrap();
    let mut link_days = LinkDays::default();
    link_days.begin(2, day, visitors);
    link_days.add_hour(hour, KindCounts { clicks, heads: 1, ..KindCounts::default() });
    for id in values {
        link_days.add_value(*id, clicks);
    }
    let values = vec![ValueDelta { subject: 0, day, value_id: 1, clicks }];
    let totals = ClickTotals { link_days, values, ..ClickTotals::default() };
    let batches = [vec![batch; 16]];
    let group = ClickGroup { batches: &batches, shards: SHARDS.to_vec(), rows: &[], totals };
    assert!(store.write_clicks(&group).await.unwrap());
}

#[sqlx::test(migrations = "../../migrations")]
async fn a_links_day_is_one_row_that_is_added_to(pool: PgPool) {
    let store = Store::new(pool.clone());
    write(&store, 1, 3, 10, 5, &[1, 2]).await;
    write(&store, 2, 3, 1, 6, &[2, 3]).await;
    write(&store, 3, 23, 4, 4, &[3]).await;
    let row: (i64, i64, i64, i64, i64, Vec<i32>, Vec<i32>, Vec<i64>) =
        sqlx::query_as("SELECT clicks, bots, prefetches, heads, visitors, hours, value_ids, value_clicks FROM click_link_days")
            .fetch_one(&pool)
            .await
            .unwrap();
    let hours = vec![3, 11, 0, 0, 2, 23, 4, 0, 0, 1];
    assert_eq!(row, (15, 0, 0, 3, 6, hours, vec![1, 2, 3], vec![10, 11, 5]));
}

#[sqlx::test(migrations = "../../migrations")]
async fn values_beyond_a_rows_room_are_rows_and_none_is_lost(pool: PgPool) {
    let store = Store::new(pool.clone());
    let first: Vec<i32> = (1..=50).collect();
    let more: Vec<i32> = (31..=100).collect();
    write(&store, 1, 0, 1, 0, &first).await;
    write(&store, 2, 0, 2, 0, &more).await;
    write(&store, 3, 0, 4, 0, &more).await;
    assert_eq!(
        count(&pool, "SELECT cardinality(value_ids)::bigint FROM click_link_days").await,
        64
    );
    let rows = "SELECT count(*) FROM click_days_by_value WHERE subject = 2";
    assert_eq!(count(&pool, rows).await, 36);
    let unlike = "SELECT count(*) FROM (
        SELECT value_id::bigint, sum(clicks)::bigint FROM click_totals_by_value WHERE subject = 2 GROUP BY 1
        EXCEPT SELECT id, CASE WHEN id <= 30 THEN 1 WHEN id <= 50 THEN 7 ELSE 6 END
                 FROM generate_series(1, 100) AS id) AS unlike";
    assert_eq!(count(&pool, unlike).await, 0);
    let values = "SELECT count(DISTINCT value_id) FROM click_totals_by_value WHERE subject = 2";
    assert_eq!(count(&pool, values).await, 100);
}

#[sqlx::test(migrations = "../../migrations")]
async fn what_releases_before_have_written_counts_as_well(pool: PgPool) {
    let store = Store::new(pool.clone());
    let before = "INSERT INTO click_hours (subject, hour, clicks) VALUES (2, '2026-03-01 03:00Z', 100);
                  INSERT INTO click_days (subject, day, clicks, visitors) VALUES (2, '2026-03-01', 100, 7);
                  INSERT INTO click_days_by_value (subject, day, value_id, clicks)
                  VALUES (2, '2026-03-01', 1, 100)";
    run(&pool, before).await;
    write(&store, 1, 3, 10, 8, &[1]).await;
    for (sql, wanted) in [
        (
            "SELECT sum(clicks)::bigint FROM click_totals_by_hour WHERE hour = '2026-03-01 03:00Z'",
            110,
        ),
        ("SELECT sum(clicks)::bigint FROM click_totals_by_day WHERE subject = 2", 110),
        ("SELECT sum(clicks)::bigint FROM click_totals_by_value WHERE subject = 2", 110),
    ] {
        assert_eq!(count(&pool, sql).await, wanted, "{sql}");
    }
}
