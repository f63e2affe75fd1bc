//! Statistics of clicks: what is asked, and what is answered. Everything is read from roll-ups, so
//! hours and UTC days are the finest that can be told apart.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

use super::{Subject, ValueKind};

/// Most buckets of one series: 83 days by hour, 5 years by day, 38 years by week.
pub const MAX_BUCKETS: i64 = 2_000;
/// Most values of one list.
pub const MAX_TOP: i64 = 100;
/// Values of one list unless told otherwise.
pub const DEFAULT_TOP: i64 = 10;

/// How long a bucket is. Weeks begin on Mondays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// A UTC hour, whatever the zone.
    Hour,
    /// A day of the zone: 23 or 25 hours when the clocks change.
    Day,
    /// Seven days of the zone.
    Week,
}

impl Interval {
    /// The interval of this name.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let all = [Self::Hour, Self::Day, Self::Week];
        let found = all.into_iter().find(|interval| interval.name() == text);
        found.ok_or("must be hour, day or week")
    }

    /// The name in the API, which is PostgreSQL's as well.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    /// How many buckets there are when the beginning is not given.
    pub const fn default_buckets(self) -> i32 {
        match self {
            Self::Hour => 48,
            Self::Day => 30,
            Self::Week => 26,
        }
    }
}

/// An end of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeBound {
    /// A point in time.
    Time(DateTime<Utc>),
    /// The beginning of a day of the zone.
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

/// The name of a time zone that looks like one of IANA's. Whether there is such a zone is for
/// PostgreSQL to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneName(String);

impl ZoneName {
    const MAX_LENGTH: usize = 64;

    /// Checks the shape. PostgreSQL would also take `UTC+3` and `+03`, and means three hours *west*
    /// by both: only `Etc/…` may have digits, where IANA means the same.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let letters = |b: u8| b.is_ascii_alphabetic() || b"/_-".contains(&b);
        let is_fixed = text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("etc/"));
        let ok = text.len() <= Self::MAX_LENGTH
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| letters(b) || (is_fixed && (b.is_ascii_digit() || b == b'+')));
        if ok { Ok(Self(text.to_owned())) } else { Err(Self::UNKNOWN) }
    }

    /// What is said of a name that is none.
    pub const UNKNOWN: &str = "must be an IANA time zone, such as Europe/Berlin";

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ZoneName {
    fn default() -> Self {
        Self("UTC".to_owned())
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct StatsQuery {
    /// Whose clicks.
    pub subject: Subject,
    /// The beginning; without it, [`Interval::default_buckets`] before the end.
    pub from: Option<RangeBound>,
    /// The end, exclusive; without it, now.
    pub to: Option<RangeBound>,
    /// How long a bucket is.
    pub interval: Interval,
    /// Where days begin.
    pub zone: ZoneName,
    /// Values of each list, 0 to [`MAX_TOP`].
    pub top: i64,
    /// The lists that are wanted.
    pub dimensions: Vec<Dimension>,
}

/// Counts of clicks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Counts {
    /// People's.
    pub clicks: i64,
    /// The sum of each UTC day's different visitors; null in a series by hour. Between days nobody
    /// can be recognised.
    #[schema(required)]
    pub unique_visitors: Option<i64>,
    /// Bots'.
    pub bots: i64,
    /// Browsers that looked ahead.
    pub prefetches: i64,
    /// `HEAD` requests.
    pub heads: i64,
}

/// One point of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Bucket {
    /// When it begins.
    pub start: DateTime<Utc>,
    /// What was counted in it.
    #[serde(flatten)]
    pub counts: Counts,
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct TopValue {
    /// The value; `unknown` or `direct` where there is none.
    pub value: String,
    /// People's clicks.
    pub clicks: i64,
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Stats {
    /// The beginning of the first hour that is counted.
    pub from: DateTime<Utc>,
    /// The end of the last hour that is counted.
    pub to: DateTime<Utc>,
    /// Everything in the range.
    pub totals: Counts,
    /// The same by interval, oldest first, without gaps.
    pub series: Vec<Bucket>,
    /// The most frequent values of each dimension that was asked for, by its name.
    pub top: BTreeMap<&'static str, Vec<TopValue>>,
}

/// Something by which clicks are told apart: one part of a [`ValueKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimension {
    /// What it is a part of.
    pub kind: ValueKind,
    /// Which part, from 1 as PostgreSQL counts.
    pub part: i32,
    name: &'static str,
}

impl Dimension {
    /// All there are.
    pub fn all() -> impl Iterator<Item = Self> {
        ValueKind::ALL.into_iter().flat_map(|kind| {
            (1..).zip(kind.parts()).map(move |(part, name)| Self { kind, part, name })
        })
    }

    /// The dimension of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::all().find(|dimension| dimension.name == text)
    }

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// What clicks without a value are listed as. Most links have no campaign, and nobody asks for
    /// those without one: they are not listed.
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
    fn zones_look_like_ianas() {
        for good in ["UTC", "Europe/Berlin", "America/Port-au-Prince", "Etc/GMT+3", "etc/utc"] {
            assert!(ZoneName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "UTC+3", "+03", "GMT-3", "1", "Europe/Ber lin", "../x", "é", "<A>3", ":x"]
        {
            assert!(ZoneName::parse(bad).is_err(), "{bad}");
        }
        assert!(ZoneName::parse(&"a".repeat(65)).is_err());
    }

    #[test]
    fn every_part_of_a_click_is_a_dimension() {
        let names: Vec<_> = Dimension::all().map(Dimension::name).collect();
        let parts = ValueKind::ALL.map(|kind| kind.parts().len()).iter().sum::<usize>();
        assert_eq!(names.len(), parts);
        assert!(names.iter().all(|name| Dimension::parse(name).is_some()));
        let os = Dimension::parse("os").unwrap();
        assert_eq!((os.kind, os.part, os.label_without_value()), (ValueKind::Agent, 2, Some("unknown")));
        assert_eq!(Dimension::parse("utm_source").and_then(Dimension::label_without_value), None);
        assert_eq!(Dimension::parse("OS"), None);
    }
}
