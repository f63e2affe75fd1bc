//! The OpenAPI schemas of a link's fields, from the table of [`LinkField`].

use linnet_domain::{LinkField, RedirectStatus, rules::ValueSchema};
use utoipa::{
    Modify, PartialSchema, ToSchema,
    openapi::{
        KnownFormat, ObjectBuilder, OneOfBuilder, OpenApi, Ref, RefOr, Schema, SchemaFormat, Type,
        schema::{Object, SchemaType},
    },
};

/// The pattern of text that is not blank and has no control characters.
pub(super) const TEXT_PATTERN: &str =
    r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$";

/// The status of a redirect.
pub(super) struct RedirectStatusCode;

impl PartialSchema for RedirectStatusCode {
    fn schema() -> RefOr<Schema> {
        let codes = RedirectStatus::CODES.iter().copied();
        ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some(codes)).build().into()
    }
}

impl ToSchema for RedirectStatusCode {}

/// Adds the fields of the table to the schemas of links and of their input.
pub(super) struct LinkSchemas;

/// Writes the schema of a field for one use.
type PropertyOf = fn(&LinkField) -> RefOr<Schema>;

/// The property after which responses list the fields.
const BEFORE_FIELDS: &str = "original_url";

impl Modify for LinkSchemas {
    fn modify(&self, openapi: &mut OpenApi) {
        let schemas = &mut openapi.components.get_or_insert_default().schemas;
        schemas.insert("RedirectStatusCode".to_owned(), RedirectStatusCode::schema());
        let uses: [(&str, PropertyOf); 3] =
            [("UrlBody", response), ("UrlCreate", create), ("UrlPatch", patch)];
        for (name, property) in uses {
            let Some(RefOr::T(Schema::Object(object))) = schemas.get_mut(name) else { continue };
            for field in LinkField::ALL {
                object.properties.insert(field.name.to_owned(), property(field));
            }
        }
        if let Some(RefOr::T(Schema::Object(body))) = schemas.get_mut("UrlBody") {
            let at = body.required.iter().position(|name| name == BEFORE_FIELDS);
            let at = at.map_or(body.required.len(), |at| at + 1);
            let names = LinkField::ALL.iter().map(|field| field.name.to_owned());
            body.required.splice(at..at, names);
        }
    }
}

/// The field in a response, without the limits of input. Only a field that can be cleared can be null.
fn response(field: &LinkField) -> RefOr<Schema> {
    let object = match field.schema {
        ValueSchema::RedirectStatus => {
            of_type(Type::Integer, Some(KnownFormat::Int32), false).minimum(Some(0))
        }
        schema => {
            let (kind, format) = kind_of(schema);
            of_type(kind, format, field.clearable)
        }
    };
    object.description(Some(field.description)).build().into()
}

/// The field of a create: optional, and null is the same as absent.
fn create(field: &LinkField) -> RefOr<Schema> {
    let description = match field.default_value() {
        Some(default) => format!("{} Default: {default}.", field.description),
        None => field.description.to_owned(),
    };
    match field.schema {
        ValueSchema::RedirectStatus => {
            let null = ObjectBuilder::new().schema_type(Type::Null);
            let one_of = OneOfBuilder::new().item(status_reference(&description)).item(null);
            RefOr::T(Schema::OneOf(one_of.build()))
        }
        schema => input(schema, true, &description),
    }
}

/// The field of a patch.
fn patch(field: &LinkField) -> RefOr<Schema> {
    match field.schema {
        ValueSchema::RedirectStatus => status_reference(field.description).into(),
        schema => input(schema, field.clearable, field.description),
    }
}

fn status_reference(description: &str) -> Ref {
    let mut reference = Ref::from_schema_name("RedirectStatusCode");
    description.clone_into(&mut reference.description);
    reference
}

/// The schema of the accepted values of a rule.
pub(super) fn input(schema: ValueSchema, is_nullable: bool, description: &str) -> RefOr<Schema> {
    let (kind, format) = kind_of(schema);
    let object = of_type(kind, format, is_nullable).description(Some(description));
    let object = match schema {
        ValueSchema::Text { max_chars } => {
            object.min_length(Some(1)).max_length(Some(max_chars)).pattern(Some(TEXT_PATTERN))
        }
        ValueSchema::PositiveInteger => object.minimum(Some(1)),
        ValueSchema::Boolean | ValueSchema::RedirectStatus | ValueSchema::Time => object,
    };
    Object::from(object).into()
}

fn kind_of(schema: ValueSchema) -> (Type, Option<KnownFormat>) {
    match schema {
        ValueSchema::Text { .. } => (Type::String, None),
        ValueSchema::Boolean => (Type::Boolean, None),
        ValueSchema::PositiveInteger => (Type::Integer, Some(KnownFormat::Int64)),
        ValueSchema::RedirectStatus => (Type::Integer, None),
        ValueSchema::Time => (Type::String, Some(KnownFormat::DateTime)),
    }
}

pub(super) fn of_type(kind: Type, format: Option<KnownFormat>, is_nullable: bool) -> ObjectBuilder {
    let kind =
        if is_nullable { SchemaType::from_iter([kind, Type::Null]) } else { SchemaType::new(kind) };
    ObjectBuilder::new().schema_type(kind).format(format.map(SchemaFormat::KnownFormat))
}
