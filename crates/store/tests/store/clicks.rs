//! Writing groups of clicks.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use linnet_domain::{LinkId, Subject};
use linnet_store::{ClickGroup, ClickTotals, KindCounts, LinkDays, SHARDS, Store, ValueDelta};
use sqlx::PgPool;

use crate::support::{count, run};

const DAY: &str = "2026-03-01";

fn link(number: i64) -> LinkId {
    LinkId::new(number).unwrap()
}

/// Writes a group with `clicks` on link 2, in one hour, all with these values.
async fn write(store: &Store, batch: u8, hour: i32, clicks: i64, visitors: i64, values: &[i32]) {
    let day: NaiveDate = DAY.parse().unwrap();
    let mut link_days = LinkDays::default();
    link_days.begin(link(2), day, visitors);
    link_days.add_hour(hour, KindCounts { clicks, heads: 1, ..KindCounts::default() });
    for id in values {
        link_days.add_value(*id, clicks);
    }
    let values = vec![ValueDelta { subject: Subject::Service, day, value_id: 1, clicks }];
    let totals = ClickTotals { link_days, values, ..ClickTotals::default() };
    let batches = [vec![batch; 16]];
    let group = ClickGroup { batches: &batches, shards: SHARDS.to_vec(), rows: &[], totals };
    assert!(store.write_clicks(&group).await.unwrap());
}

/// Clicks, bots, prefetches, heads, visitors; hours, values and their clicks.
type Day = (i64, i64, i64, i64, i64, Vec<i32>, Vec<i32>, Vec<i64>);
/// The link; hours, values and their clicks.
type Lists = (i64, Vec<i32>, Vec<i32>, Vec<i64>);
/// Numbers of hours or values, and their clicks.
type Counts = Vec<(i32, i64)>;

#[sqlx::test(migrations = "../../migrations")]
async fn groups_add_up_in_one_row_per_link_and_day(pool: PgPool) {
    let store = Store::new(pool.clone());
    write(&store, 1, 3, 10, 5, &[1, 2]).await;
    write(&store, 2, 3, 1, 6, &[2, 3]).await;
    write(&store, 3, 23, 4, 4, &[3]).await;
    let row = "SELECT clicks, bots, prefetches, heads, visitors, hours, value_ids, value_clicks
                 FROM click_link_days";
    let row: Day = sqlx::query_as(row).fetch_one(&pool).await.unwrap();
    let hours = vec![3, 11, 0, 0, 2, 23, 4, 0, 0, 1];
    assert_eq!(row, (15, 0, 0, 3, 6, hours, vec![1, 2, 3], vec![10, 11, 5]));
}

#[sqlx::test(migrations = "../../migrations")]
async fn values_beyond_the_limit_of_a_row_are_stored_as_rows(pool: PgPool) {
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
async fn roll_ups_of_earlier_releases_count(pool: PgPool) {
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
    // Each table has the unique visitors of the whole day so far, so the higher number counts.
    let visitors = "SELECT sum(visitors)::bigint FROM click_totals_by_day WHERE subject = 2";
    assert_eq!(count(&pool, visitors).await, 8);
}

/// Hours and values of a link in a group, generated from their numbers.
fn generated(link: i64, group: i64) -> (Counts, Counts) {
    let small = |number: i64| i32::try_from(number).unwrap();
    let hours = (0..=(link + group) % 4).map(|n| (small((link * group + 5 * n) % 24), link + n));
    // Some days have no values, like days with only bots.
    let values =
        (0..(link * 7 + group) % 9).map(|n| (small(1 + (link + group * 3 + n) % 40), n + 1));
    (hours.collect(), values.collect())
}

#[sqlx::test(migrations = "../../migrations")]
async fn each_of_many_links_gets_its_own_hours_and_values(pool: PgPool) {
    let store = Store::new(pool.clone());
    let day: NaiveDate = DAY.parse().unwrap();
    let mut wanted: BTreeMap<i64, [BTreeMap<i32, i64>; 2]> = BTreeMap::new();
    for group in 1..=3_u8 {
        let mut link_days = LinkDays::default();
        let number = i64::from(group);
        // There are more links than one statement reads, and each group has different links.
        for link in (1..=700_i64).filter(|link| link % number == 0 || link % 5 == 0) {
            let (hours, values) = generated(link, number);
            let sums = wanted.entry(link).or_default();
            link_days.begin(self::link(link), day, 0);
            for (hour, clicks) in hours {
                link_days.add_hour(hour, KindCounts { clicks, ..KindCounts::default() });
                *sums[0].entry(hour).or_default() += clicks;
            }
            for (id, clicks) in values {
                link_days.add_value(id, clicks);
                *sums[1].entry(id).or_default() += clicks;
            }
        }
        let totals = ClickTotals { link_days, ..ClickTotals::default() };
        let batches = [vec![group; 16]];
        let group = ClickGroup { batches: &batches, shards: SHARDS.to_vec(), rows: &[], totals };
        assert!(store.write_clicks(&group).await.unwrap());
    }
    let rows: Vec<Lists> =
        sqlx::query_as("SELECT url_id, hours, value_ids, value_clicks FROM click_link_days")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(rows.len(), wanted.len());
    for (link, hours, ids, clicks) in rows {
        let hours: Counts = hours.chunks(5).map(|h| (h[0], i64::from(h[1]))).collect();
        let values: Counts = ids.into_iter().zip(clicks).collect();
        let [wanted_hours, wanted_values] = &wanted[&link];
        assert_eq!(
            (hours.len(), values.len()),
            (wanted_hours.len(), wanted_values.len()),
            "{link}"
        );
        assert_eq!(&hours.into_iter().collect::<BTreeMap<_, _>>(), wanted_hours, "{link}");
        assert_eq!(&values.into_iter().collect::<BTreeMap<_, _>>(), wanted_values, "{link}");
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn concurrent_writers_of_a_day_lose_no_clicks(pool: PgPool) {
    let store = Store::new(pool.clone());
    let writer = async |from: u8| {
        for batch in from..from + 20 {
            write(&store, batch, i32::from(batch % 24), 1, 0, &[1, i32::from(batch)]).await;
        }
    };
    futures::join!(writer(10), writer(60));
    assert_eq!(count(&pool, "SELECT clicks FROM click_link_days").await, 40);
    let values = "SELECT sum(clicks)::bigint FROM click_totals_by_value WHERE subject = 2";
    assert_eq!(count(&pool, values).await, 80);
}
