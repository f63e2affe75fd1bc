//! Reads a JSON object or a query string field by field, so that one response reports every error.
//!
//! * Each field is taken by name. An unknown field is an error: ignoring a misspelled field would be worse than
//!   rejecting it.
//! * A body is declared once, by [`declare::body!`]; its reader and its OpenAPI schema derive from the declaration.
//! * [ADR 008](../../../../../../docs/adr/008-fields-one-by-one.md) explains why `serde` does not read bodies.

mod body;
pub(super) mod declare;
mod json;
mod query;
mod values;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use linnet_domain::{
    FieldInput, FieldSource, LinkField,
    rules::{Rule, Violation},
};
use linnet_protocol::problem::{FieldError, Problem};
use serde_json::{Map, Value};

use super::super::error::{ApiError, field_error};

pub(crate) use body::JsonBody;
pub(super) use body::parse_body;
pub(crate) use json::{Member, Node, Shape};
pub(crate) use linnet_domain::ONCE_RULE;
pub(crate) use query::QueryFields;
pub(super) use query::{query_boolean, query_id, query_number, query_positive, text_or_null};
pub(super) use values::{CustomCode, Details, EmailAddress, HostName, Id, Ids, Target};

/// The maximum number of unknown fields that are reported, so that the response is not far larger than the body.
const MAX_UNKNOWN: usize = 20;
/// The maximum length of a reported name, in characters.
const MAX_NAME_CHARS: usize = 100;

/// The fields of one object, and the errors found so far.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    known: BTreeMap<String, Node>,
    errors: Vec<FieldError>,
    /// Unknown and repeated names, and at most [`MAX_UNKNOWN`] of them.
    surplus: Vec<FieldError>,
}

impl Fields {
    pub(super) fn new(map: Map<String, Value>) -> Self {
        let known = map.into_iter().map(|(name, value)| (name, Node::Value(value))).collect();
        Self { known, ..Self::default() }
    }

    fn has(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    fn insert(&mut self, name: &str, node: Node) {
        self.known.insert(name.to_owned(), node);
    }

    fn add_unknown(&mut self, name: &str) {
        self.add_surplus(name, "unknown", "must be a known field");
    }

    fn add_repeated(&mut self, name: &str) {
        self.add_surplus(name, "repeated", ONCE_RULE);
    }

    fn add_surplus(&mut self, name: &str, code: &'static str, rule: &str) {
        if self.surplus.len() < MAX_UNKNOWN {
            let name: String = name.chars().take(MAX_NAME_CHARS).collect();
            self.surplus.push(field_error(&name, code, rule));
        }
    }

    /// The value of a field.
    pub(super) fn take(&mut self, name: &str) -> Option<Node> {
        self.known.remove(name)
    }

    /// A field that may be absent or null.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Violation>,
    ) -> Option<T> {
        match self.take(name).map(Node::into_value) {
            None | Some(Value::Null) => None,
            Some(value) => self.read(name, value, read),
        }
    }

    /// A field of a patch: absent keeps the value, null is an error.
    fn change<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Violation>,
    ) -> Option<T> {
        let value = self.take(name)?.into_value();
        self.read(name, value, read)
    }

    /// A field of a patch: absent keeps the value, null clears it.
    fn change_or_clear<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Violation>,
    ) -> Option<Option<T>> {
        match self.take(name)?.into_value() {
            Value::Null => Some(None),
            value => self.read(name, value, read).map(Some),
        }
    }

    /// Adds the errors of the object in the field `name` of this object.
    fn absorb(&mut self, name: &str, inner: Self) {
        self.errors.extend(inner.into_errors().into_iter().map(|mut error| {
            error.field = format!("{name}.{}", error.field);
            error
        }));
    }

    /// Returns all errors, unknown fields included.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        let errors = self.into_errors();
        if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors).into()) }
    }

    /// [`Fields::finish`], then the required values, which are present when there are no errors.
    fn finish_with<T>(self, values: Option<T>) -> Result<T, ApiError> {
        self.finish()?;
        values.ok_or_else(|| Problem::internal().into())
    }

    /// Fields that no reader took are unknown.
    fn into_errors(mut self) -> Vec<FieldError> {
        for name in std::mem::take(&mut self.known).into_keys() {
            self.add_unknown(&name);
        }
        self.errors.append(&mut self.surplus);
        self.errors
    }

    fn add_error(&mut self, name: &str, violation: &Violation) {
        self.errors.push(field_error(name, violation.code, &violation.message));
    }

    fn read<T, V>(
        &mut self,
        name: &str,
        value: V,
        read: impl FnOnce(V) -> Result<T, Violation>,
    ) -> Option<T> {
        read(value).map_err(|violation| self.add_error(name, &violation)).ok()
    }
}

/// Reads a value by a rule of the domain.
fn read_rule<R: Rule>(value: Value, now: DateTime<Utc>) -> Result<R::Value, Violation> {
    let value = R::from_json(value)?;
    R::check(&value, now).map_err(Violation::out_of_range)?;
    Ok(value)
}

/// The body of a create, in which null is the same as absent.
pub(crate) struct CreateBody<'a> {
    pub(super) fields: &'a mut Fields,
    pub(super) now: DateTime<Utc>,
}

impl FieldSource for CreateBody<'_> {
    fn read<R: Rule>(&mut self, field: &LinkField) -> FieldInput<R::Value> {
        let value = self.fields.optional(field.name, |value| read_rule::<R>(value, self.now));
        value.map_or(FieldInput::Absent, FieldInput::Value)
    }
}

/// The body of a patch, in which null clears a field that can be cleared and is an error in any other.
pub(crate) struct PatchBody<'a> {
    pub(super) fields: &'a mut Fields,
    pub(super) now: DateTime<Utc>,
}

impl FieldSource for PatchBody<'_> {
    fn read<R: Rule>(&mut self, field: &LinkField) -> FieldInput<R::Value> {
        let read = |value| read_rule::<R>(value, self.now);
        let value = if field.clearable {
            self.fields.change_or_clear(field.name, read)
        } else {
            self.fields.change(field.name, read).map(Some)
        };
        match value {
            None => FieldInput::Absent,
            Some(None) => FieldInput::Cleared,
            Some(Some(value)) => FieldInput::Value(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use linnet_domain::{
        LinkAttributePatch,
        rules::{Boolean, string},
    };
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        match value {
            Value::Object(map) => Fields::new(map),
            _ => unreachable!("tests pass objects"),
        }
    }

    #[test]
    fn all_errors_are_reported_at_once_with_their_fields() {
        let mut fields = fields(json!({"name": 7, "is_active": "yes", "no_such": 1}));
        assert_eq!(fields.change("name", string), None);
        assert_eq!(fields.optional("is_active", Boolean::from_json), None);
        assert_eq!(fields.errors.len(), 2);
        let error = fields.finish().unwrap_err();
        assert_eq!(error.0.status(), 422);
        assert!(error.0.to_string().contains("3 fields"), "{error}");
    }

    #[test]
    fn reported_unknown_fields_are_bounded() {
        let map = (0..10_000).map(|n| (n.to_string(), json!(0))).collect();
        let error = Fields::new(map).finish().unwrap_err();
        assert!(error.0.to_string().contains("20 fields"), "{error}");
    }

    #[test]
    fn a_patch_distinguishes_absent_null_and_value() {
        let mut fields = fields(json!({"cleared": null, "set": "x", "not_nullable": null}));
        assert_eq!(fields.change_or_clear("absent", string), None);
        assert_eq!(fields.change_or_clear("cleared", string), Some(None));
        assert_eq!(fields.change_or_clear("set", string), Some(Some("x".to_owned())));
        assert_eq!(fields.change("not_nullable", string), None);
        assert!(fields.finish().is_err());
    }

    #[test]
    fn null_in_a_create_is_absent_and_in_a_patch_clears_or_is_an_error() {
        let now = Utc::now();
        let body = json!({"title": null, "is_active": null, "max_clicks": 3});
        let mut create = fields(body.clone());
        let new = LinkAttributePatch::read(&mut CreateBody { fields: &mut create, now });
        create.finish().unwrap();
        let limited = LinkAttributePatch { max_clicks: Some(Some(3)), ..Default::default() };
        assert_eq!(new, limited);
        let mut patch = fields(body);
        let read = LinkAttributePatch::read(&mut PatchBody { fields: &mut patch, now });
        assert_eq!((read.title, read.is_active), (Some(None), None));
        let error = patch.finish().unwrap_err().0.to_string();
        assert!(error.contains("is_active: must be true or false, not null"), "{error}");
    }

    #[test]
    fn an_expiry_is_in_the_future() {
        let now: DateTime<Utc> = "2026-11-27T12:00:00Z".parse().unwrap();
        for (time, is_valid) in [
            ("2026-11-27T12:00:01Z", true),
            ("2026-11-27T12:00:00Z", false),
            ("2026-11-27T11:59:59Z", false),
            ("2026-11-27T13:59:59+02:00", false),
            ("1970-01-01T00:00:00Z", false),
        ] {
            let body = json!({ "expires_at": time });
            let mut create = fields(body.clone());
            LinkAttributePatch::read(&mut CreateBody { fields: &mut create, now });
            assert_eq!(create.finish().is_ok(), is_valid, "{time}");
            let mut patch = fields(body);
            LinkAttributePatch::read(&mut PatchBody { fields: &mut patch, now });
            assert_eq!(patch.finish().is_ok(), is_valid, "{time}");
        }
    }

    #[test]
    fn errors_of_a_nested_object_have_its_name() {
        let mut outer = Fields::default();
        let mut inner = fields(json!({"title": 7, "no_such": 1}));
        assert_eq!(inner.optional("title", string), None);
        outer.absorb("change", inner);
        let named: Vec<_> = outer.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(named, ["change.title", "change.no_such"]);
        assert!(outer.finish().is_err());
    }
}
