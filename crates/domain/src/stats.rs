//! Click statistics: the query and its result.
//!
//! Statistics come from roll-ups, which contain counts by hour, and visitors and values by UTC day.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::Serialize;

use super::{Subject, ValueKind, Zone};

/// The maximum number of buckets of a series: 83 days by hour, 5 years by day, 38 years by week.
pub const MAX_BUCKETS: i64 = 2_000;
/// The maximum number of values of a list.
pub const MAX_TOP: i64 = 100;
/// The default for [`StatsQuery::top`].
pub const DEFAULT_TOP: i64 = 10;

/// The length of a bucket. Weeks begin on Mondays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// A UTC hour, in every time zone.
    Hour,
    /// A day of the time zone; 23 or 25 hours when the clocks change.
    Day,
    /// Seven days of the time zone.
    Week,
}

impl Interval {
    /// The interval with this name.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let all = [Self::Hour, Self::Day, Self::Week];
        let found = all.into_iter().find(|interval| interval.name() == text);
        found.ok_or("must be hour, day or week")
    }

    /// The name in the API and in PostgreSQL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    /// The name of a bucket for people: the date of a day or of a week's Monday, or the time of an hour on the zone's clock
    /// with its offset, which distinguishes the hours that the clocks repeat.
    pub fn label(self, zone: &Zone, start: DateTime<Utc>) -> String {
        match self {
            Self::Day | Self::Week => zone.day_of(start).to_string(),
            Self::Hour => zone.local_time(start).to_rfc3339_opts(SecondsFormat::Secs, false),
        }
    }

    /// The number of buckets of a query without a start.
    pub const fn default_buckets(self) -> i32 {
        match self {
            Self::Hour => 48,
            Self::Day => 30,
            Self::Week => 26,
        }
    }
}

/// A bound of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeBound {
    /// A point in time.
    Time(DateTime<Utc>),
    /// The start of a day of the time zone.
    Date(NaiveDate),
}

impl RangeBound {
    /// The point in time, if it is one.
    pub fn time(self) -> Option<DateTime<Utc>> {
        match self {
            Self::Time(time) => Some(time),
            Self::Date(_) => None,
        }
    }

    /// The date, if it is one.
    pub fn date(self) -> Option<NaiveDate> {
        match self {
            Self::Time(_) => None,
            Self::Date(date) => Some(date),
        }
    }
}

/// A query for statistics.
#[derive(Debug, Clone)]
pub struct StatsQuery {
    /// The subject whose clicks are counted.
    pub subject: Subject,
    /// The start; by default [`Interval::default_buckets`] before the end.
    pub from: Option<RangeBound>,
    /// The end, exclusive; by default the current time.
    pub to: Option<RangeBound>,
    /// The length of a bucket.
    pub interval: Interval,
    /// The time zone that decides when days begin.
    pub zone: Zone,
    /// The maximum number of values of each list, from 0 to [`MAX_TOP`].
    pub top: i64,
    /// The dimensions whose values are listed.
    pub dimensions: Vec<Dimension>,
}

/// Numbers of clicks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Counts {
    /// Clicks by people.
    pub clicks: i64,
    /// The sum of the unique visitors of each UTC day; null in a series by hour. Visitors cannot be recognized on
    /// another day.
    #[schema(required)]
    pub unique_visitors: Option<i64>,
    /// Requests by bots.
    pub bots: i64,
    /// Prefetches by browsers.
    pub prefetches: i64,
    /// `HEAD` requests.
    pub heads: i64,
}

/// One interval of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// The start of the interval.
    pub start: DateTime<Utc>,
    /// The numbers of clicks in the interval.
    pub counts: Counts,
}

/// A value of a dimension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct TopValue {
    /// The value; `unknown` or `direct` for clicks without one.
    pub value: String,
    /// Clicks by people.
    pub clicks: i64,
}

/// The result of a [`StatsQuery`].
#[derive(Debug, Clone)]
pub struct Stats {
    /// The start of the first hour that is counted.
    pub from: DateTime<Utc>,
    /// The end of the last hour that is counted.
    pub to: DateTime<Utc>,
    /// The numbers of the whole range.
    pub totals: Counts,
    /// The numbers by interval, oldest first, without gaps.
    pub series: Vec<Bucket>,
    /// The most frequent values of each requested dimension, by the dimension's name.
    pub top: BTreeMap<&'static str, Vec<TopValue>>,
}

/// A property of clicks whose values statistics can list: one part of a [`ValueKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimension {
    /// The attribute that has this part.
    pub kind: ValueKind,
    /// The index of the part, from 1 as in PostgreSQL.
    pub part: i32,
    name: &'static str,
}

impl Dimension {
    /// All dimensions.
    pub fn all() -> impl Iterator<Item = Self> {
        ValueKind::ALL.into_iter().flat_map(|kind| {
            (1..).zip(kind.parts()).map(move |(part, name)| Self { kind, part, name })
        })
    }

    /// The dimension with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::all().find(|dimension| dimension.name == text)
    }

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The label for clicks without a value. `None` for campaigns: most links have none, so such clicks are not listed.
    pub const fn label_without_value(self) -> Option<&'static str> {
        match self.kind {
            ValueKind::Agent | ValueKind::Origin => Some("unknown"),
            ValueKind::Referrer => Some("direct"),
            ValueKind::Campaign => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_local_dates_and_times() {
        let label = |zone: &str, interval: Interval, at: &str| {
            interval.label(&Zone::parse(zone).unwrap(), at.parse().unwrap())
        };
        let berlin = "Europe/Berlin";
        assert_eq!(label(berlin, Interval::Day, "2026-10-24T22:00:00Z"), "2026-10-25");
        assert_eq!(label(berlin, Interval::Week, "2026-10-18T22:00:00Z"), "2026-10-19");
        // The clocks go back from 3:00 to 2:00.
        assert_eq!(
            label(berlin, Interval::Hour, "2026-10-25T00:00:00Z"),
            "2026-10-25T02:00:00+02:00"
        );
        assert_eq!(
            label(berlin, Interval::Hour, "2026-10-25T01:00:00Z"),
            "2026-10-25T02:00:00+01:00"
        );
        // Midnight is skipped, and repeated.
        assert_eq!(label("America/Santiago", Interval::Day, "2026-09-06T04:00:00Z"), "2026-09-06");
        assert_eq!(label("Atlantic/Azores", Interval::Day, "2026-10-25T00:00:00Z"), "2026-10-25");
        assert_eq!(
            label("Asia/Kolkata", Interval::Hour, "2026-01-01T00:30:00Z"),
            "2026-01-01T06:00:00+05:30"
        );
        assert_eq!(
            label("UTC", Interval::Hour, "2026-01-01T00:00:00Z"),
            "2026-01-01T00:00:00+00:00"
        );
    }

    #[test]
    fn every_part_of_every_attribute_is_a_dimension() {
        let names: Vec<_> = Dimension::all().map(Dimension::name).collect();
        let parts = ValueKind::ALL.map(|kind| kind.parts().len()).iter().sum::<usize>();
        assert_eq!(names.len(), parts);
        assert!(names.iter().all(|name| Dimension::parse(name).is_some()));
        let os = Dimension::parse("os").unwrap();
        assert_eq!(
            (os.kind, os.part, os.label_without_value()),
            (ValueKind::Agent, 2, Some("unknown"))
        );
        assert_eq!(Dimension::parse("utm_source").and_then(Dimension::label_without_value), None);
        assert_eq!(Dimension::parse("OS"), None);
    }

    #[test]
    fn intervals_have_a_name_and_a_default_length() {
        for (name, buckets) in [("hour", 48), ("day", 30), ("week", 26)] {
            let interval = Interval::parse(name).unwrap();
            assert_eq!((interval.name(), interval.default_buckets()), (name, buckets));
        }
        assert_eq!(Interval::parse("Hour"), Err("must be hour, day or week"));
    }

    #[test]
    fn a_bound_is_a_time_or_a_date() {
        let (time, date) = (DateTime::<Utc>::UNIX_EPOCH, NaiveDate::MIN);
        assert_eq!(
            (RangeBound::Time(time).time(), RangeBound::Time(time).date()),
            (Some(time), None)
        );
        assert_eq!(
            (RangeBound::Date(date).time(), RangeBound::Date(date).date()),
            (None, Some(date))
        );
    }

    #[test]
    fn labels_without_a_value_depend_on_the_attribute() {
        for (name, label) in [
            ("browser", Some("unknown")),
            ("country", Some("unknown")),
            ("referrer", Some("direct")),
            ("utm_campaign", None),
        ] {
            let dimension = Dimension::parse(name).unwrap();
            assert_eq!((dimension.name(), dimension.label_without_value()), (name, label));
        }
    }
}
