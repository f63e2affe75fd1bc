//! Declares bodies: one struct from which the reader and the OpenAPI schema derive.
//!
//! * A field is `name: Presence<Rule>`. The presence defines what an absent field and null mean, the rule which values are
//!   accepted.
//! * [`Body::member`] lists what the body knows. Nothing else is built in memory.

use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use linnet_domain::{
    LinkField, TargetPolicy,
    rules::{Rule, Violation},
};
use utoipa::{
    ToSchema,
    openapi::{Ref, RefOr, Schema},
};

use super::{
    super::super::link_schemas::input,
    Fields, Member, Shape,
    json::{FindMember, Node},
    read_rule,
};

/// The context in which rules check values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadContext<'a> {
    /// The accepted target URLs.
    pub(super) targets: &'a TargetPolicy,
    /// The time of the request.
    pub(super) now: DateTime<Utc>,
}

impl ReadContext<'_> {
    /// The time of the request.
    pub(in super::super) fn now(&self) -> DateTime<Utc> {
        self.now
    }
}

/// A declared body.
pub(crate) trait Body: Sized {
    /// Finds a known member.
    fn member(name: &str) -> Option<Member>;

    /// Reads the fields. `None` means that `fields` has an error.
    fn read(fields: &mut Fields, context: &ReadContext<'_>) -> Option<Self>;
}

/// The accepted values of a field of a body.
pub(crate) trait BodyRule {
    /// The value of accepted input.
    type Value;
    /// The part of the JSON value that [`BodyRule::read`] needs.
    const SHAPE: Shape = Shape::Scalar;

    /// Reads a value.
    fn read(node: Node, context: &ReadContext<'_>) -> Result<Self::Value, Violation>;

    /// The schema of the accepted values.
    fn schema(is_nullable: bool, description: &str) -> RefOr<Schema>;

    /// The schemas to which [`BodyRule::schema`] refers.
    fn referenced() -> Vec<(String, RefOr<Schema>)> {
        Vec::new()
    }
}

impl<R: Rule> BodyRule for R {
    type Value = R::Value;

    fn read(node: Node, context: &ReadContext<'_>) -> Result<R::Value, Violation> {
        read_rule::<R>(node.into_value(), context.now)
    }

    fn schema(is_nullable: bool, description: &str) -> RefOr<Schema> {
        input(R::SCHEMA, is_nullable, description)
    }
}

/// A rule, and what an absent field and null mean.
pub(crate) trait BodyField {
    /// The type of the field.
    type Value;
    /// The part of the JSON value that is read.
    const SHAPE: Shape;
    /// Whether the schema lists the field as required.
    const IS_REQUIRED: bool;

    /// Reads the field. `None` means that `fields` has an error.
    fn read(
        fields: &mut Fields,
        name: &'static str,
        context: &ReadContext<'_>,
    ) -> Option<Self::Value>;

    /// The schema of the field.
    fn schema(description: &str) -> RefOr<Schema>;

    /// The schemas to which [`BodyField::schema`] refers.
    fn referenced() -> Vec<(String, RefOr<Schema>)>;
}

/// A field that must be present; null is an error.
pub(crate) struct Required<R>(PhantomData<R>);

/// A field that may be absent or null.
pub(crate) struct Optional<R>(PhantomData<R>);

/// A field of a patch that may be absent; null is an error.
pub(crate) struct Change<R>(PhantomData<R>);

/// A nested body that must be present.
pub(crate) struct RequiredBody<B>(PhantomData<B>);

impl<R: BodyRule> BodyField for Required<R> {
    type Value = R::Value;
    const SHAPE: Shape = R::SHAPE;
    const IS_REQUIRED: bool = true;

    fn read(
        fields: &mut Fields,
        name: &'static str,
        context: &ReadContext<'_>,
    ) -> Option<R::Value> {
        match fields.take(name) {
            None => {
                fields.add_error(name, &Violation::required());
                None
            }
            Some(node) => fields.read(name, node, |node| R::read(node, context)),
        }
    }

    fn schema(description: &str) -> RefOr<Schema> {
        R::schema(false, description)
    }

    fn referenced() -> Vec<(String, RefOr<Schema>)> {
        R::referenced()
    }
}

impl<R: BodyRule> BodyField for Optional<R> {
    type Value = Option<R::Value>;
    const SHAPE: Shape = R::SHAPE;
    const IS_REQUIRED: bool = false;

    fn read(
        fields: &mut Fields,
        name: &'static str,
        context: &ReadContext<'_>,
    ) -> Option<Self::Value> {
        match fields.take(name) {
            None | Some(Node::Value(serde_json::Value::Null)) => Some(None),
            Some(node) => fields.read(name, node, |node| R::read(node, context)).map(Some),
        }
    }

    fn schema(description: &str) -> RefOr<Schema> {
        R::schema(true, description)
    }

    fn referenced() -> Vec<(String, RefOr<Schema>)> {
        R::referenced()
    }
}

impl<R: BodyRule> BodyField for Change<R> {
    type Value = Option<R::Value>;
    const SHAPE: Shape = R::SHAPE;
    const IS_REQUIRED: bool = false;

    fn read(
        fields: &mut Fields,
        name: &'static str,
        context: &ReadContext<'_>,
    ) -> Option<Self::Value> {
        match fields.take(name) {
            None => Some(None),
            Some(node) => fields.read(name, node, |node| R::read(node, context)).map(Some),
        }
    }

    fn schema(description: &str) -> RefOr<Schema> {
        R::schema(false, description)
    }

    fn referenced() -> Vec<(String, RefOr<Schema>)> {
        R::referenced()
    }
}

impl<B: Body + ToSchema> BodyField for RequiredBody<B> {
    type Value = B;
    const SHAPE: Shape = Shape::Object(B::member as FindMember);
    const IS_REQUIRED: bool = true;

    fn read(fields: &mut Fields, name: &'static str, context: &ReadContext<'_>) -> Option<B> {
        match fields.take(name) {
            None => fields.add_error(name, &Violation::required()),
            Some(Node::Object(mut inner)) => {
                let body = B::read(&mut inner, context);
                fields.absorb(name, inner);
                return body;
            }
            Some(other) => {
                let violation = Violation::wrong_type("an object", &other.into_value());
                fields.add_error(name, &violation);
            }
        }
        None
    }

    fn schema(description: &str) -> RefOr<Schema> {
        let mut reference = Ref::from_schema_name(B::name());
        description.clone_into(&mut reference.description);
        RefOr::Ref(reference)
    }

    fn referenced() -> Vec<(String, RefOr<Schema>)> {
        let mut schemas = vec![(B::name().into_owned(), B::schema())];
        B::schemas(&mut schemas);
        schemas
    }
}

/// The member of a link's field in the table of the domain.
pub(crate) fn link_member(name: &str) -> Option<Member> {
    let field = LinkField::ALL.iter().find(|field| field.name == name)?;
    Some(Member { name: field.name, shape: Shape::Scalar })
}

/// Declares a body: `struct Name as "NameInTheDocument" { field: Presence<Rule>, … }`, and optionally
/// `with attributes from Source` for the fields of a link, whose schemas `LinkSchemas` adds.
macro_rules! body {
    (
        $(#[doc = $doc:literal])+
        $vis:vis struct $name:ident as $schema:literal {
            $( $(#[doc = $field_doc:literal])+ $field:ident: $presence:ty, )+
        }
        $( with $attributes:ident from $source:ident )?
    ) => {
        $(#[doc = $doc])+
        $vis struct $name {
            $(
                $(#[doc = $field_doc])+
                $vis $field: <$presence as $crate::http::api::fields::declare::BodyField>::Value,
            )+
            $(
                /// The fields of the table of link fields.
                $vis $attributes: ::linnet_domain::LinkAttributePatch,
            )?
        }

        impl $crate::http::api::fields::declare::Body for $name {
            fn member(name: &str) -> Option<$crate::http::api::fields::Member> {
                use $crate::http::api::fields::{Member, declare::BodyField};
                const MEMBERS: &[Member] = &[
                    $( Member { name: stringify!($field), shape: <$presence as BodyField>::SHAPE }, )+
                ];
                let own = MEMBERS.iter().find(|member| member.name == name).copied();
                $(
                    let _: fn(&Self) -> &::linnet_domain::LinkAttributePatch = |body| &body.$attributes;
                    let own = own.or_else(|| $crate::http::api::fields::declare::link_member(name));
                )?
                own
            }

            fn read(
                fields: &mut $crate::http::api::fields::Fields,
                context: &$crate::http::api::fields::declare::ReadContext<'_>,
            ) -> Option<Self> {
                use $crate::http::api::fields::declare::BodyField;
                $( let $field = <$presence as BodyField>::read(fields, stringify!($field), context); )+
                $(
                    let mut source =
                        $crate::http::api::fields::$source { fields, now: context.now() };
                    let $attributes = ::linnet_domain::LinkAttributePatch::read(&mut source);
                )?
                Some(Self { $( $field: $field?, )+ $( $attributes, )? })
            }
        }

        impl ::utoipa::PartialSchema for $name {
            fn schema() -> ::utoipa::openapi::RefOr<::utoipa::openapi::Schema> {
                use $crate::http::api::fields::declare::{BodyField, description};
                let object = ::utoipa::openapi::ObjectBuilder::new()
                    .schema_type(::utoipa::openapi::Type::Object)
                    .description(Some(description(&[$( $doc ),+])))
                    .additional_properties(Some(
                        ::utoipa::openapi::schema::AdditionalProperties::FreeForm(false),
                    ));
                $(
                    let object = object.property(
                        stringify!($field),
                        <$presence as BodyField>::schema(&description(&[$( $field_doc ),+])),
                    );
                    let object = if <$presence as BodyField>::IS_REQUIRED {
                        object.required(stringify!($field))
                    } else {
                        object
                    };
                )+
                object.into()
            }
        }

        impl ::utoipa::ToSchema for $name {
            fn name() -> ::std::borrow::Cow<'static, str> {
                $schema.into()
            }

            fn schemas(
                schemas: &mut Vec<(String, ::utoipa::openapi::RefOr<::utoipa::openapi::Schema>)>,
            ) {
                use $crate::http::api::fields::declare::BodyField;
                $( schemas.extend(<$presence as BodyField>::referenced()); )+
            }
        }
    };
}
pub(crate) use body;

/// The text of a documentation comment.
pub(crate) fn description(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines.join("\n")
}
