//! Rules for the values of fields, the same for JSON bodies, query strings and files.
//!
//! * A rule has one wording wherever it is checked. The wording begins with "must".
//! * JSON carries types: a value of another type is `wrong_type`, a number outside its range is `out_of_range`.
//! * Text carries no types: text that breaks a rule is `invalid`.

use std::{borrow::Cow, fmt::Display};

use chrono::{DateTime, Datelike, NaiveDateTime, Utc};
use serde_json::Value;

use super::{RedirectStatus, bounded_text};

/// A rule that a value breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Stable, for programs: `invalid`, `wrong_type`, `out_of_range`, …
    pub code: &'static str,
    /// Begins with the rule, such as "must be true or false".
    pub message: Cow<'static, str>,
}

impl Violation {
    /// A violation with this code.
    pub fn new(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// A value that breaks the rule whose wording is `rule`.
    pub fn invalid(rule: impl Display) -> Self {
        Self::new("invalid", rule.to_string())
    }

    /// A missing value.
    pub fn required() -> Self {
        Self::new("required", "must be present")
    }

    /// A number or time outside its range.
    pub fn out_of_range(rule: impl Into<Cow<'static, str>>) -> Self {
        Self::new("out_of_range", rule)
    }

    /// A JSON value that is not `expected`, such as "a string".
    pub fn wrong_type(expected: &str, value: &Value) -> Self {
        let found: Cow<'_, str> = match value {
            Value::Null => "null".into(),
            Value::Bool(_) => "a boolean".into(),
            Value::Number(number) if number.is_f64() => number.to_string().into(),
            Value::Number(_) => "a number".into(),
            Value::String(_) => "a string".into(),
            Value::Array(_) => "an array".into(),
            Value::Object(_) => "an object".into(),
        };
        Self::new("wrong_type", format!("must be {expected}, not {found}"))
    }
}

/// The values that a rule accepts, for documents and for exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueSchema {
    /// Text of 1 to `max_chars` characters that is not blank and has no control characters.
    Text {
        /// The greatest length, in characters.
        max_chars: usize,
    },
    /// True or false.
    Boolean,
    /// A whole number of at least 1.
    PositiveInteger,
    /// The code of a [`RedirectStatus`].
    RedirectStatus,
    /// A time with a time zone.
    Time,
}

/// Reads a value from JSON or from text.
pub trait Rule {
    /// The value of accepted input.
    type Value;
    /// The input that is accepted.
    const SCHEMA: ValueSchema;

    /// Reads a JSON value, whose type must match.
    fn from_json(value: Value) -> Result<Self::Value, Violation>;

    /// Reads a cell of a file.
    fn from_text(text: &str) -> Result<Self::Value, Violation>;

    /// Checks a value against the time of the request. The error is the wording of the rule.
    fn check(value: &Self::Value, now: DateTime<Utc>) -> Result<(), &'static str> {
        let _ = (value, now);
        Ok(())
    }
}

/// Text of 1 to `MAX_CHARS` characters.
#[derive(Debug)]
pub struct Text<const MAX_CHARS: usize>;

/// True or false.
#[derive(Debug)]
pub struct Boolean;

/// A whole number of at least 1.
#[derive(Debug)]
pub struct Positive;

/// A time in a year that RFC 3339 can write.
#[derive(Debug)]
pub struct Time;

/// A [`Time`] in the future.
#[derive(Debug)]
pub struct FutureTime;

impl Rule for FutureTime {
    type Value = DateTime<Utc>;
    const SCHEMA: ValueSchema = Time::SCHEMA;

    fn from_json(value: Value) -> Result<DateTime<Utc>, Violation> {
        Time::from_json(value)
    }

    fn from_text(text: &str) -> Result<DateTime<Utc>, Violation> {
        Time::from_text(text)
    }

    fn check(value: &DateTime<Utc>, now: DateTime<Utc>) -> Result<(), &'static str> {
        if *value > now { Ok(()) } else { Err("must be in the future") }
    }
}

impl<const MAX_CHARS: usize> Rule for Text<MAX_CHARS> {
    type Value = String;
    const SCHEMA: ValueSchema = ValueSchema::Text { max_chars: MAX_CHARS };

    fn from_json(value: Value) -> Result<String, Violation> {
        Self::from_text(&string(value)?)
    }

    fn from_text(text: &str) -> Result<String, Violation> {
        bounded_text(text, MAX_CHARS).map_err(Violation::invalid)
    }
}

impl Boolean {
    /// The wording of the rule.
    pub const RULE: &'static str = "must be true or false";
}

impl Rule for Boolean {
    type Value = bool;
    const SCHEMA: ValueSchema = ValueSchema::Boolean;

    fn from_json(value: Value) -> Result<bool, Violation> {
        match value {
            Value::Bool(value) => Ok(value),
            other => Err(Violation::wrong_type("true or false", &other)),
        }
    }

    /// Accepts the spellings of databases, spreadsheets and Python.
    fn from_text(text: &str) -> Result<bool, Violation> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" | "yes" => Ok(true),
            "false" | "f" | "0" | "no" => Ok(false),
            _ => Err(Violation::invalid(Self::RULE)),
        }
    }
}

impl Positive {
    /// The wording of the rule.
    pub const RULE: &'static str = "must be a whole number of at least 1";
}

impl Rule for Positive {
    type Value = i64;
    const SCHEMA: ValueSchema = ValueSchema::PositiveInteger;

    fn from_json(value: Value) -> Result<i64, Violation> {
        let number = integer(value)?;
        if number > 0 { Ok(number) } else { Err(Violation::out_of_range(Self::RULE)) }
    }

    fn from_text(text: &str) -> Result<i64, Violation> {
        let number = text.parse::<i64>().ok().filter(|number| *number > 0);
        number.ok_or_else(|| Violation::invalid(Self::RULE))
    }
}

const REDIRECT_STATUS_RULE: &str = "must be 301, 302, 307 or 308";

impl Rule for RedirectStatus {
    type Value = Self;
    const SCHEMA: ValueSchema = ValueSchema::RedirectStatus;

    fn from_json(value: Value) -> Result<Self, Violation> {
        Self::from_code(integer(value)?).ok_or_else(|| Violation::invalid(REDIRECT_STATUS_RULE))
    }

    fn from_text(text: &str) -> Result<Self, Violation> {
        let status = text.parse().ok().and_then(Self::from_code);
        status.ok_or_else(|| Violation::invalid(REDIRECT_STATUS_RULE))
    }
}

const TIME_RULE: &str = "must be an RFC 3339 time, such as 2027-01-31T12:00:00Z";
const TIME_TEXT_RULE: &str = "must be an RFC 3339 time or YYYY-MM-DD HH:MM:SS in UTC";
const YEAR_RULE: &str = "must be in a year from 0 to 9999";

/// The time as PostgreSQL stores it: rounded to microseconds, and a leap second is the second after it. `None` if RFC 3339
/// cannot write it: a time zone, the rounding and a leap second can produce a year of five digits from the year 9999.
fn stored_time(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    // A leap second has more than 10⁹ nanoseconds.
    let micros = (i64::from(time.timestamp_subsec_nanos()) + 500) / 1_000;
    let micros = time.timestamp().checked_mul(1_000_000)?.checked_add(micros)?;
    DateTime::from_timestamp_micros(micros).filter(|time| (0..=9999).contains(&time.year()))
}

impl Rule for Time {
    type Value = DateTime<Utc>;
    const SCHEMA: ValueSchema = ValueSchema::Time;

    fn from_json(value: Value) -> Result<DateTime<Utc>, Violation> {
        let text = string(value)?;
        let time = DateTime::parse_from_rfc3339(&text)
            .map_err(|_| Violation::invalid(TIME_RULE))?
            .with_timezone(&Utc);
        stored_time(time).ok_or_else(|| Violation::out_of_range(YEAR_RULE))
    }

    /// Also accepts the spelling of databases and spreadsheets.
    fn from_text(text: &str) -> Result<DateTime<Utc>, Violation> {
        let time = match DateTime::parse_from_rfc3339(text) {
            Ok(time) => time.with_timezone(&Utc),
            Err(_) => NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
                .map_err(|_| Violation::invalid(TIME_TEXT_RULE))?
                .and_utc(),
        };
        stored_time(time).ok_or_else(|| Violation::invalid(YEAR_RULE))
    }
}

/// The wording of the rule that PostgreSQL's text and jsonb impose.
pub const NO_NUL_RULE: &str = "must not contain the NUL character";

/// A JSON string without NUL, which PostgreSQL cannot store.
pub fn string(value: Value) -> Result<String, Violation> {
    match value {
        Value::String(text) if text.contains('\0') => Err(Violation::invalid(NO_NUL_RULE)),
        Value::String(text) => Ok(text),
        other => Err(Violation::wrong_type("a string", &other)),
    }
}

/// A whole JSON number. JSON Schema also counts 1.0 as whole.
pub fn integer(value: Value) -> Result<i64, Violation> {
    const EXPECTED: &str = "a whole number";
    match value {
        Value::Number(number) if number.is_f64() => exact_integer(number.as_f64())
            .ok_or_else(|| Violation::wrong_type(EXPECTED, &Value::Number(number))),
        Value::Number(number) => number.as_i64().ok_or_else(|| {
            Violation::out_of_range(format!("must be a whole number of at most {}", i64::MAX))
        }),
        other => Err(Violation::wrong_type(EXPECTED, &other)),
    }
}

/// Accepts whole numbers up to 2⁵³, which a double represents exactly. A greater double stands for several integers.
fn exact_integer(number: Option<f64>) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = number.filter(|number| number.fract() == 0.0 && number.abs() <= EXACT)?;
    format!("{number:.0}").parse().ok()
}

#[cfg(test)]
mod tests {
    use chrono::SecondsFormat;
    use serde_json::json;

    use super::*;

    fn code<T: std::fmt::Debug>(result: Result<T, Violation>) -> &'static str {
        result.unwrap_err().code
    }

    #[test]
    fn json_types_are_strict() {
        for bad in [json!(1.5), json!(1e300), json!("1"), json!(true), json!(null), json!([1])] {
            assert_eq!(code(integer(bad)), "wrong_type");
        }
        assert_eq!(integer(json!(-1.0)), Ok(-1));
        assert_eq!(code(integer(json!(u64::MAX))), "out_of_range");
        assert_eq!(code(Positive::from_json(json!(0))), "out_of_range");
        assert_eq!(code(Positive::from_json(json!(-1))), "out_of_range");
        assert_eq!(code(Boolean::from_json(json!(1))), "wrong_type");
        assert_eq!(code(string(json!("a\0b"))), "invalid");
        assert_eq!(code(RedirectStatus::from_json(json!(303))), "invalid");
        assert_eq!(code(Text::<3>::from_json(json!("abcd"))), "invalid");
        for bad in ["", "2027-01-31", "2027-01-31T12:00:00", "2027-01-31 12:00:00"] {
            assert_eq!(code(Time::from_json(json!(bad))), "invalid", "{bad}");
        }
        assert_eq!(code(Time::from_json(json!("9999-12-31T23:59:59-12:00"))), "out_of_range");
        assert!(Time::from_json(json!("2027-01-31T12:00:00+02:00")).is_ok());
    }

    #[test]
    fn text_is_read_in_the_spellings_of_files() {
        assert_eq!(Boolean::from_text("True"), Ok(true));
        assert_eq!(Boolean::from_text("FALSE"), Ok(false));
        assert_eq!(code(Boolean::from_text("maybe")), "invalid");
        assert_eq!(RedirectStatus::from_text("308"), Ok(RedirectStatus::PermanentRedirect));
        let time = Time::from_text("2025-09-28 22:57:23");
        assert!(time.is_ok());
        assert_eq!(time, Time::from_text("2025-09-28T22:57:23Z"));
        for bad in ["", "2025-13-01 00:00:00", "28.09.2025", "2025-09-28"] {
            assert_eq!(code(Time::from_text(bad)), "invalid", "{bad}");
        }
        for bad in ["0", "-1", "1.0", "x", "9223372036854775808"] {
            assert_eq!(code(Positive::from_text(bad)), "invalid", "{bad}");
        }
    }

    #[test]
    fn no_time_is_stored_in_a_year_of_five_digits() {
        for bad in [
            "9999-12-31T23:59:60Z",
            "9999-12-31T23:59:59.9999995Z",
            "9999-12-31T22:59:60-01:00",
            "9999-12-31T23:59:59-00:01",
        ] {
            let json = Time::from_json(json!(bad)).unwrap_err();
            assert_eq!((json.code, json.message.as_ref()), ("out_of_range", YEAR_RULE), "{bad}");
            assert_eq!(Time::from_text(bad).unwrap_err(), Violation::invalid(YEAR_RULE), "{bad}");
        }
        for bad in ["9999-12-31 23:59:60", "9999-12-31 23:59:59.9999996"] {
            assert_eq!(Time::from_text(bad), Err(Violation::invalid(YEAR_RULE)), "{bad}");
        }
        for (text, stored) in [
            ("9999-12-31T23:59:59.9999994Z", "9999-12-31T23:59:59.999999Z"),
            ("2016-12-31T23:59:60.25Z", "2017-01-01T00:00:00.250Z"),
            ("2027-01-31T12:00:00.1234565Z", "2027-01-31T12:00:00.123457Z"),
            ("1969-12-31T23:59:59.9999995Z", "1970-01-01T00:00:00Z"),
        ] {
            let time = Time::from_text(text).unwrap();
            assert_eq!(time.to_rfc3339_opts(SecondsFormat::AutoSi, true), stored, "{text}");
            assert_eq!(Time::from_json(json!(text)), Ok(time), "{text}");
        }
    }

    #[test]
    fn one_rule_has_one_wording() {
        let message = |violation: Violation| violation.message;
        assert_eq!(
            message(Positive::from_json(json!(0)).unwrap_err()),
            message(Positive::from_text("0").unwrap_err())
        );
        assert_eq!(
            message(RedirectStatus::from_json(json!(1)).unwrap_err()),
            message(RedirectStatus::from_text("1").unwrap_err())
        );
        assert_eq!(
            message(integer(json!("2")).unwrap_err()),
            "must be a whole number, not a string"
        );
    }

    #[test]
    fn a_wrong_type_names_what_was_found() {
        for (value, found) in [
            (json!(null), "null"),
            (json!(true), "a boolean"),
            (json!(1), "a number"),
            (json!(1.5), "1.5"),
            (json!("a"), "a string"),
            (json!([]), "an array"),
            (json!({}), "an object"),
        ] {
            let message = Violation::wrong_type("x", &value).message;
            assert_eq!(message, format!("must be x, not {found}"));
        }
    }

    #[test]
    fn a_future_time_is_after_the_request() {
        let at = |text: &str| FutureTime::from_text(text).unwrap();
        let now = at("2027-01-31T12:00:00Z");
        for (time, is_accepted) in [
            ("2027-01-31T11:59:59.999999Z", false),
            ("2027-01-31T12:00:00Z", false),
            ("2027-01-31T12:00:00.000001Z", true),
        ] {
            assert_eq!(FutureTime::check(&at(time), now).is_ok(), is_accepted, "{time}");
            assert!(Time::check(&at(time), now).is_ok());
        }
    }
}
