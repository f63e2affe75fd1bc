//! Time zones: exactly the names of the IANA database, links and backward names included, with its rules.
//!
//! * The database is part of the program. The zones and abbreviations of the system and of PostgreSQL have no effect.
//! * A day begins at the earliest instant with its date. So days follow one another without a gap or an overlap, also
//!   where the clocks change at midnight or a date is skipped.

use std::sync::LazyLock;

use chrono::{DateTime, Datelike, Days, FixedOffset, NaiveDate, Offset as _, TimeDelta, Utc};
use jiff::{
    Timestamp,
    civil::{Date, Time},
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Names that are no place and no offset: that of the IANA database for a clock without a zone, and the library's for a
/// zone that it could not determine.
const NO_ZONES: [&str; 2] = ["Factory", "Etc/Unknown"];

/// A time zone of the IANA database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

impl Default for Zone {
    fn default() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }
}

impl Zone {
    /// The error for an unknown time zone.
    pub const UNKNOWN: &str = "must be an IANA time zone, such as Europe/Berlin";

    /// The zone with this name, in any case.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if NO_ZONES.iter().any(|name| text.eq_ignore_ascii_case(name)) {
            return Err(Self::UNKNOWN);
        }
        let rules = DATABASE.get(text).map_err(|_| Self::UNKNOWN)?;
        Ok(Self { name: text.to_owned(), rules })
    }

    /// The name, as it was given.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether the name is `UTC`, in any case.
    pub fn is_utc(&self) -> bool {
        self.name.eq_ignore_ascii_case("UTC")
    }

    /// The earliest instant with this date. For a date that the zone has skipped, that of the next one.
    pub fn day_start(&self, date: NaiveDate) -> DateTime<Utc> {
        let midnight = civil(date).to_datetime(Time::midnight());
        let start = match self.rules.to_ambiguous_timestamp(midnight).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(midnight),
            // Midnight occurs twice, because the clocks go back to or over it. The day begins at the first one.
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(midnight),
            // The clocks go forward over midnight: the day begins at the change, which is at or before the instant
            // that would be midnight by the old offset.
            AmbiguousOffset::Gap { before, .. } => before.to_timestamp(midnight).map(|late| {
                let after = late.saturating_add(jiff::SignedDuration::from_nanos(1));
                let change = self.rules.preceding(after.unwrap_or(late)).next();
                change.map_or(late, |change| change.timestamp())
            }),
        };
        start.map_or(DateTime::<Utc>::MAX_UTC, from_jiff)
    }

    /// The day in which an instant is: the last one that begins at or before it.
    pub fn day_of(&self, at: DateTime<Utc>) -> NaiveDate {
        let mut date = self.local_date(at);
        // Clocks that go back over midnight show the date before once more.
        while let Some(next) = date.checked_add_days(Days::new(1))
            && self.day_start(next) <= at
        {
            date = next;
        }
        date
    }

    /// The time on the zone's clock.
    pub(crate) fn local_time(&self, at: DateTime<Utc>) -> DateTime<FixedOffset> {
        at.with_timezone(&FixedOffset::east_opt(self.offset_s(at)).unwrap_or_else(|| Utc.fix()))
    }

    /// The start of the hour on the zone's clock in which an instant is.
    pub(crate) fn hour_start(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        let local = at.timestamp() + i64::from(self.offset_s(at));
        let past = TimeDelta::seconds(local.rem_euclid(3_600))
            + TimeDelta::nanoseconds(i64::from(at.timestamp_subsec_nanos()));
        at.checked_sub_signed(past).unwrap_or(at)
    }

    fn local_date(&self, at: DateTime<Utc>) -> NaiveDate {
        let local = at.checked_add_signed(TimeDelta::seconds(self.offset_s(at).into()));
        local.unwrap_or(at).date_naive()
    }

    fn offset_s(&self, at: DateTime<Utc>) -> i32 {
        self.rules.to_offset(to_jiff(at)).seconds()
    }
}

/// Years outside the library's range are clamped to it. Ranges of statistics contain no such year.
fn civil(date: NaiveDate) -> Date {
    let part = |number: u32| i8::try_from(number).unwrap_or(1);
    let year = i16::try_from(date.year().clamp(-9_998, 9_999)).unwrap_or_default();
    Date::new(year, part(date.month()), part(date.day())).unwrap_or(Date::ZERO)
}

fn to_jiff(at: DateTime<Utc>) -> Timestamp {
    let nanoseconds = i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0);
    Timestamp::new(at.timestamp(), nanoseconds)
        .unwrap_or_else(|_| if at.timestamp() < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

fn from_jiff(at: Timestamp) -> DateTime<Utc> {
    let nanoseconds = u32::try_from(at.subsec_nanosecond()).unwrap_or(0);
    DateTime::from_timestamp(at.as_second(), nanoseconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use chrono::TimeZone as _;

    use super::*;

    #[test]
    fn zones_are_exactly_the_names_of_the_iana_database() {
        let known: HashSet<_> = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).collect();
        assert!(known.len() > 500, "{}", known.len());
        for name in &known {
            assert!(Zone::parse(name).is_ok(), "{name}");
        }
        let ours: Vec<_> = DATABASE.available().map(|name| name.to_string()).collect();
        assert!(ours.len() >= known.len(), "{}", ours.len());
        // The other library lacks zones that the database has added since its release.
        let added = ["America/Coyhaique"];
        for name in ours {
            let is_known = known.contains(name.as_str()) || added.contains(&name.as_str());
            assert_eq!(Zone::parse(&name).is_ok(), is_known, "{name}");
        }
        for good in ["UTC", "utc", "US/Pacific", "Asia/Calcutta", "Etc/GMT+3", "EST5EDT", "GB"] {
            assert!(Zone::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "IST",
            "PST",
            "CST",
            "BST",
            "CEST",
            "EDT",
            "MSK",
            "JST",
            "AEST",
            "Z",
            "posixrules",
            "localtime",
            "posix/UTC",
            "right/UTC",
            "UTC+3",
            "+03",
            "GMT-3",
            "1",
            "Europe/Ber lin",
            "../x",
            "/usr/share/zoneinfo/UTC",
            "é",
            "<A>3",
            ":x",
            "EST5EDT,M3.2.0,M11.1.0",
            "Etc/Unknown",
            "Factory",
            "factory",
            "Europe",
            "Europe/",
            "Mars/Olympus",
            "now",
            "tzdata.zi",
        ] {
            assert_eq!(Zone::parse(bad), Err(Zone::UNKNOWN), "{bad}");
        }
        assert!(Zone::parse(&"a".repeat(10_000)).is_err());
    }

    /// The first instant of each local date from 2019 to 2030, found by stepping through the time in minutes near
    /// every offset change. It uses only the offset at an instant.
    fn scanned_starts(zone: &Zone) -> Vec<(NaiveDate, DateTime<Utc>)> {
        let local = |at: DateTime<Utc>| {
            let offset = zone.offset_s(at);
            ((at + TimeDelta::seconds(offset.into())).date_naive(), offset)
        };
        let mut at: DateTime<Utc> = "2018-12-31T00:00:00Z".parse().unwrap();
        let end: DateTime<Utc> = "2030-01-03T00:00:00Z".parse().unwrap();
        let (mut date, mut offset) = local(at);
        let mut starts = Vec::new();
        while at < end {
            let next = at + TimeDelta::hours(6);
            let (next_date, next_offset) = local(next);
            if next_date == date && next_offset == offset {
                at = next;
                continue;
            }
            if next_offset == offset {
                // Without a change, the clock shows midnight at a time that follows from the offset.
                let days = next.timestamp() + i64::from(offset);
                starts.push((next_date, next - TimeDelta::seconds(days.rem_euclid(86_400))));
                (date, at) = (next_date, next);
                continue;
            }
            for minute in 1..=360 {
                let (new, new_offset) = local(at + TimeDelta::minutes(minute));
                // A date that was seen before begins only once.
                if new > date && starts.last().is_none_or(|(last, _)| new > *last) {
                    starts.push((new, at + TimeDelta::minutes(minute)));
                }
                (date, offset) = (new, new_offset);
            }
            at = next;
        }
        starts
    }

    #[test]
    fn days_of_every_zone_begin_at_their_earliest_instant_and_partition_the_time() {
        for zone in chrono_tz::TZ_VARIANTS {
            let ours = Zone::parse(zone.name()).unwrap();
            let starts = scanned_starts(&ours);
            assert!(starts.len() > 4_000, "{zone}: {} days", starts.len());
            for pair in starts.windows(2) {
                let [(date, start), (next, end)] = pair else { unreachable!() };
                assert_eq!(ours.day_start(*date), *start, "{zone} {date}");
                assert_eq!(ours.day_of(*start), *date, "{zone} {date}");
                assert_eq!(ours.day_of(*end - TimeDelta::microseconds(1)), *date, "{zone} {date}");
                assert!(start < end && next > date, "{zone} {date}");
            }
        }
    }

    #[test]
    fn rules_are_those_of_another_library() {
        for zone in chrono_tz::TZ_VARIANTS {
            let ours = Zone::parse(zone.name()).unwrap();
            // Later years differ with the release of the database.
            let mut at: DateTime<Utc> = "2015-01-01T00:30:00Z".parse().unwrap();
            while at.year() < 2025 {
                let theirs = zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc();
                assert_eq!(ours.offset_s(at), theirs, "{zone} {at}");
                at += TimeDelta::hours(31);
            }
        }
    }

    #[test]
    fn times_beyond_the_database_have_the_offset_of_its_ends() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        // Local mean time.
        assert_eq!(berlin.offset_s(DateTime::<Utc>::MIN_UTC), 53 * 60 + 28);
        assert_eq!(berlin.offset_s(DateTime::<Utc>::MAX_UTC), 60 * 60);
        let utc = Zone::default();
        assert_eq!(utc.day_start(NaiveDate::MIN).year(), -9_998);
        assert_eq!(utc.day_start(NaiveDate::MAX), DateTime::<Utc>::MAX_UTC);
        let late = "2026-01-01T00:59:59.000000001Z".parse().unwrap();
        assert_eq!(utc.hour_start(late), "2026-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap());
    }

    #[test]
    fn days_of_unusual_changes_begin_at_their_earliest_instant() {
        for (zone, date, start) in [
            // The clocks go back from 01:00 to 00:00.
            ("Atlantic/Azores", "2026-10-25", "2026-10-25T00:00:00Z"),
            // … from 00:01 to 23:01 on the day before.
            ("America/St_Johns", "2010-11-07", "2010-11-07T02:30:00Z"),
            // … forward from 24:00 to 01:00.
            ("Africa/Cairo", "2026-04-24", "2026-04-23T22:00:00Z"),
            // … and over a whole day.
            ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"),
            ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z"),
            // Half an hour.
            ("Australia/Lord_Howe", "2026-04-05", "2026-04-04T13:00:00Z"),
        ] {
            let start: DateTime<Utc> = start.parse().unwrap();
            assert_eq!(
                Zone::parse(zone).unwrap().day_start(date.parse().unwrap()),
                start,
                "{zone}"
            );
        }
    }
}
