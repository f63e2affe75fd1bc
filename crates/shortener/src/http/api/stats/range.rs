//! Reads the ends of a range: a time, or a day of the request's time zone.

use chrono::{Datelike, NaiveDate};

use linnet_domain::{
    RangeBound,
    rules::{Rule, Time, Violation, string},
};

/// The accepted years. Days before 1970 have no clicks. A range that ends in 9999 could be rounded up to a year that
/// RFC 3339 cannot write.
const YEARS: std::ops::Range<i32> = 1970..9999;

/// RFC 3339 with a time zone, or `YYYY-MM-DD`.
pub(super) fn end(value: serde_json::Value) -> Result<RangeBound, Violation> {
    let text = string(value)?;
    let (end, year) = if let Some(date) = date(&text) {
        (RangeBound::Date(date), date.year())
    } else {
        let rule = "must be an RFC 3339 time or a day, such as 2026-11-21";
        let time = Time::from_json(text.into()).map_err(|_| Violation::invalid(rule))?;
        (RangeBound::Time(time), time.year())
    };
    if YEARS.contains(&year) {
        Ok(end)
    } else {
        Err(Violation::out_of_range("must be in a year from 1970 to 9998"))
    }
}

/// A day in its complete spelling: `chrono` also accepts `2026-1-2` and signs.
fn date(text: &str) -> Option<NaiveDate> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    (date.to_string() == text).then_some(date)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_end_is_a_time_or_a_day() {
        let day = NaiveDate::from_ymd_opt(2026, 11, 21).unwrap();
        assert_eq!(end(json!("2026-11-21")), Ok(RangeBound::Date(day)));
        let time = "2026-11-21T10:00:00Z".parse().unwrap();
        assert_eq!(end(json!("2026-11-21T11:00:00+01:00")), Ok(RangeBound::Time(time)));
        for bad in
            ["", "x", "2026-11-31", "2026-1-2", "+2026-11-21", "2026-11-21T10:00:00", "1700000000"]
        {
            assert_eq!(end(json!(bad)).map_err(|bad| bad.code), Err("invalid"), "{bad}");
        }
        for bad in ["1969-12-31", "9999-01-01", "0001-01-01T00:00:00Z"] {
            assert_eq!(end(json!(bad)).map_err(|bad| bad.code), Err("out_of_range"), "{bad}");
        }
    }
}
