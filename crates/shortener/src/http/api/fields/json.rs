//! Reads JSON, and builds only the values that a route needs.
//!
//! * A member that the route does not know is skipped, and its name is kept for the error. So a body of 64 KiB never
//!   becomes a tree of megabytes.
//! * A known member has a [`Shape`]: what does not fit into it is skipped as well, and its rule rejects the rest.
//! * Nesting is limited to 128 levels by `serde_json`, in skipped parts too.
//! * Of a member that is given twice, the first value is kept, and the second is an error.

use std::fmt;

use linnet_domain::{EventDetails, rules::Violation};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Fields;

/// A member that a route knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    /// Its name.
    pub(in super::super) name: &'static str,
    /// The part of its value that is read.
    pub(in super::super) shape: Shape,
}

/// The part of a value that is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// A string, number, boolean or null. An array or an object is read as an empty one.
    Scalar,
    /// An array of scalars. One more than `max_items` is read, so that the rule sees that there are too many.
    List {
        /// The maximum number of items that the rule accepts.
        max_items: usize,
    },
    /// An object whose members are found by name.
    Object(FindMember),
    /// An object with any members, as text.
    Details,
}

/// Finds the member with a name.
pub(in super::super) type FindMember = fn(&str) -> Option<Member>;

/// The value of a known member.
#[derive(Debug)]
pub(crate) enum Node {
    /// A scalar, or an array of scalars. Other arrays and all objects are empty.
    Value(Value),
    /// The object of a [`Shape::Object`].
    Object(Fields),
    /// The object of a [`Shape::Details`].
    Details(Result<EventDetails, Violation>),
}

impl Node {
    /// The value, for its type and its contents if it is a scalar or an array of them.
    pub(in super::super) fn into_value(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Object(_) | Self::Details(_) => Value::Object(Map::new()),
        }
    }
}

/// Reads a body. The inner value is not an object if it is a [`Value`].
pub(super) fn read_body(
    bytes: &[u8],
    find: FindMember,
) -> serde_json::Result<Result<Fields, Value>> {
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let node = Seed(Shape::Object(find)).deserialize(&mut input)?;
    input.end()?;
    Ok(match node {
        Node::Object(fields) => Ok(fields),
        other => Err(other.into_value()),
    })
}

/// Reads a value of a shape.
#[derive(Clone, Copy)]
struct Seed(Shape);

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Node, D::Error> {
        match self.0 {
            Shape::Details => input.deserialize_option(self),
            Shape::Scalar | Shape::List { .. } | Shape::Object(_) => input.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    /// Null of a [`Shape::Details`].
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Value(Value::Null))
    }

    /// Any other value of a [`Shape::Details`].
    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Node, D::Error> {
        EventDetails::read(input).map(Node::Details)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Value(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Value(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Value(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Value(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Value(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Value(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut kept = Vec::new();
        if let Shape::List { max_items } = self.0 {
            while kept.len() <= max_items {
                match items.next_element_seed(Self(Shape::Scalar))? {
                    Some(item) => kept.push(item.into_value()),
                    None => return Ok(Node::Value(kept.into())),
                }
            }
        }
        while items.next_element_seed(Skipped)?.is_some() {}
        Ok(Node::Value(kept.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let Shape::Object(find) = self.0 else {
            Skipped.visit_map(members)?;
            return Ok(Node::Value(Value::Object(Map::new())));
        };
        let mut fields = Fields::default();
        while let Some(name) = members.next_key_seed(Name(find))? {
            match name {
                Ok(Member { name, shape }) if !fields.has(name) => {
                    fields.insert(name, members.next_value_seed(Self(shape))?);
                }
                Ok(Member { name, .. }) => {
                    fields.add_repeated(name);
                    members.next_value_seed(Skipped)?;
                }
                Err(unknown) => {
                    fields.add_unknown(&unknown);
                    members.next_value_seed(Skipped)?;
                }
            }
        }
        Ok(Node::Object(fields))
    }
}

/// Reads a name: the member, or the name that is unknown.
struct Name(FindMember);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Result<Member, String>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Result<Member, String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0(name).ok_or_else(|| name.to_owned()))
    }
}

/// Skips a value. `serde::de::IgnoredAny` would skip any depth.
struct Skipped;

impl<'de> DeserializeSeed<'de> for Skipped {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skipped {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while members.next_key_seed(Self)?.is_some() {
            members.next_value_seed(Self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(name: &str) -> Option<Member> {
        let members = [
            Member { name: "text", shape: Shape::Scalar },
            Member { name: "list", shape: Shape::List { max_items: 2 } },
            Member { name: "object", shape: Shape::Object(find) },
            Member { name: "details", shape: Shape::Details },
        ];
        members.into_iter().find(|member| member.name == name)
    }

    fn read(text: &str) -> Fields {
        read_body(text.as_bytes(), find).unwrap().unwrap()
    }

    fn value(text: &str, name: &str) -> Value {
        read(text).take(name).unwrap().into_value()
    }

    #[test]
    fn must_25_only_the_shape_of_a_known_member_is_built() {
        assert_eq!(value(r#"{"text": "a"}"#, "text"), json!("a"));
        assert_eq!(value(r#"{"text": [1, {"a": 2}]}"#, "text"), json!([]));
        assert_eq!(value(r#"{"text": {"a": 2}}"#, "text"), json!({}));
        assert_eq!(value(r#"{"list": [1, "a", true, null, 5, 6]}"#, "list"), json!([1, "a", true]));
        assert_eq!(value(r#"{"list": [[1], {"a": 2}]}"#, "list"), json!([[], {}]));
        assert_eq!(value(r#"{"list": {"a": 2}}"#, "list"), json!({}));
        assert_eq!(value(r#"{"object": 7}"#, "object"), json!(7));
        assert_eq!(value(r#"{"details": {"a": 7}}"#, "details"), json!({}));
        assert_eq!(value(r#"{"details": null}"#, "details"), json!(null));
        let Some(Node::Object(mut inner)) = read(r#"{"object": {"text": 1}}"#).take("object")
        else {
            panic!("an object")
        };
        assert_eq!(inner.take("text").unwrap().into_value(), json!(1));
    }

    #[test]
    fn must_25_unknown_and_repeated_members_are_named_and_their_number_is_bounded() {
        let hostile = format!("{{{}}}", r#""":[0],"#.repeat(10_000).trim_end_matches(','));
        let error = read(&hostile).finish().unwrap_err();
        assert!(error.0.to_string().contains("20 fields"), "{error}");
        let long = "x".repeat(10_000);
        let error = read(&format!("{{\"{long}\": 1}}")).finish().unwrap_err().0.to_string();
        assert!(error.contains("xxx") && error.len() < 300, "{error}");
        for (text, field) in [
            (r#"{"text": 1, "text": 2}"#, "text"),
            (r#"{"text": 1, "te\u0078t": 1}"#, "text"),
            (r#"{"list": [], "text": 1, "list": []}"#, "list"),
        ] {
            let mut fields = read(text);
            let first = fields.take(field).unwrap().into_value();
            assert!(first == json!(1) || first == json!([]));
            fields.take("text");
            let error = fields.finish().unwrap_err().0.to_string();
            assert!(error.contains("only once"), "{error}");
        }
    }

    #[test]
    fn malformed_and_deep_json_is_an_error_in_skipped_parts_too() {
        for (before, after) in [("", ""), (r#"{"no_such":"#, "}"), (r#"{"details":"#, "}")] {
            for bad in ["", "{", "[1,]", "[1", "\"a", "1e999", "\"\\x\"", "{\"a\" 1}"] {
                let text = format!("{before}{bad}{after}");
                assert!(read_body(text.as_bytes(), find).is_err(), "{text}");
            }
            let deep = format!("{before}{}{}{after}", "[".repeat(5_000), "]".repeat(5_000));
            assert!(read_body(deep.as_bytes(), find).is_err());
        }
        assert!(read_body(b"{}{}", find).is_err());
        for other in [json!([1, 2]), json!("a"), json!(1), json!(null)] {
            let text = other.to_string();
            assert!(read_body(text.as_bytes(), find).unwrap().is_err(), "{text}");
        }
    }
}
