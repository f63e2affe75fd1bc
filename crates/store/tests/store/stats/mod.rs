//! Statistics from roll-ups.

mod folding;
mod series;
mod values;

use chrono::{DateTime, NaiveDate, Utc};
use linnet_domain::{
    Counts, Dimension, Interval, LinkId, RangeBound, RangeError, Stats, StatsQuery, Subject,
    TopValue, UserId, Visibility, Zone,
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

fn query(from: &str, to: &str, interval: Interval, zone: &str) -> StatsQuery {
    StatsQuery {
        subject: Subject::Service,
        from: Some(date(from)),
        to: Some(date(to)),
        interval,
        zone: Zone::parse(zone).expect("a zone"),
        top: 10,
        dimensions: Dimension::all().collect(),
    }
}

async fn stats_of(store: &Store, query: &StatsQuery) -> Stats {
    store.click_stats(query, Visibility::All).await.expect("statistics").expect("a subject")
}

/// The starts of the intervals, with clicks and visitors.
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

/// Values of the service, and days with their visitors.
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
