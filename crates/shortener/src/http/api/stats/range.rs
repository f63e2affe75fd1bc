//! The ends of a range: a time, or a day of the zone that the statistics are in.

use chrono::{Datelike, NaiveDate};

use linnet_domain::RangeBound;

use super::super::fields::{Bad, string, timestamp};

/// Days before 1970 have no clicks, and a range that ends after 9999 could not be written in RFC 3339
/// when it is rounded up.
const YEARS: std::ops::Range<i32> = 1970..9999;

/// RFC 3339 with a time zone, or `YYYY-MM-DD`.
pub(super) fn end(value: serde_json::Value) -> Result<RangeBound, Bad> {
    let text = string(value)?;
    let (end, year) = if let Some(date) = date(&text) {
        (RangeBound::Date(date), date.year())
    } else {
        let time = timestamp(text.into()).map_err(|_| {
            let message = "must be an RFC 3339 time or a day, such as 2026-11-21";
            ("invalid", message.to_owned())
        })?;
        (RangeBound::Time(time), time.year())
    };
    if YEARS.contains(&year) {
        Ok(end)
    } else {
        Err(("out_of_range", "must be between the years 1970 and 9998".to_owned()))
    }
}

/// Only the whole spelling: `chrono` would take `2026-1-2` and signs, too.
fn date(text: &str) -> Option<NaiveDate> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    (date.to_string() == text).then_some(date)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ends_are_times_or_days() {
        let day = NaiveDate::from_ymd_opt(2026, 11, 21).unwrap();
        assert_eq!(end(json!("2026-11-21")), Ok(RangeBound::Date(day)));
        let time = "2026-11-21T10:00:00Z".parse().unwrap();
        assert_eq!(end(json!("2026-11-21T11:00:00+01:00")), Ok(RangeBound::Time(time)));
        for bad in
            ["", "x", "2026-11-31", "2026-1-2", "+2026-11-21", "2026-11-21T10:00:00", "1700000000"]
        {
            assert_eq!(end(json!(bad)).map_err(|bad| bad.0), Err("invalid"), "{bad}");
        }
        for bad in ["1969-12-31", "9999-01-01", "0001-01-01T00:00:00Z"] {
            assert_eq!(end(json!(bad)).map_err(|bad| bad.0), Err("out_of_range"), "{bad}");
        }
    }
}
