//! Folding the values of past months.

use super::*;

#[sqlx::test(migrations = "../../migrations")]
async fn folding_months_changes_no_values(pool: PgPool) {
    let store = Store::new(pool.clone());
    run(&pool, VALUES).await;
    run(
        &pool,
        "INSERT INTO click_days (subject, day, clicks) SELECT 0, day, 100
           FROM generate_series('2026-01-15'::timestamp, '2026-07-01', '1 day') AS day
         ON CONFLICT DO NOTHING;
         INSERT INTO click_days_by_value (subject, day, value_id, clicks)
         SELECT subject, day, value, 1 + value + extract(day FROM day)
           FROM generate_series('2026-01-15'::timestamp, '2026-07-01', '1 day') AS day,
                generate_series(1, 10) AS value, unnest(ARRAY[0, 7]) AS subject
         ON CONFLICT DO NOTHING",
    )
    .await;
    let ranges = [
        ("2026-01-15", "2026-07-01"),
        ("2026-02-01", "2026-03-01"),
        ("2026-02-02", "2026-03-01"),
        ("2026-02-01", "2026-02-28"),
        ("2026-03-03", "2026-03-04"),
        ("2025-01-01", "2026-05-01"),
        ("2026-04-30", "2026-06-02"),
    ];
    let lists = async || {
        let mut lists = Vec::new();
        for (from, to) in ranges {
            let mut query = query(from, to, Interval::Week, "UTC");
            query.top = 100;
            lists.push(stats_of(&store, &query).await.top);
        }
        lists
    };
    let before = lists().await;
    let mut folded = Vec::new();
    while folded.len() < 3 {
        // These months ended more than a week ago, whenever this test runs.
        folded.push(store.fold_click_month().await.unwrap().expect("a month").to_string());
        assert_eq!(lists().await, before, "{folded:?}");
    }
    assert_eq!(folded, ["2026-01-01", "2026-02-01", "2026-03-01"]);
    while store.fold_click_month().await.unwrap().is_some() {}
    assert_eq!(lists().await, before, "all due months are folded");
    // Statistics read the folded rows.
    run(&pool, "DELETE FROM click_days_by_value WHERE day BETWEEN '2026-02-01' AND '2026-02-28'")
        .await;
    assert_eq!(lists().await[1], before[1]);
}

#[sqlx::test(migrations = "../../migrations")]
async fn a_month_is_folded_once_a_week_after_its_end(pool: PgPool) {
    let store = Store::new(pool.clone());
    assert_eq!(store.fold_click_month().await.unwrap(), None, "without clicks no month is due");
    run(
        &pool,
        "INSERT INTO click_days (subject, day, clicks)
         VALUES (0, (now() AT TIME ZONE 'UTC' - interval '6 days')::date, 1)",
    )
    .await;
    assert_eq!(
        store.fold_click_month().await.unwrap(),
        None,
        "a month is due a week after its end"
    );
    run(
        &pool,
        "INSERT INTO click_days (subject, day, clicks)
         VALUES (0, (now() AT TIME ZONE 'UTC' - interval '1 month 10 days')::date, 1);
         INSERT INTO click_days_by_value (subject, day, value_id, clicks)
         VALUES (0, (now() AT TIME ZONE 'UTC' - interval '1 month 10 days')::date, 1, 1)",
    )
    .await;
    let both = futures::join!(store.fold_click_month(), store.fold_click_month());
    let months = [both.0.unwrap(), both.1.unwrap()];
    let made: Vec<_> = months.iter().flatten().collect();
    assert!(!made.is_empty(), "the month before last is due");
    let clicks =
        crate::support::count(&pool, "SELECT sum(clicks)::bigint FROM click_months_by_value");
    assert_eq!(clicks.await, 1, "folded once: {made:?}");
}
