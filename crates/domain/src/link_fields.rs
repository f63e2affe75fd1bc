//! The table of the link fields that a caller may set, other than the short code and the target.
//!
//! The API's create, patch and bulk patch, the columns of imports and exports, the OpenAPI schemas and the details of
//! `updated` events derive from the table. The SQL statements in `linnet_store` name each column, so that the
//! compiler checks them. CONTRIBUTING.md has the steps that add a field.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    RedirectStatus,
    rules::{Boolean, FutureTime, Positive, Rule, Text, ValueSchema},
};

/// The declaration of one field.
#[derive(Debug, Clone, Copy)]
pub struct LinkField {
    /// The name in the API, in files and in the database.
    pub name: &'static str,
    /// One sentence for documents.
    pub description: &'static str,
    /// The accepted values.
    pub schema: ValueSchema,
    /// Whether `null` in a patch, or an empty cell in an import, resets the field to its default.
    pub clearable: bool,
    /// Whether a file may have it as a column.
    pub importable: bool,
    /// Whether exports have it as a column.
    pub exportable: bool,
}

/// The value of one field in an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldInput<T> {
    /// The input does not have the field, or its value is not valid. The source keeps the violation.
    Absent,
    /// The input resets the field to its default.
    Cleared,
    /// A valid value.
    Value(T),
}

/// Input from which [`LinkAttributePatch::read`] takes fields: a JSON body or a row of a file.
pub trait FieldSource {
    /// Reads one field by its rule.
    fn read<R: Rule>(&mut self, field: &LinkField) -> FieldInput<R::Value>;
}

/// A row of the table: `name: type of the struct's field { rule: …, default: …, flags }`.
macro_rules! link_fields {
    ($(
        #[doc = $description:literal]
        $name:ident: $type:ty {
            rule: $rule:ty,
            default: $default:expr,
            clearable: $clearable:literal,
            importable: $importable:literal,
            exportable: $exportable:literal,
        }
    )+) => {
        /// The fields of the table.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        pub struct LinkAttributes {
            $( #[doc = $description] pub $name: $type, )+
        }

        impl Default for LinkAttributes {
            fn default() -> Self {
                Self { $( $name: $default, )+ }
            }
        }

        /// A change of [`LinkAttributes`]. `None` keeps the value of a field.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct LinkAttributePatch {
            $( #[doc = $description] pub $name: Option<$type>, )+
        }

        impl LinkAttributePatch {
            /// Reads each field of the table.
            pub fn read(source: &mut impl FieldSource) -> Self {
                Self {
                    $( $name: match source.read::<$rule>(&FIELDS.$name) {
                        FieldInput::Absent => None,
                        FieldInput::Cleared => Some($default),
                        FieldInput::Value(value) => Some(value.into()),
                    }, )+
                }
            }

            /// The attributes of a new link: defaults for the fields that the patch does not set.
            pub fn or_default(self) -> LinkAttributes {
                LinkAttributes { $( $name: self.$name.unwrap_or($default), )+ }
            }

            /// The fields that the patch sets with their new values, for an `updated` event.
            pub fn details(&self) -> Map<String, Value> {
                let mut details = Map::new();
                $( if let Some(value) = &self.$name {
                    details.insert(stringify!($name).to_owned(), value.event_value());
                } )+
                details
            }
        }

        struct Fields {
            $( $name: LinkField, )+
        }

        const FIELDS: Fields = Fields {
            $( $name: LinkField {
                name: stringify!($name),
                description: $description.trim_ascii_start(),
                schema: <$rule as Rule>::SCHEMA,
                clearable: $clearable,
                importable: $importable,
                exportable: $exportable,
            }, )+
        };

        impl LinkField {
            /// The table, in the order of the columns of imports and exports.
            pub const ALL: &'static [Self] = &[$( FIELDS.$name, )+];
        }
    };
}

link_fields! {
    /// A label for lists and searches.
    title: Option<String> {
        rule: Text<500>,
        default: None,
        clearable: true,
        importable: true,
        exportable: true,
    }
    /// Whether the link redirects.
    is_active: bool {
        rule: Boolean,
        default: true,
        clearable: false,
        importable: true,
        exportable: true,
    }
    /// The status of the redirect: 301, 302, 307 or 308.
    redirect_status: RedirectStatus {
        rule: RedirectStatus,
        default: RedirectStatus::Found,
        clearable: false,
        importable: true,
        exportable: true,
    }
    /// The time after which the link no longer redirects. A new value is in the future.
    expires_at: Option<DateTime<Utc>> {
        rule: FutureTime,
        default: None,
        clearable: true,
        importable: true,
        exportable: true,
    }
    /// The number of clicks after which the link no longer redirects.
    max_clicks: Option<i64> {
        rule: Positive,
        default: None,
        clearable: true,
        importable: true,
        exportable: true,
    }
}

impl LinkField {
    /// The default as JSON; `None` when the default is null.
    pub fn default_value(&self) -> Option<Value> {
        let defaults = serde_json::to_value(LinkAttributes::default()).ok()?;
        defaults.get(self.name).filter(|value| !value.is_null()).cloned()
    }
}

/// The form of a value in the details of an event.
trait EventValue {
    fn event_value(&self) -> Value;
}

impl EventValue for bool {
    fn event_value(&self) -> Value {
        json!(self)
    }
}

impl EventValue for i64 {
    fn event_value(&self) -> Value {
        json!(self)
    }
}

impl EventValue for String {
    fn event_value(&self) -> Value {
        json!(self)
    }
}

impl EventValue for RedirectStatus {
    fn event_value(&self) -> Value {
        json!(self)
    }
}

impl EventValue for DateTime<Utc> {
    fn event_value(&self) -> Value {
        self.to_rfc3339().into()
    }
}

impl<T: EventValue> EventValue for Option<T> {
    fn event_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::event_value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clears each field that can be cleared.
    struct Clearing;

    impl FieldSource for Clearing {
        fn read<R: Rule>(&mut self, field: &LinkField) -> FieldInput<R::Value> {
            if field.clearable { FieldInput::Cleared } else { FieldInput::Absent }
        }
    }

    #[test]
    fn a_patch_distinguishes_absent_fields_from_cleared_ones() {
        let patch = LinkAttributePatch::read(&mut Clearing);
        assert_eq!((&patch.title, patch.is_active), (&Some(None), None));
        let clearable = LinkField::ALL.iter().filter(|field| field.clearable);
        let cleared: Map<String, Value> =
            clearable.map(|field| (field.name.to_owned(), Value::Null)).collect();
        assert_eq!(patch.details(), cleared);
        assert_eq!(patch.or_default(), LinkAttributes::default());
    }

    #[test]
    fn names_and_defaults_are_those_of_the_serialized_struct() {
        let Value::Object(defaults) = json!(LinkAttributes::default()) else { panic!("a struct") };
        let mut names: Vec<&str> = LinkField::ALL.iter().map(|field| field.name).collect();
        names.sort_unstable();
        assert!(defaults.keys().eq(names.iter()), "{names:?}");
        for field in LinkField::ALL {
            assert_eq!(field.default_value().is_none(), field.clearable, "{}", field.name);
        }
    }

    #[test]
    fn details_of_a_patch_are_its_new_values() {
        let patch = LinkAttributePatch {
            title: Some(Some("Ops".into())),
            is_active: Some(false),
            redirect_status: Some(RedirectStatus::PermanentRedirect),
            expires_at: Some("2027-01-31T12:00:00Z".parse().ok()),
            max_clicks: Some(Some(7)),
        };
        let expected = json!({
            "title": "Ops",
            "is_active": false,
            "redirect_status": 308,
            "expires_at": "2027-01-31T12:00:00+00:00",
            "max_clicks": 7,
        });
        assert_eq!(Value::Object(patch.details()), expected);
        assert_eq!(LinkAttributePatch::default().details(), Map::new());
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let default = |name: &str| {
            let field = LinkField::ALL.iter().find(|field| field.name == name).unwrap();
            field.default_value()
        };
        assert_eq!(default("is_active"), Some(json!(true)));
        assert_eq!(default("redirect_status"), Some(json!(302)));
        assert_eq!(default("title"), None);
    }
}
