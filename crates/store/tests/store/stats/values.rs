//! The most frequent values of dimensions.

use super::*;

/// This release stores days of links in another table than earlier releases.
// Long because it writes the same clicks in both forms.
#[sqlx::test(migrations = "../../migrations")]
async fn days_of_links_give_the_same_statistics_as_separate_roll_ups(pool: PgPool) {
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
                    let mut query = query("2026-01-01", "2026-01-02", interval, zone);
                    query.from = Some(RangeBound::Time(time(from)));
                    query.to = Some(RangeBound::Time(time(to)));
                    query.subject = Subject::Link(before);
                    let wanted = stats_of(&store, &query).await;
                    query.subject = Subject::Link(now);
                    let seen = stats_of(&store, &query).await;
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
    assert_eq!(both().await, clicks, "folding changes nothing");
}

#[sqlx::test(migrations = "../../migrations")]
async fn values_with_direct_and_unknown_add_up_to_all_clicks(pool: PgPool) {
    let store = Store::new(pool.clone());
    run(&pool, VALUES).await;
    let mut query = query("2026-03-01", "2026-03-03", Interval::Day, "UTC");
    let stats = stats_of(&store, &query).await;
    let pairs = |pairs: &[(&str, i64)]| -> Vec<(String, i64)> {
        pairs.iter().map(|(value, clicks)| ((*value).to_owned(), *clicks)).collect()
    };
    assert_eq!(stats.top.len(), Dimension::all().count());
    // 32 clicks have no agent, and 3 have an agent without a browser.
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
    let first = stats_of(&store, &query).await;
    assert_eq!(list(&first, "referrer"), pairs(&[("direct", 50)]));
    query.dimensions = Dimension::parse("os").into_iter().collect();
    let only = stats_of(&store, &query).await;
    assert_eq!(only.top.keys().collect::<Vec<_>>(), [&"os"]);
    query.top = 0;
    let none = stats_of(&store, &query).await;
    assert_eq!(list(&none, "os"), []);
    assert_eq!(none.totals.unique_visitors, Some(60), "visitors do not depend on values");
}
