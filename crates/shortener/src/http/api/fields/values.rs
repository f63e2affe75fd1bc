//! The rules for values that only the API has: ids, lists of ids, targets, codes, addresses, and details.

use std::{collections::HashSet, fmt::Display, hash::Hash, marker::PhantomData};

use linnet_domain::{
    Email, EventDetails, MAX_TARGET_BYTES, ShortCode, TargetUrl, host_name,
    rules::{Positive, Rule, Violation, string},
};
use serde_json::{Value, json};
use utoipa::openapi::{
    ArrayBuilder, KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type, schema::SchemaType,
};

use super::{
    super::super::link_schemas::of_type,
    Node, Shape,
    declare::{BodyRule, ReadContext},
};

/// An id.
pub(crate) struct Id<I>(PhantomData<I>);

impl<I: TryFrom<i64>> BodyRule for Id<I> {
    type Value = I;

    fn read(node: Node, _: &ReadContext<'_>) -> Result<I, Violation> {
        id(node.into_value())
    }

    fn schema(is_nullable: bool, description: &str) -> RefOr<Schema> {
        of_type(Type::Integer, Some(KnownFormat::Int64), is_nullable)
            .minimum(Some(1))
            .description(Some(description))
            .into()
    }
}

fn id<I: TryFrom<i64>>(value: Value) -> Result<I, Violation> {
    let number = Positive::from_json(value)?;
    I::try_from(number).map_err(|_| Violation::out_of_range(Positive::RULE))
}

/// 1 to `MAX` different ids.
pub(crate) struct Ids<I, const MAX: usize>(PhantomData<I>);

impl<I, const MAX: usize> BodyRule for Ids<I, MAX>
where
    I: TryFrom<i64> + Copy + Eq + Hash + Display,
{
    type Value = Vec<I>;
    const SHAPE: Shape = Shape::List { max_items: MAX };

    fn read(node: Node, _: &ReadContext<'_>) -> Result<Vec<I>, Violation> {
        ids(node.into_value(), MAX)
    }

    fn schema(_: bool, description: &str) -> RefOr<Schema> {
        let id = of_type(Type::Integer, Some(KnownFormat::Int64), false).minimum(Some(1));
        let array = ArrayBuilder::new()
            .description(Some(description))
            .items(id)
            .min_items(Some(1))
            .max_items(Some(MAX))
            .unique_items(true);
        RefOr::T(Schema::Array(array.build()))
    }
}

fn ids<I>(value: Value, max: usize) -> Result<Vec<I>, Violation>
where
    I: TryFrom<i64> + Copy + Eq + Hash + Display,
{
    let items = match value {
        Value::Array(items) => items,
        other => return Err(Violation::wrong_type("an array", &other)),
    };
    if items.is_empty() || items.len() > max {
        return Err(Violation::out_of_range(format!("must have from 1 to {max} ids")));
    }
    let mut ids = Vec::with_capacity(items.len());
    let mut seen = HashSet::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let place = index + 1;
        let id: I = id(item).map_err(|Violation { code, message }| {
            Violation::new(code, format!("{message} (item {place})"))
        })?;
        if !seen.insert(id) {
            let rule = format!("must have each id only once: {id} is repeated (item {place})");
            return Err(Violation::new("repeated", rule));
        }
        ids.push(id);
    }
    Ok(ids)
}

/// A target URL that the installation accepts.
pub(crate) struct Target;

impl BodyRule for Target {
    type Value = TargetUrl;

    fn read(node: Node, context: &ReadContext<'_>) -> Result<TargetUrl, Violation> {
        context.targets.parse(&string(node.into_value())?).map_err(Violation::invalid)
    }

    fn schema(is_nullable: bool, description: &str) -> RefOr<Schema> {
        text(is_nullable, description)
            .format(Some(SchemaFormat::Custom("uri".to_owned())))
            .max_length(Some(MAX_TARGET_BYTES))
            .examples([json!("https://example.com/a/long/path")])
            .into()
    }
}

/// A chosen short code.
pub(crate) struct CustomCode;

impl BodyRule for CustomCode {
    type Value = ShortCode;

    fn read(node: Node, _: &ReadContext<'_>) -> Result<ShortCode, Violation> {
        ShortCode::parse(&string(node.into_value())?).map_err(Violation::invalid)
    }

    fn schema(is_nullable: bool, description: &str) -> RefOr<Schema> {
        text(is_nullable, description)
            .min_length(Some(3))
            .max_length(Some(64))
            .pattern(Some("^[0-9A-Za-z_-]{3,64}$"))
            .into()
    }
}

/// A host name or an address without scheme, port and path.
pub(crate) struct HostName;

impl BodyRule for HostName {
    type Value = String;

    fn read(node: Node, _: &ReadContext<'_>) -> Result<String, Violation> {
        host_name(&string(node.into_value())?).map_err(Violation::invalid)
    }

    fn schema(is_nullable: bool, description: &str) -> RefOr<Schema> {
        text(is_nullable, description)
            .format(Some(SchemaFormat::Custom("host".to_owned())))
            .min_length(Some(1))
            .max_length(Some(253))
            .into()
    }
}

/// An e-mail address.
pub(crate) struct EmailAddress;

impl BodyRule for EmailAddress {
    type Value = Email;

    fn read(node: Node, _: &ReadContext<'_>) -> Result<Email, Violation> {
        Email::parse(&string(node.into_value())?).map_err(Violation::invalid)
    }

    fn schema(is_nullable: bool, description: &str) -> RefOr<Schema> {
        text(is_nullable, description)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Email)))
            .max_length(Some(254))
            .into()
    }
}

/// The details of an event.
pub(crate) struct Details;

impl BodyRule for Details {
    type Value = EventDetails;
    const SHAPE: Shape = Shape::Details;

    fn read(node: Node, _: &ReadContext<'_>) -> Result<EventDetails, Violation> {
        match node {
            Node::Details(details) => details,
            other => Err(Violation::wrong_type("an object", &other.into_value())),
        }
    }

    fn schema(is_nullable: bool, description: &str) -> RefOr<Schema> {
        of_type(Type::Object, None, is_nullable).description(Some(description)).into()
    }
}

fn text(is_nullable: bool, description: &str) -> ObjectBuilder {
    let kind = if is_nullable {
        SchemaType::from_iter([Type::String, Type::Null])
    } else {
        SchemaType::new(Type::String)
    };
    ObjectBuilder::new().schema_type(kind).description(Some(description))
}

#[cfg(test)]
mod tests {
    use linnet_domain::LinkId;

    use super::*;

    #[test]
    fn ids_are_positive_different_and_bounded() {
        assert_eq!(ids(json!([3, 1, 2]), 3), Ok(vec![3, 1, 2]));
        for (bad, code) in [
            (json!([]), "out_of_range"),
            (json!([1, 2, 3, 4]), "out_of_range"),
            (json!([1, 2, 1]), "repeated"),
            (json!([1, 1.0]), "repeated"),
            (json!([0]), "out_of_range"),
            (json!(["1"]), "wrong_type"),
            (json!([null]), "wrong_type"),
            (json!(1), "wrong_type"),
            (json!({"0": 1}), "wrong_type"),
        ] {
            assert_eq!(ids::<LinkId>(bad.clone(), 3).unwrap_err().code, code, "{bad}");
        }
    }
}
