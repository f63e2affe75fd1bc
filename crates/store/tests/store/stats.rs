use chrono::{DateTime, NaiveDate, Utc};
use linnet_domain::{
    Counts, Dimension, Interval, LinkId, RangeBound, Stats, StatsQuery, Subject, TopValue, UserId,
    Visibility, ZoneName,
};
use linnet_store::{StatsError, Store};
use sqlx::PgPool;

use crate::support::{create, create_user, new_link, run};

fn time(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

fn date(text: &str) -> RangeBound {
    RangeBound::Date(text.parse::<NaiveDate>().expect("a date"))
}

fn question(from: &str, to: &str, interval: Interval, zone: &str) -> StatsQuery {
    StatsQuery {
        subject: Subject::Service,
        from: Some(date(from)),
        to: Some(date(to)),
        interval,
        zone: ZoneName::parse(zone).expect("a zone"),
        top: 10,
        dimensions: Dimension::all().collect(),
    }
}

async fn answer(store: &Store, query: &StatsQuery) -> Stats {
    store.click_stats(query, Visibility::All).await.expect("statistics").expect("a subject")
}

/// Starts with their clicks and visitors.
fn points(stats: &Stats) -> Vec<(String, i64, Option<i64>)> {
    let point = |bucket: &linnet_domain::Bucket| {
        let start = bucket.start.format("%m-%dT%H:%M").to_string();
        (start, bucket.counts.clicks, bucket.counts.unique_visitors)
    };
    stats.series.iter().map(point).collect()
}

fn list(stats: &Stats, name: &str) -> Vec<(String, i64)> {
    let pair = |TopValue { value, clicks }: &TopValue| (value.clone(), *clicks);
    stats.top.get(name).expect("the list").iter().map(pair).collect()
}

#[sqlx::test(migrations = "../../migrations")]
async fn a_series_has_no_gaps_and_ends_before_its_end(pool: PgPool) {
    let store = Store::new(pool.clone());
    run(
        &pool,
        "INSERT INTO click_days (subject, day, clicks, bots, prefetches, heads, visitors) VALUES
         (0, '2026-03-01', 1, 0, 0, 0, 1), (0, '2026-03-02', 5, 4, 3, 2, 2),
         (0, '2026-03-04', 7, 0, 0, 1, 3), (0, '2026-03-05', 100, 100, 100, 100, 100)",
    )
    .await;
    let stats = answer(&store, &question("2026-03-02", "2026-03-05", Interval::Day, "UTC")).await;
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

    // Weeks begin on Mondays, and hold no day outside the range: 2026-03-02 is one.
    let weeks = answer(&store, &question("2026-03-01", "2026-03-05", Interval::Week, "UTC")).await;
    assert_eq!(
        points(&weeks),
        [("02-23T00:00".into(), 1, Some(1)), ("03-02T00:00".into(), 12, Some(5))]
    );
}

#[sqlx::test(migrations = "../../migrations")]
async fn days_of_a_zone_are_its_own_when_clocks_change(pool: PgPool) {
    let store = Store::new(pool.clone());
    // One click an hour. In 2026 Berlin's clocks change on March 29 and October 25.
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
    let day = |from, to| question(from, to, Interval::Day, "Europe/Berlin");
    let spring = answer(&store, &day("2026-03-28", "2026-03-31")).await;
    assert_eq!(
        points(&spring),
        [
            ("03-27T23:00".into(), 24, Some(7)),
            ("03-28T23:00".into(), 23, Some(7)),
            ("03-29T22:00".into(), 24, Some(7))
        ]
    );
    assert_eq!((spring.totals.clicks, spring.totals.unique_visitors), (71, Some(21)));
    let autumn = answer(&store, &day("2026-10-24", "2026-10-27")).await;
    assert_eq!(
        points(&autumn),
        [
            ("10-23T22:00".into(), 24, Some(7)),
            ("10-24T22:00".into(), 25, Some(7)),
            ("10-25T23:00".into(), 24, Some(7))
        ]
    );
    let week = question("2026-10-19", "2026-10-26", Interval::Week, "Europe/Berlin");
    let week = answer(&store, &week).await;
    assert_eq!(points(&week), [("10-18T22:00".into(), 169, Some(49))]);

    // A day of any zone has the visitors of one UTC day, the one it shares most hours with.
    for zone in ["Pacific/Auckland", "America/Los_Angeles", "Asia/Kolkata", "Pacific/Kiritimati"] {
        let query = question("2026-09-25", "2026-10-06", Interval::Day, zone);
        let stats = answer(&store, &query).await;
        assert_eq!(stats.series.len(), 11, "{zone}");
        assert!(points(&stats).iter().all(|point| point.2 == Some(7)), "{zone}");
        assert_eq!(stats.totals.unique_visitors, Some(77), "{zone}");
        let clicks: i64 = stats.series.iter().map(|bucket| bucket.counts.clicks).sum();
        assert_eq!(stats.totals.clicks, clicks, "{zone}");
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn hours_are_utcs_and_have_no_visitors(pool: PgPool) {
    let store = Store::new(pool.clone());
    run(
        &pool,
        "INSERT INTO click_hours (subject, hour, clicks, bots) VALUES
         (0, '2026-03-02 09:00Z', 9, 9), (0, '2026-03-02 10:00Z', 1, 2),
         (0, '2026-03-02 12:00Z', 3, 4), (0, '2026-03-02 13:00Z', 9, 9);
         INSERT INTO click_days (subject, day, clicks, visitors) VALUES (0, '2026-03-02', 22, 6)",
    )
    .await;
    let mut query = question("2026-03-02", "2026-03-02", Interval::Hour, "Asia/Kolkata");
    query.from = Some(RangeBound::Time(time("2026-03-02T10:20:00Z")));
    query.to = Some(RangeBound::Time(time("2026-03-02T12:20:00Z")));
    let stats = answer(&store, &query).await;
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

    // Parts of days are read by hour.
    query.interval = Interval::Day;
    query.zone = ZoneName::default();
    let stats = answer(&store, &query).await;
    assert_eq!(points(&stats), [("03-02T00:00".into(), 4, Some(6))]);
}

#[sqlx::test(migrations = "../../migrations")]
async fn without_ends_the_last_30_days_are_counted(pool: PgPool) {
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
    let mut query = question("2026-01-01", "2026-01-02", Interval::Day, "UTC");
    (query.from, query.to) = (None, None);
    let days = answer(&store, &query).await;
    assert_eq!((days.series.len(), days.totals.clicks), (30, 30));
    query.interval = Interval::Hour;
    let hours = answer(&store, &query).await;
    assert_eq!((hours.series.len(), hours.totals.clicks), (48, 48));
    query.interval = Interval::Week;
    let weeks = answer(&store, &query).await;
    assert_eq!(weeks.series.len(), 26);
    assert!((25 * 7 + 1..=26 * 7).contains(&weeks.totals.clicks), "{:?}", weeks.totals);
    query.zone = ZoneName::parse("America/New_York").unwrap();
    query.interval = Interval::Day;
    assert_eq!(answer(&store, &query).await.series.len(), 30);
}

#[sqlx::test(migrations = "../../migrations")]
async fn bad_ranges_and_zones_are_told(pool: PgPool) {
    let store = Store::new(pool);
    let error = async |from: &str, to: &str, interval, zone: &str| {
        store.click_stats(&question(from, to, interval, zone), Visibility::All).await.unwrap_err()
    };
    let unknown = error("2026-01-01", "2026-01-02", Interval::Day, "Europe/Nowhere").await;
    assert!(matches!(unknown, StatsError::UnknownZone), "{unknown:?}");
    for from in ["2026-01-02", "2026-01-03"] {
        let empty = error(from, "2026-01-02", Interval::Day, "UTC").await;
        assert!(matches!(empty, StatsError::EmptyRange), "{empty:?}");
    }
    let many = error("1970-01-01", "9998-12-31", Interval::Hour, "Pacific/Auckland").await;
    assert!(matches!(many, StatsError::TooManyBuckets), "{many:?}");
    let most = question("2020-01-01", "2025-06-23", Interval::Day, "UTC");
    assert_eq!(answer(&store, &most).await.series.len(), 2_000);
    let more = error("2020-01-01", "2025-06-24", Interval::Day, "UTC").await;
    assert!(matches!(more, StatsError::TooManyBuckets), "{more:?}");
}

/// Days of links are rows of another kind than those of releases before, and say the same.
#[sqlx::test(migrations = "../../migrations")]
async fn links_days_say_what_hours_days_and_values_do(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (before, now) =
        (create(&store, &new_link(None)).await.id, create(&store, &new_link(None)).await.id);
    run(&pool, VALUES).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "INSERT INTO click_hours (subject, hour, clicks, bots, prefetches, heads)
         SELECT {before}, hour, n, n % 3, n % 5, n % 7
           FROM generate_series('2026-03-27 00:00Z'::timestamptz, '2026-04-03 23:00Z', '1 hour')
                WITH ORDINALITY AS hours (hour, n) WHERE n % 4 > 0;
         INSERT INTO click_days (subject, day, clicks, bots, prefetches, heads, visitors)
         SELECT subject, (hour AT TIME ZONE 'UTC')::date, sum(clicks), sum(bots), sum(prefetches),
                sum(heads), min(clicks)
           FROM click_hours WHERE subject = {before} GROUP BY 1, 2;
         INSERT INTO click_days_by_value (subject, day, value_id, clicks)
         SELECT subject, day, value, value + extract(day FROM day)
           FROM click_days, generate_series(1, 10) AS value WHERE subject = {before};
         INSERT INTO click_link_days
         SELECT {now}, day, clicks, bots, prefetches, heads, visitors,
                (SELECT array_agg(number ORDER BY hour, place)
                   FROM click_hours AS held, unnest(ARRAY[extract(hour FROM hour AT TIME ZONE 'UTC')::int,
                        held.clicks::int, held.bots::int, held.prefetches::int, held.heads::int])
                        WITH ORDINALITY AS numbers (number, place)
                  WHERE subject = {before} AND (hour AT TIME ZONE 'UTC')::date = days.day),
                (SELECT array_agg(value_id ORDER BY value_id) FROM click_days_by_value AS held
                  WHERE subject = {before} AND held.day = days.day),
                (SELECT array_agg(held.clicks ORDER BY value_id) FROM click_days_by_value AS held
                  WHERE subject = {before} AND held.day = days.day)
           FROM click_days AS days WHERE subject = {before}"
    )))
    .execute(&pool)
    .await
    .unwrap();
    let both = async || {
        let mut clicks = 0;
        for (from, to) in [
            ("2026-03-20T00:00:00Z", "2026-04-10T00:00:00Z"),
            ("2026-03-28T00:00:00Z", "2026-03-29T00:00:00Z"),
            ("2026-03-28T05:30:00Z", "2026-03-30T22:10:00Z"),
            ("2026-03-29T23:00:00Z", "2026-03-30T00:00:00Z"),
        ] {
            for interval in [Interval::Hour, Interval::Day, Interval::Week] {
                for zone in ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/Los_Angeles"] {
                    let mut query = question("2026-01-01", "2026-01-02", interval, zone);
                    query.from = Some(RangeBound::Time(time(from)));
                    query.to = Some(RangeBound::Time(time(to)));
                    query.subject = Subject::Link(before);
                    let wanted = answer(&store, &query).await;
                    query.subject = Subject::Link(now);
                    let seen = answer(&store, &query).await;
                    let what = format!("{from} to {to} by {interval:?} in {zone}");
                    assert_eq!(points(&seen), points(&wanted), "{what}");
                    assert_eq!(seen.totals, wanted.totals, "{what}");
                    assert_eq!(seen.top, wanted.top, "{what}");
                    clicks += seen.totals.clicks;
                }
            }
        }
        clicks
    };
    let clicks = both().await;
    assert!(clicks > 10_000, "{clicks}");
    while store.fold_click_month().await.unwrap().is_some() {}
    assert_eq!(both().await, clicks, "with folded months, too");
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_nobody_counts_what_is_not_theirs(pool: PgPool) {
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
        let mut query = question("2026-03-01", "2026-03-02", Interval::Day, "UTC");
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

const VALUES: &str = "
    INSERT INTO click_values (id, kind, parts) OVERRIDING SYSTEM VALUE VALUES
      (1, 1, '{Firefox,Linux,desktop}'), (2, 1, '{Firefox,Android,phone}'), (3, 1, '{Safari,iOS,phone}'),
      (4, 1, '{\"\",Windows,desktop}'), (5, 2, '{DE,de}'), (6, 2, '{\"\",de}'),
      (7, 3, '{example.com}'), (8, 3, '{example.org}'),
      (9, 4, '{mail,newsletter,\"\"}'), (10, 4, '{mail,\"\",spring}');
    INSERT INTO click_days (subject, day, clicks, visitors) VALUES
      (0, '2026-03-01', 60, 40), (0, '2026-03-02', 40, 20), (0, '2026-03-03', 1000, 900);
    INSERT INTO click_days_by_value (subject, day, value_id, clicks) VALUES
      (0, '2026-03-01', 1, 30), (0, '2026-03-02', 1, 10), (0, '2026-03-01', 2, 20), (0, '2026-03-01', 3, 5),
      (0, '2026-03-02', 4, 3), (0, '2026-03-01', 5, 50), (0, '2026-03-01', 6, 10),
      (0, '2026-03-01', 7, 25), (0, '2026-03-02', 8, 25), (0, '2026-03-02', 9, 4), (0, '2026-03-02', 10, 2),
      (0, '2026-03-03', 3, 999), (0, '2026-02-28', 3, 999), (7, '2026-03-01', 3, 999)";

#[sqlx::test(migrations = "../../migrations")]
async fn lists_add_up_to_all_clicks_with_direct_and_unknown(pool: PgPool) {
    let store = Store::new(pool.clone());
    run(&pool, VALUES).await;
    let mut query = question("2026-03-01", "2026-03-03", Interval::Day, "UTC");
    let stats = answer(&store, &query).await;
    let pairs = |pairs: &[(&str, i64)]| -> Vec<(String, i64)> {
        pairs.iter().map(|(value, clicks)| ((*value).to_owned(), *clicks)).collect()
    };
    assert_eq!(stats.top.len(), Dimension::all().count());
    // 32 clicks have no agent, 3 have one without a browser.
    assert_eq!(list(&stats, "browser"), pairs(&[("Firefox", 60), ("unknown", 35), ("Safari", 5)]));
    assert_eq!(list(&stats, "device"), pairs(&[("desktop", 43), ("unknown", 32), ("phone", 25)]));
    assert_eq!(list(&stats, "country"), pairs(&[("DE", 50), ("unknown", 50)]));
    assert_eq!(list(&stats, "language"), pairs(&[("de", 60), ("unknown", 40)]));
    assert_eq!(
        list(&stats, "referrer"),
        pairs(&[("direct", 50), ("example.com", 25), ("example.org", 25)])
    );
    assert_eq!(list(&stats, "utm_source"), pairs(&[("mail", 6)]));
    assert_eq!(list(&stats, "utm_medium"), pairs(&[("newsletter", 4)]));
    assert_eq!(list(&stats, "utm_campaign"), pairs(&[("spring", 2)]));

    query.top = 1;
    let first = answer(&store, &query).await;
    assert_eq!(list(&first, "referrer"), pairs(&[("direct", 50)]));
    query.dimensions = Dimension::parse("os").into_iter().collect();
    let only = answer(&store, &query).await;
    assert_eq!(only.top.keys().collect::<Vec<_>>(), [&"os"]);
    query.top = 0;
    let none = answer(&store, &query).await;
    assert_eq!(list(&none, "os"), []);
    assert_eq!(none.totals.unique_visitors, Some(60), "needs no lists");
}

#[sqlx::test(migrations = "../../migrations")]
async fn folded_months_change_no_list(pool: PgPool) {
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
            let mut query = question(from, to, Interval::Week, "UTC");
            query.top = 100;
            lists.push(answer(&store, &query).await.top);
        }
        lists
    };
    let before = lists().await;
    let mut folded = Vec::new();
    while folded.len() < 3 {
        // Months end a week ago at the least, so these have, whenever this runs.
        folded.push(store.fold_click_month().await.unwrap().expect("a month").to_string());
        assert_eq!(lists().await, before, "{folded:?}");
    }
    assert_eq!(folded, ["2026-01-01", "2026-02-01", "2026-03-01"]);
    while store.fold_click_month().await.unwrap().is_some() {}
    assert_eq!(lists().await, before, "all that may be folded");
    // It is the folded rows that are read.
    run(&pool, "DELETE FROM click_days_by_value WHERE day BETWEEN '2026-02-01' AND '2026-02-28'")
        .await;
    assert_eq!(lists().await[1], before[1]);
}

#[sqlx::test(migrations = "../../migrations")]
async fn a_month_is_folded_a_week_after_its_end_by_one_process(pool: PgPool) {
    let store = Store::new(pool.clone());
    assert_eq!(store.fold_click_month().await.unwrap(), None, "there are no clicks");
    run(
        &pool,
        "INSERT INTO click_days (subject, day, clicks)
         VALUES (0, (now() AT TIME ZONE 'UTC' - interval '6 days')::date, 1)",
    )
    .await;
    assert_eq!(store.fold_click_month().await.unwrap(), None, "it may not be over");
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
    assert!(!made.is_empty(), "the month before last is over for more than a week");
    let clicks =
        crate::support::count(&pool, "SELECT sum(clicks)::bigint FROM click_months_by_value");
    assert_eq!(clicks.await, 1, "counted once: {made:?}");
}
