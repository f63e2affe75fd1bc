//! The details of an event: the text of a bounded JSON object.
//!
//! * No tree of values is built. A tree takes up to a hundred times the memory of its text.
//! * The size is that of the text as PostgreSQL prints it. `1e308` has five bytes, and PostgreSQL prints 309 digits.
//! * Strings have no NUL, which PostgreSQL cannot store, and an object has each member once.

use std::{collections::HashSet, fmt};

use serde::{
    Serialize, Serializer,
    de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::rules::{NO_NUL_RULE, Violation};

/// The wording for a name that is present twice.
pub const ONCE_RULE: &str = "must be given only once";

/// A JSON object as compact text.
#[derive(Debug, Clone)]
pub struct EventDetails(Box<RawValue>);

impl EventDetails {
    /// The longest text of an object that a client sends, in bytes.
    pub const MAX_BYTES: usize = 16 * 1024;
    /// The deepest nesting of an object that a client sends.
    pub const MAX_DEPTH: usize = 32;

    /// Reads a JSON object, which PostgreSQL must print in at most [`Self::MAX_BYTES`]. The outer error is that of the
    /// deserializer. The inner one is the first rule that the object breaks.
    pub fn read<'de, D: Deserializer<'de>>(input: D) -> Result<Result<Self, Violation>, D::Error> {
        Self::read_within(input, Self::MAX_BYTES, Self::MAX_DEPTH)
    }

    /// Reads a cell of a file.
    pub fn from_text(text: &str) -> Result<Self, Violation> {
        let mut input = serde_json::Deserializer::from_str(text);
        let details = Self::read(&mut input).and_then(|details| input.end().map(|()| details));
        details.unwrap_or_else(|error| {
            Err(Violation::invalid(format_args!("must be valid JSON: {error}")))
        })
    }

    /// Reads text from the database, without limits of size and depth: an older release may have written it.
    pub fn stored(text: &str) -> Result<Self, serde_json::Error> {
        let mut input = serde_json::Deserializer::from_str(text);
        Self::read_within(&mut input, usize::MAX, usize::MAX)?
            .map_err(|violation| serde_json::Error::custom(violation.message))
    }

    /// Details that the service itself writes, without limits.
    pub fn from_value(value: &serde_json::Value) -> Result<Self, serde_json::Error> {
        Ok(Self(RawValue::from_string(value.to_string())?))
    }

    /// The text, without spaces between its parts.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    fn read_within<'de, D: Deserializer<'de>>(
        input: D,
        max_bytes: usize,
        max_depth: usize,
    ) -> Result<Result<Self, Violation>, D::Error> {
        let mut text =
            Text { json: String::new(), bytes: 0, max_bytes, max_depth, violation: None };
        Part { text: &mut text, depth: 0, separator: None }.deserialize(input)?;
        match text.violation {
            Some(violation) => Ok(Err(violation)),
            None => Ok(Ok(Self(RawValue::from_string(text.json).map_err(D::Error::custom)?))),
        }
    }
}

impl Default for EventDetails {
    /// `{}`.
    fn default() -> Self {
        Self(RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }
}

impl Serialize for EventDetails {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(feature = "sqlx")]
mod database {
    //! `jsonb` in PostgreSQL.

    use serde_json::value::RawValue;
    use sqlx::{
        Database, Decode, Encode, Postgres, Type,
        encode::IsNull,
        error::BoxDynError,
        postgres::{PgHasArrayType, PgTypeInfo},
        types::{Json, JsonValue},
    };

    use super::EventDetails;

    impl Type<Postgres> for EventDetails {
        fn type_info() -> PgTypeInfo {
            <JsonValue as Type<Postgres>>::type_info()
        }

        fn compatible(other: &PgTypeInfo) -> bool {
            <JsonValue as Type<Postgres>>::compatible(other)
        }
    }

    impl PgHasArrayType for EventDetails {
        fn array_type_info() -> PgTypeInfo {
            <JsonValue as PgHasArrayType>::array_type_info()
        }
    }

    impl Encode<'_, Postgres> for EventDetails {
        fn encode_by_ref(
            &self,
            buffer: &mut <Postgres as Database>::ArgumentBuffer,
        ) -> Result<IsNull, BoxDynError> {
            Json(&self.0).encode_by_ref(buffer)
        }
    }

    impl<'r> Decode<'r, Postgres> for EventDetails {
        fn decode(value: <Postgres as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
            let Json(raw) = Json::<&'r RawValue>::decode(value)?;
            Ok(Self::stored(raw.get())?)
        }
    }
}

/// The text so far. After a violation nothing is added.
struct Text {
    json: String,
    /// The size of the text as PostgreSQL prints it.
    bytes: usize,
    max_bytes: usize,
    max_depth: usize,
    violation: Option<Violation>,
}

impl Text {
    fn is_open(&self) -> bool {
        self.violation.is_none()
    }

    fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Adds a piece that PostgreSQL prints in `bytes` bytes.
    fn push(&mut self, piece: &str, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.max_bytes {
            let rule = format!("must be at most {} bytes as compact JSON", self.max_bytes);
            self.fail(Violation::new("too_long", rule));
        }
        if self.is_open() {
            self.json.push_str(piece);
        }
    }

    fn push_string<E: Error>(&mut self, text: &str) -> Result<(), E> {
        if text.contains('\0') {
            self.fail(Violation::invalid(NO_NUL_RULE));
        }
        if self.is_open() {
            let json = serde_json::to_string(text).map_err(E::custom)?;
            self.push(&json, json.len());
        }
        Ok(())
    }
}

/// One value within the text.
struct Part<'a> {
    text: &'a mut Text,
    depth: usize,
    /// Written before the value.
    separator: Option<&'static str>,
}

impl Part<'_> {
    fn scalar(self, json: &str, bytes: usize) {
        if self.depth == 0 {
            self.text.fail(Violation::new("wrong_type", "must be an object, not another value"));
        }
        self.text.push(json, bytes);
    }

    /// Begins an array or an object.
    fn open(&mut self, bracket: &str) {
        if self.depth == 0 && bracket == "[" {
            self.text.fail(Violation::new("wrong_type", "must be an object, not an array"));
        }
        if self.depth >= self.text.max_depth {
            let rule = format!("must be nested at most {} levels deep", self.text.max_depth);
            self.text.fail(Violation::new("too_deep", rule));
        }
        self.text.push(bracket, bracket.len());
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if let Some(separator) = self.separator {
            // PostgreSQL prints a space after each.
            self.text.push(separator, separator.len() + 1);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scalar("null", 4);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        let json = if value { "true" } else { "false" };
        self.scalar(json, json.len());
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        let json = value.to_string();
        self.scalar(&json, json.len());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        let json = value.to_string();
        self.scalar(&json, json.len());
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        let json = serde_json::to_string(&value).map_err(E::custom)?;
        // Both PostgreSQL and Rust's `Display` print all digits instead of an exponent.
        self.scalar(&json, value.to_string().len().max(json.len()));
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        if self.depth == 0 {
            self.text.fail(Violation::new("wrong_type", "must be an object, not a string"));
        }
        self.text.push_string(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.open("[");
        let (text, depth) = (self.text, self.depth + 1);
        let mut separator = None;
        while items.next_element_seed(Part { text, depth, separator })?.is_some() {
            separator = Some(",");
        }
        text.push("]", 1);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.open("{");
        let (text, depth) = (self.text, self.depth + 1);
        let mut names = HashSet::new();
        let mut separator = None;
        while let Some(name) = members.next_key::<String>()? {
            if let Some(separator) = separator {
                text.push(separator, 2);
            }
            text.push_string(&name)?;
            if text.is_open() && !names.insert(name) {
                text.fail(Violation::new("repeated", "must have each member only once"));
            }
            members.next_value_seed(Part { text, depth, separator: Some(":") })?;
            separator = Some(",");
        }
        text.push("}", 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        EventDetails::from_text(text).unwrap_err().code
    }

    #[test]
    fn an_object_is_kept_as_compact_text() {
        for (text, compact) in [
            (" { } ", "{}"),
            ("{\"b\" : [1, -2, 1.5, true, null, \"\\u00e9\\n\"], \"a\": {}}", ""),
            ("{\"\": 0}", "{\"\":0}"),
        ] {
            let details = EventDetails::from_text(text).unwrap();
            if !compact.is_empty() {
                assert_eq!(details.as_str(), compact);
            }
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(value, serde_json::from_str::<serde_json::Value>(details.as_str()).unwrap());
            assert_eq!(serde_json::to_string(&details).unwrap(), details.as_str());
        }
        assert_eq!(EventDetails::default().as_str(), "{}");
    }

    #[test]
    fn values_other_than_objects_nul_and_repeated_members_are_rejected() {
        for bad in ["null", "1", "1.5", "true", "\"{}\"", "[]", "[{}]"] {
            assert_eq!(code(bad), "wrong_type", "{bad}");
        }
        for bad in ["", "{", "{}x", "{\"a\"}", "{\"a\":1e999}"] {
            assert_eq!(code(bad), "invalid", "{bad}");
        }
        for bad in ["{\"a\":\"\\u0000\"}", "{\"\\u0000\":1}", "{\"a\":[{\"b\":\"\\u0000\"}]}"] {
            assert_eq!(code(bad), "invalid", "{bad}");
        }
        assert_eq!(code("{\"a\":1,\"a\":1}"), "repeated");
        assert_eq!(code("{\"a\":[{\"b\":1,\"\\u0062\":2}]}"), "repeated");
        assert!(EventDetails::from_text("{\"a\":{\"b\":1},\"b\":{\"a\":1}}").is_ok());
    }

    #[test]
    fn must_25_details_are_bounded_by_what_they_become() {
        let of_length = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length));
        // PostgreSQL prints a space after the colon.
        let longest = EventDetails::MAX_BYTES - "{\"a\": \"\"}".len();
        assert!(EventDetails::from_text(&of_length(longest)).is_ok());
        assert_eq!(code(&of_length(longest + 1)), "too_long");
        let spaces = format!("{{\"a\":{}1}}", " ".repeat(EventDetails::MAX_BYTES));
        assert_eq!(EventDetails::from_text(&spaces).unwrap().as_str(), "{\"a\":1}");
        // 600 bytes that PostgreSQL prints in 30,900.
        for number in ["1e308", "1e-307"] {
            let expanding = format!("{{\"a\":[{}0]}}", format!("{number},").repeat(100));
            assert_eq!(code(&expanding), "too_long", "{number}");
        }
        let nested =
            |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(EventDetails::from_text(&nested(EventDetails::MAX_DEPTH)).is_ok());
        assert_eq!(code(&nested(EventDetails::MAX_DEPTH + 1)), "too_deep");
        assert!(EventDetails::stored(&of_length(longest + 1)).is_ok());
    }

    #[test]
    fn must_25_nothing_is_built_after_a_violation() {
        for input in [
            format!("{{\"a\":\"{}\",\"b\":1}}", "x".repeat(30)),
            format!("{{\"a\":[{}0]}}", "0,".repeat(500)),
            format!("{{\"a\":1,\"a\":\"{}\"}}", "x".repeat(30)),
        ] {
            let mut text = Text {
                json: String::new(),
                bytes: 0,
                max_bytes: 20,
                max_depth: 9,
                violation: None,
            };
            let part = Part { text: &mut text, depth: 0, separator: None };
            part.deserialize(&mut serde_json::Deserializer::from_str(&input)).unwrap();
            assert!(text.violation.is_some() && text.json.len() <= 20, "{input}");
        }
        assert_eq!(EventDetails::MAX_BYTES, 16_384);
    }

    #[test]
    fn objects_of_the_database_and_the_service_are_kept() {
        assert_eq!(EventDetails::stored("{\"a\": [1, 2]}").unwrap().as_str(), "{\"a\":[1,2]}");
        let value = serde_json::json!({"a": 1});
        assert_eq!(EventDetails::from_value(&value).unwrap().as_str(), "{\"a\":1}");
        assert!(EventDetails::stored("[]").is_err());
        let bytes = serde::de::value::BytesDeserializer::<serde_json::Error>::new(b"{}");
        let error = EventDetails::read(bytes).unwrap_err().to_string();
        assert_eq!(error, "invalid type: byte array, expected a JSON value");
    }
}
