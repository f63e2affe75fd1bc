//! The range of a query for statistics, and the edges of its buckets.

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeDelta, Utc};

use super::{Interval, MAX_BUCKETS, RangeBound, StatsQuery, Zone};

/// A range in terms of roll-ups. Its buckets partition it: each begins where the one before ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsRange {
    /// The start of the first hour that counts.
    pub from: DateTime<Utc>,
    /// The end of the last hour that counts.
    pub to: DateTime<Utc>,
    /// The starts of the buckets, ascending. The first one may be before `from`.
    pub starts: Vec<DateTime<Utc>>,
    /// The first UTC day that counts.
    pub first_day: NaiveDate,
    /// The day after the last UTC day that counts.
    pub end_day: NaiveDate,
    /// Whether roll-ups by UTC day are enough.
    pub is_whole_days: bool,
}

/// Why a query has no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// It does not end after its start.
    #[error("the range is empty")]
    Empty,
    /// It has more than [`MAX_BUCKETS`] buckets.
    #[error("the range has too many intervals")]
    TooManyBuckets,
}

/// The shortest time that PostgreSQL distinguishes.
const MOMENT: TimeDelta = TimeDelta::microseconds(1);

impl StatsQuery {
    /// The range. A start that is a time is rounded down to an hour of the time zone, and an end up.
    pub fn range(&self, now: DateTime<Utc>) -> Result<StatsRange, RangeError> {
        let utc = Zone::default();
        // Hours are UTC hours in every time zone.
        let zone = if self.interval == Interval::Hour { &utc } else { &self.zone };
        let given = |bound| match bound {
            RangeBound::Time(time) => time,
            RangeBound::Date(date) => self.zone.day_start(date),
        };
        let to = self.to.map_or(now, given);
        let last = to - MOMENT;
        let from = self.from.map_or_else(|| self.default_start(zone, last), given);
        if from >= to {
            return Err(RangeError::Empty);
        }
        // A day can begin in the middle of a clock hour. Rounding must not extend it into the day before.
        let (first_day, last_day) = (zone.day_of(from), zone.day_of(last));
        let (first_start, end) = (zone.day_start(first_day), zone.day_start(next(last_day, 1)));
        let from = zone.hour_start(from).max(first_start);
        let to = zone.hour_start(last + TimeDelta::hours(1)).min(end).max(to);
        Ok(StatsRange {
            starts: self.starts(zone, from, to - MOMENT)?,
            first_day: day_by_noon(first_start),
            end_day: day_by_noon(end),
            is_whole_days: zone.is_utc()
                && self.interval != Interval::Hour
                && from == first_start
                && (to == end || to >= now),
            from,
            to,
        })
    }

    /// The start of a query without one, whose last moment is `last`.
    fn default_start(&self, zone: &Zone, last: DateTime<Utc>) -> DateTime<Utc> {
        let back = u64::try_from(self.interval.default_buckets() - 1).unwrap_or(0);
        let day = zone.day_of(last);
        let days_before =
            |day: NaiveDate, days| day.checked_sub_days(Days::new(days)).unwrap_or(day);
        match self.interval {
            Interval::Hour => {
                let hours = TimeDelta::hours(i64::try_from(back).unwrap_or(0));
                zone.hour_start(last).checked_sub_signed(hours).unwrap_or(last)
            }
            Interval::Day => zone.day_start(days_before(day, back)),
            Interval::Week => zone.day_start(days_before(monday(day), 7 * back)),
        }
    }

    /// The starts of the buckets from that of `from` to that of `last`.
    fn starts(
        &self,
        zone: &Zone,
        from: DateTime<Utc>,
        last: DateTime<Utc>,
    ) -> Result<Vec<DateTime<Utc>>, RangeError> {
        let mut starts = Vec::new();
        let mut push = |start: DateTime<Utc>| {
            // A date that the zone has skipped has no bucket.
            if starts.last() != Some(&start) {
                starts.push(start);
            }
            let is_within = i64::try_from(starts.len()).is_ok_and(|count| count <= MAX_BUCKETS);
            if is_within { Ok(()) } else { Err(RangeError::TooManyBuckets) }
        };
        if self.interval == Interval::Hour {
            let mut start = zone.hour_start(from);
            while start <= last {
                push(start)?;
                start += TimeDelta::hours(1);
            }
            return Ok(starts);
        }
        let (mut day, step) = match self.interval {
            Interval::Week => (monday(zone.day_of(from)), 7),
            Interval::Hour | Interval::Day => (zone.day_of(from), 1),
        };
        loop {
            let start = zone.day_start(day);
            if start > last {
                return Ok(starts);
            }
            push(start)?;
            day = next(day, step);
        }
    }
}

fn monday(day: NaiveDate) -> NaiveDate {
    let since = u64::from(day.weekday().num_days_from_monday());
    day.checked_sub_days(Days::new(since)).unwrap_or(day)
}

fn next(day: NaiveDate, days: u64) -> NaiveDate {
    day.checked_add_days(Days::new(days)).unwrap_or(NaiveDate::MAX)
}

/// The first UTC day whose noon is at or after an instant.
fn day_by_noon(at: DateTime<Utc>) -> NaiveDate {
    (at + TimeDelta::hours(12) - MOMENT).date_naive()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Subject;

    fn query(from: &str, to: &str, interval: Interval, zone: &str) -> StatsQuery {
        let bound = |text: &str| match text.parse() {
            Ok(date) => RangeBound::Date(date),
            Err(_) => RangeBound::Time(text.parse().unwrap()),
        };
        StatsQuery {
            subject: Subject::Service,
            from: Some(bound(from)),
            to: Some(bound(to)),
            interval,
            zone: Zone::parse(zone).unwrap(),
            top: 10,
            dimensions: Vec::new(),
        }
    }

    fn now() -> DateTime<Utc> {
        "2026-11-27T10:20:30Z".parse().unwrap()
    }

    #[test]
    fn day_with_a_repeated_midnight_is_whole_and_alone() {
        let range =
            |from, to| query(from, to, Interval::Day, "Atlantic/Azores").range(now()).unwrap();
        assert_eq!(range("2026-10-24", "2026-10-25").starts.len(), 1);
        let day = range("2026-10-25", "2026-10-26");
        assert_eq!(day.starts.len(), 1);
        assert_eq!(day.to - day.from, TimeDelta::hours(25));
    }

    #[test]
    fn buckets_of_every_zone_partition_the_range_around_each_change_of_ten_years() {
        for zone in chrono_tz::TZ_VARIANTS {
            for year in 2019..=2029 {
                let bounds = (format!("{year}-01-01"), format!("{}-01-01", year + 1));
                for interval in [Interval::Day, Interval::Week] {
                    let whole = query(&bounds.0, &bounds.1, interval, zone.name());
                    let range = whole.range(now()).unwrap();
                    assert!(range.starts.is_sorted_by(|a, b| a < b), "{zone} {year}");
                    assert!(range.starts[0] <= range.from, "{zone} {year}");
                    assert!(*range.starts.last().unwrap() < range.to, "{zone} {year}");
                    if interval == Interval::Day {
                        assert_eq!(range.starts[0], range.from, "{zone} {year}");
                        for pair in range.starts.windows(2) {
                            // Stations in Antarctica change their clocks by three hours.
                            let hours = (pair[1] - pair[0]).num_hours();
                            assert!((20..=28).contains(&hours), "{zone} {year}: {hours} hours");
                        }
                        let days = (range.end_day - range.first_day).num_days();
                        let buckets = i64::try_from(range.starts.len()).unwrap();
                        // Noon in UTC is about midnight in some zones.
                        assert!((days - buckets).abs() <= 1, "{zone} {year}");
                    }
                }
            }
        }
    }

    /// Hours of the days in which the clocks of a zone change, and of the days before and after.
    #[test]
    fn hours_of_every_zone_partition_the_range_around_each_change_of_ten_years() {
        let hour = TimeDelta::hours(1);
        let mut changes = 0;
        for variant in chrono_tz::TZ_VARIANTS {
            let zone = Zone::parse(variant.name()).unwrap();
            let mut day: NaiveDate = "2019-01-01".parse().unwrap();
            let mut end = zone.day_start(day);
            while day.year() < 2030 {
                let (today, tomorrow, start) = (day, day + Days::new(1), end);
                (day, end) = (tomorrow, zone.day_start(tomorrow));
                if end - start == TimeDelta::days(1) {
                    continue;
                }
                changes += 1;
                let (from, to) = (today - Days::new(1), tomorrow + Days::new(1));
                let bounds = (from.to_string(), to.to_string());
                let query = query(&bounds.0, &bounds.1, Interval::Hour, variant.name());
                let range = query.range(now()).unwrap();
                let what = format!("{variant} {today}");
                // The buckets are whole UTC hours, and cover exactly the hours that the days touch.
                let aligned = |at: DateTime<Utc>| at.timestamp().rem_euclid(3_600) == 0;
                assert!(range.starts.iter().all(|start| aligned(*start)), "{what}");
                assert!(range.starts.windows(2).all(|pair| pair[1] - pair[0] == hour), "{what}");
                let (first, last) = (range.starts[0], range.starts[range.starts.len() - 1]);
                let (from, to) = (zone.day_start(from), zone.day_start(to));
                assert_eq!((first, last + hour), (range.from, range.to), "{what}");
                assert!(first <= from && from < first + hour, "{what}");
                assert!(last < to && to <= last + hour, "{what}");
            }
        }
        assert!(changes > 2_000, "{changes} changes");
    }

    #[test]
    fn times_are_rounded_to_hours_of_the_zone_within_the_day() {
        let range = |from, to, zone| query(from, to, Interval::Day, zone).range(now()).unwrap();
        let kolkata = range("2026-03-02T10:20:00Z", "2026-03-02T12:20:00Z", "Asia/Kolkata");
        assert_eq!(kolkata.from, "2026-03-02T09:30:00Z".parse::<DateTime<Utc>>().unwrap());
        assert_eq!(kolkata.to, "2026-03-02T12:30:00Z".parse::<DateTime<Utc>>().unwrap());
        // An offset that is neither a whole hour nor a half.
        let kathmandu = range("2026-03-02T10:20:00Z", "2026-03-02T12:20:00Z", "Asia/Kathmandu");
        assert_eq!(kathmandu.from, "2026-03-02T10:15:00Z".parse::<DateTime<Utc>>().unwrap());
        assert_eq!(kathmandu.to, "2026-03-02T13:15:00Z".parse::<DateTime<Utc>>().unwrap());
        let whole = range("2026-03-02", "2026-03-05", "UTC");
        assert!(whole.is_whole_days);
        assert_eq!(
            (whole.first_day.to_string(), whole.end_day.to_string()),
            ("2026-03-02".into(), "2026-03-05".into())
        );
        assert!(!range("2026-03-02T01:00:00Z", "2026-03-05T00:00:00Z", "UTC").is_whole_days);
    }

    #[test]
    fn range_without_bounds_has_the_default_number_of_buckets_up_to_now() {
        for (interval, zone, from, to, buckets) in [
            // Hours are UTC hours, and the last one has begun.
            (Interval::Hour, "Asia/Kathmandu", "2026-11-25T11:00:00Z", "2026-11-27T11:00:00Z", 48),
            (Interval::Day, "Asia/Kathmandu", "2026-10-28T18:15:00Z", "2026-11-27T11:15:00Z", 30),
            // The 1st of June is a Monday.
            (Interval::Week, "UTC", "2026-06-01T00:00:00Z", "2026-11-27T11:00:00Z", 26),
        ] {
            let own = query("2026-01-01", "2026-01-02", interval, zone);
            let range = StatsQuery { from: None, to: None, ..own }.range(now()).unwrap();
            let bounds = [from, to].map(|text| text.parse::<DateTime<Utc>>().unwrap());
            assert_eq!([range.from, range.to], bounds, "{interval:?}");
            assert_eq!(
                (range.starts.len(), range.starts[0]),
                (buckets, range.from),
                "{interval:?}"
            );
        }
        // An end at the start of an hour leaves out that hour.
        let own = query("2026-01-01", "2026-11-27T10:00:00Z", Interval::Hour, "UTC");
        let range = StatsQuery { from: None, ..own }.range(now()).unwrap();
        assert_eq!(range.starts[0], "2026-11-25T10:00:00Z".parse::<DateTime<Utc>>().unwrap());
        assert_eq!(range.starts.len(), 48);
    }

    #[test]
    fn days_of_utc_that_are_whole_or_not_over_need_no_hours() {
        let whole = ("2026-03-02", "2026-03-05");
        for (from, to, interval, zone, expected) in [
            (whole.0, whole.1, Interval::Day, "UTC", true),
            (whole.0, whole.1, Interval::Week, "utc", true),
            (whole.0, whole.1, Interval::Hour, "UTC", false),
            (whole.0, whole.1, Interval::Day, "Africa/Abidjan", false),
            ("2026-03-02T01:00:00Z", whole.1, Interval::Day, "UTC", false),
            (whole.0, "2026-03-05T01:00:00Z", Interval::Day, "UTC", false),
            // No click is later than now.
            (whole.0, "2026-11-27T11:00:00Z", Interval::Day, "UTC", true),
            ("2026-03-02T01:00:00Z", "2026-11-27T11:00:00Z", Interval::Day, "UTC", false),
        ] {
            let range = query(from, to, interval, zone).range(now()).unwrap();
            assert_eq!(range.is_whole_days, expected, "{from} {to} {interval:?} {zone}");
        }
    }

    #[test]
    fn day_of_a_zone_counts_the_utc_days_whose_noon_it_has() {
        let range = query("2026-07-02", "2026-07-03", Interval::Day, "Pacific/Auckland");
        // This day begins and ends at noon.
        let range = range.range(now()).unwrap();
        assert_eq!(range.from, "2026-07-01T12:00:00Z".parse::<DateTime<Utc>>().unwrap());
        let days = [range.first_day, range.end_day].map(|day| day.to_string());
        assert_eq!(days, ["2026-07-01", "2026-07-02"]);
    }

    #[test]
    fn range_has_at_most_2_000_buckets() {
        let first: NaiveDate = "2020-01-01".parse().unwrap();
        let buckets = |days| {
            let end = (first + Days::new(days)).to_string();
            let range = query("2020-01-01", &end, Interval::Day, "UTC").range(now());
            range.map(|range| range.starts.len())
        };
        assert_eq!((buckets(2_000), buckets(2_001)), (Ok(2_000), Err(RangeError::TooManyBuckets)));
    }

    #[test]
    fn empty_and_endless_ranges_are_rejected() {
        let range = |from, to, interval| query(from, to, interval, "UTC").range(now());
        assert_eq!(range("2026-03-02", "2026-03-02", Interval::Day), Err(RangeError::Empty));
        assert_eq!(range("2026-03-03", "2026-03-02", Interval::Day), Err(RangeError::Empty));
        for (from, interval) in [("1970-01-01", Interval::Hour), ("1970-01-01", Interval::Week)] {
            assert_eq!(range(from, "9998-12-31", interval), Err(RangeError::TooManyBuckets));
        }
    }
}
