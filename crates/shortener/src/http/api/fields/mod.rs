//! Reads a JSON object or a query string field by field, so that one response reports every error.
//!
//! * Each field is taken by name. The fields that remain are unknown, and an unknown field is an error: ignoring a
//!   misspelled field would be worse than rejecting it.
//! * [ADR 008](../../../../../../docs/adr/008-fields-one-by-one.md) explains why `serde` does not read bodies.

mod body;
mod query;
mod values;

use linnet_domain::{
    FieldInput, FieldSource, LinkField,
    rules::{Rule, Violation},
};
use linnet_protocol::problem::{FieldError, Problem};
use serde_json::{Map, Value};

use super::super::error::{ApiError, field_error};

pub(crate) use body::JsonObject;
pub use body::MAX_BODY_BYTES;
pub(crate) use query::QueryFields;
pub(super) use query::{query_boolean, query_id, query_number, query_positive};
pub(super) use values::{id, ids, members, object};

/// The maximum number of unknown fields that are reported, so that the response is not far larger than the body.
const MAX_UNKNOWN: usize = 20;

/// The wording for a field that is present twice.
pub(super) const ONCE_RULE: &str = "must be given only once";

/// The fields of one object, and the errors found so far.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    pub(super) fn new(map: Map<String, Value>) -> Self {
        Self { map, errors: Vec::new() }
    }

    /// A field that may be absent or null.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Violation>,
    ) -> Option<T> {
        match self.map.remove(name) {
            None | Some(Value::Null) => None,
            Some(value) => self.read(name, value, read),
        }
    }

    /// A field that must be present.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Violation>,
    ) -> Option<T> {
        match self.map.remove(name) {
            None => {
                self.add_error(name, &Violation::required());
                None
            }
            Some(value) => self.read(name, value, read),
        }
    }

    /// A field of a patch: absent keeps the value, null is an error.
    pub(super) fn change<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Violation>,
    ) -> Option<T> {
        let value = self.map.remove(name)?;
        self.read(name, value, read)
    }

    /// A field of a patch: absent keeps the value, null clears it.
    pub(super) fn change_or_clear<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Violation>,
    ) -> Option<Option<T>> {
        match self.map.remove(name)? {
            Value::Null => Some(None),
            value => self.read(name, value, read).map(Some),
        }
    }

    /// Adds the errors of the object in the field `name` of this object.
    pub(super) fn absorb(&mut self, name: &str, mut inner: Self) {
        inner.add_unknown();
        self.errors.extend(inner.errors.into_iter().map(|mut error| {
            error.field = format!("{name}.{}", error.field);
            error
        }));
    }

    /// Returns all errors, unknown fields included.
    pub(super) fn finish(mut self) -> Result<(), ApiError> {
        self.add_unknown();
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors).into()) }
    }

    /// [`Fields::finish`], then the required values, which are present when there are no errors.
    pub(super) fn finish_with<T>(self, values: Option<T>) -> Result<T, ApiError> {
        self.finish()?;
        values.ok_or_else(|| Problem::internal().into())
    }

    fn add_unknown(&mut self) {
        let unknown = self.map.keys().take(MAX_UNKNOWN);
        let errors = unknown.map(|name| field_error(name, "unknown", "must be a known field"));
        self.errors.extend(errors);
    }

    fn add_error(&mut self, name: &str, violation: &Violation) {
        self.errors.push(field_error(name, violation.code, &violation.message));
    }

    fn read<T>(
        &mut self,
        name: &str,
        value: Value,
        read: impl FnOnce(Value) -> Result<T, Violation>,
    ) -> Option<T> {
        read(value).map_err(|violation| self.add_error(name, &violation)).ok()
    }
}

/// The body of a create, in which null is the same as absent.
pub(super) struct CreateBody<'a>(pub(super) &'a mut Fields);

impl FieldSource for CreateBody<'_> {
    fn read<R: Rule>(&mut self, field: &LinkField) -> FieldInput<R::Value> {
        self.0.optional(field.name, R::from_json).map_or(FieldInput::Absent, FieldInput::Value)
    }
}

/// The body of a patch, in which null clears a field that can be cleared and is an error in any other.
pub(super) struct PatchBody<'a>(pub(super) &'a mut Fields);

impl FieldSource for PatchBody<'_> {
    fn read<R: Rule>(&mut self, field: &LinkField) -> FieldInput<R::Value> {
        let value = if field.clearable {
            self.0.change_or_clear(field.name, R::from_json)
        } else {
            self.0.change(field.name, R::from_json).map(Some)
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
        assert_eq!(fields.required("name", string), None);
        assert_eq!(fields.optional("is_active", Boolean::from_json), None);
        assert_eq!(fields.required("email", string), None);
        assert_eq!(fields.errors.len(), 3);
        let error = fields.finish().unwrap_err();
        assert_eq!(error.0.status(), 422);
        assert!(error.0.to_string().contains("4 fields"), "{error}");
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
        let body = json!({"title": null, "is_active": null, "max_clicks": 3});
        let mut create = fields(body.clone());
        let new = LinkAttributePatch::read(&mut CreateBody(&mut create));
        create.finish().unwrap();
        let limited = LinkAttributePatch { max_clicks: Some(Some(3)), ..Default::default() };
        assert_eq!(new, limited);
        let mut patch = fields(body);
        let read = LinkAttributePatch::read(&mut PatchBody(&mut patch));
        assert_eq!((read.title, read.is_active), (Some(None), None));
        let error = patch.finish().unwrap_err().0.to_string();
        assert!(error.contains("is_active: must be true or false, not null"), "{error}");
    }

    #[test]
    fn errors_of_a_nested_object_have_its_name() {
        let mut outer = fields(json!({"change": {"title": 7, "no_such": 1}}));
        let mut inner = outer.required("change", members).unwrap();
        assert_eq!(inner.optional("title", string), None);
        outer.absorb("change", inner);
        let named: Vec<_> = outer.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(named, ["change.title", "change.no_such"]);
        assert!(outer.finish().is_err());
    }
}
