//! Totals and series.

use super::*;

#[sqlx::test(migrations = "../../migrations")]
async fn a_series_has_no_gaps_and_excludes_its_end(pool: PgPool) {
    let store = Store::new(pool.clone());
    run(
        &pool,
        "INSERT INTO click_days (subject, day, clicks, bots, prefetches, heads, visitors) VALUES
         (0, '2026-03-01', 1, 0, 0, 0, 1), (0, '2026-03-02', 5, 4, 3, 2, 2),
         (0, '2026-03-04', 7, 0, 0, 1, 3), (0, '2026-03-05', 100, 100, 100, 100, 100)",
    )
    .await;
    let stats = stats_of(&store, &query("2026-03-02", "2026-03-05", Interval::Day, "UTC")).await;
    assert_eq!(
        points(&stats),
        [
            ("03-02T00:00".into(), 5, Some(2)),
            ("03-03T00:00".into(), 0, Some(0)),
            ("03-04T00:00".into(), 7, Some(3))
        ]
    );
    let totals = Counts { clicks: 12, unique_visitors: Some(5), bots: 4, prefetches: 3, heads: 3 };
    assert_eq!(stats.totals, totals);
    assert_eq!(stats.from, time("2026-03-02T00:00:00Z"));
    assert_eq!(stats.to, time("2026-03-05T00:00:00Z"));

    // Weeks begin on Mondays, such as 2026-03-02, and contain no day outside the range.
    let weeks = stats_of(&store, &query("2026-03-01", "2026-03-05", Interval::Week, "UTC")).await;
    assert_eq!(
        points(&weeks),
        [("02-23T00:00".into(), 1, Some(1)), ("03-02T00:00".into(), 12, Some(5))]
    );
}

#[sqlx::test(migrations = "../../migrations")]
async fn days_follow_the_time_zone_when_clocks_change(pool: PgPool) {
    let store = Store::new(pool.clone());
    // One click per hour. In 2026 the clocks of Berlin change on March 29 and October 25.
    run(
        &pool,
        "INSERT INTO click_hours (subject, hour, clicks)
         SELECT 0, hour, 1 FROM generate_series('2026-03-27'::timestamptz, '2026-10-28', '1 hour')
                AS hour;
         INSERT INTO click_days (subject, day, clicks, visitors)
         SELECT 0, day, 24, 7 FROM generate_series('2026-03-27'::timestamp, '2026-10-27', '1 day')
                AS day",
    )
    .await;
    let day = |from, to| query(from, to, Interval::Day, "Europe/Berlin");
    let spring = stats_of(&store, &day("2026-03-28", "2026-03-31")).await;
    assert_eq!(
        points(&spring),
        [
            ("03-27T23:00".into(), 24, Some(7)),
            ("03-28T23:00".into(), 23, Some(7)),
            ("03-29T22:00".into(), 24, Some(7))
        ]
    );
    assert_eq!((spring.totals.clicks, spring.totals.unique_visitors), (71, Some(21)));
    let autumn = stats_of(&store, &day("2026-10-24", "2026-10-27")).await;
    assert_eq!(
        points(&autumn),
        [
            ("10-23T22:00".into(), 24, Some(7)),
            ("10-24T22:00".into(), 25, Some(7)),
            ("10-25T23:00".into(), 24, Some(7))
        ]
    );
    let week = query("2026-10-19", "2026-10-26", Interval::Week, "Europe/Berlin");
    let week = stats_of(&store, &week).await;
    assert_eq!(points(&week), [("10-18T22:00".into(), 169, Some(49))]);

    // A day has the visitors of the UTC day with which it shares most hours.
    for zone in ["Pacific/Auckland", "America/Los_Angeles", "Asia/Kolkata", "Pacific/Kiritimati"] {
        let query = query("2026-09-25", "2026-10-06", Interval::Day, zone);
        let stats = stats_of(&store, &query).await;
        assert_eq!(stats.series.len(), 11, "{zone}");
        assert!(points(&stats).iter().all(|point| point.2 == Some(7)), "{zone}");
        assert_eq!(stats.totals.unique_visitors, Some(77), "{zone}");
        let clicks: i64 = stats.series.iter().map(|bucket| bucket.counts.clicks).sum();
        assert_eq!(stats.totals.clicks, clicks, "{zone}");
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn day_with_a_repeated_midnight_has_all_its_hours_once(pool: PgPool) {
    let store = Store::new(pool.clone());
    run(
        &pool,
        "INSERT INTO click_hours (subject, hour, clicks)
         SELECT 0, hour, 1 FROM generate_series('2026-10-20'::timestamptz, '2026-10-30', '1 hour')
                AS hour;
         INSERT INTO click_days (subject, day, clicks, visitors)
         SELECT 0, day, 24, 7 FROM generate_series('2026-10-20'::timestamp, '2026-10-30', '1 day')
                AS day",
    )
    .await;
    let day = |from, to| query(from, to, Interval::Day, "Atlantic/Azores");
    let before = stats_of(&store, &day("2026-10-24", "2026-10-25")).await;
    assert_eq!(points(&before), [("10-24T00:00".into(), 24, Some(7))]);
    let long = stats_of(&store, &day("2026-10-25", "2026-10-26")).await;
    assert_eq!(points(&long), [("10-25T00:00".into(), 25, Some(7))]);
}

#[sqlx::test(migrations = "../../migrations")]
async fn hours_are_in_utc_and_have_no_visitors(pool: PgPool) {
    let store = Store::new(pool.clone());
    run(
        &pool,
        "INSERT INTO click_hours (subject, hour, clicks, bots) VALUES
         (0, '2026-03-02 09:00Z', 9, 9), (0, '2026-03-02 10:00Z', 1, 2),
         (0, '2026-03-02 12:00Z', 3, 4), (0, '2026-03-02 13:00Z', 9, 9);
         INSERT INTO click_days (subject, day, clicks, visitors) VALUES (0, '2026-03-02', 22, 6)",
    )
    .await;
    let mut query = query("2026-03-02", "2026-03-02", Interval::Hour, "Asia/Kolkata");
    query.from = Some(RangeBound::Time(time("2026-03-02T10:20:00Z")));
    query.to = Some(RangeBound::Time(time("2026-03-02T12:20:00Z")));
    let stats = stats_of(&store, &query).await;
    assert_eq!(
        points(&stats),
        [
            ("03-02T10:00".into(), 1, None),
            ("03-02T11:00".into(), 0, None),
            ("03-02T12:00".into(), 3, None)
        ]
    );
    assert_eq!(stats.totals.unique_visitors, Some(6), "of the whole UTC day");
    assert_eq!(stats.to, time("2026-03-02T13:00:00Z"));

    // Parts of days come from the roll-up by hour.
    query.interval = Interval::Day;
    query.zone = Zone::default();
    let stats = stats_of(&store, &query).await;
    assert_eq!(points(&stats), [("03-02T00:00".into(), 4, Some(6))]);
}

#[sqlx::test(migrations = "../../migrations")]
async fn the_default_range_is_the_last_30_days(pool: PgPool) {
    let store = Store::new(pool.clone());
    run(
        &pool,
        "INSERT INTO click_days (subject, day, clicks)
         SELECT 0, (now() AT TIME ZONE 'UTC')::date - n, 1 FROM generate_series(0, 400) AS n;
         INSERT INTO click_hours (subject, hour, clicks)
         SELECT 0, date_trunc('hour', now()) - n * interval '1 hour', 1
           FROM generate_series(0, 9000) AS n",
    )
    .await;
    let mut query = query("2026-01-01", "2026-01-02", Interval::Day, "UTC");
    (query.from, query.to) = (None, None);
    let days = stats_of(&store, &query).await;
    assert_eq!((days.series.len(), days.totals.clicks), (30, 30));
    query.interval = Interval::Hour;
    let hours = stats_of(&store, &query).await;
    assert_eq!((hours.series.len(), hours.totals.clicks), (48, 48));
    query.interval = Interval::Week;
    let weeks = stats_of(&store, &query).await;
    assert_eq!(weeks.series.len(), 26);
    assert!((25 * 7 + 1..=26 * 7).contains(&weeks.totals.clicks), "{:?}", weeks.totals);
    query.zone = Zone::parse("America/New_York").unwrap();
    query.interval = Interval::Day;
    assert_eq!(stats_of(&store, &query).await.series.len(), 30);
}

#[sqlx::test(migrations = "../../migrations")]
async fn invalid_ranges_are_errors(pool: PgPool) {
    let store = Store::new(pool);
    let error = async |from: &str, to: &str, interval, zone: &str| {
        store.click_stats(&query(from, to, interval, zone), Visibility::All).await.unwrap_err()
    };
    for from in ["2026-01-02", "2026-01-03"] {
        let empty = error(from, "2026-01-02", Interval::Day, "UTC").await;
        assert!(matches!(empty, StatsError::Range(RangeError::Empty)), "{empty:?}");
    }
    let many = error("1970-01-01", "9998-12-31", Interval::Hour, "Pacific/Auckland").await;
    assert!(matches!(many, StatsError::Range(RangeError::TooManyBuckets)), "{many:?}");
    let most = query("2020-01-01", "2025-06-23", Interval::Day, "UTC");
    assert_eq!(stats_of(&store, &most).await.series.len(), 2_000);
    let more = error("2020-01-01", "2025-06-24", Interval::Day, "UTC").await;
    assert!(matches!(more, StatsError::Range(RangeError::TooManyBuckets)), "{more:?}");
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_statistics_of_other_owners_are_not_visible(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (owner, other) = (create_user(&store, "owner").await, create_user(&store, "other").await);
    let mut new = new_link(None);
    new.user_id = Some(owner.id);
    let link = create(&store, &new).await;
    sqlx::query("INSERT INTO click_days (subject, day, clicks) VALUES ($1, '2026-03-01', 1), ($2, '2026-03-01', 2), (0, '2026-03-01', 3)")
        .bind(link.id)
        .bind(Subject::User(owner.id).key())
        .execute(&pool)
        .await
        .unwrap();
    let clicks = async |subject, visible_to| {
        let mut query = query("2026-03-01", "2026-03-02", Interval::Day, "UTC");
        query.subject = subject;
        let stats = store.click_stats(&query, visible_to).await.unwrap();
        stats.map(|stats| stats.totals.clicks)
    };
    let (link, user) = (Subject::Link(link.id), Subject::User(owner.id));
    for (visible_to, wanted) in [
        (Visibility::All, [Some(1), Some(2), Some(3)]),
        (Visibility::Owner(owner.id), [Some(1), Some(2), None]),
        (Visibility::Owner(other.id), [None, None, None]),
        (Visibility::None, [None, None, None]),
    ] {
        let seen = [
            clicks(link, visible_to).await,
            clicks(user, visible_to).await,
            clicks(Subject::Service, visible_to).await,
        ];
        assert_eq!(seen, wanted, "{visible_to:?}");
    }
    let absent = Subject::Link(LinkId::new(999).unwrap());
    assert_eq!(clicks(absent, Visibility::All).await, None);
    let absent = Subject::User(UserId::new(999).unwrap());
    assert_eq!(clicks(absent, Visibility::All).await, None);
}
