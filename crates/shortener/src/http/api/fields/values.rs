//! Readers of JSON values that only the API has: ids, lists of ids, and objects.

use std::{collections::HashSet, fmt::Display, hash::Hash};

use linnet_domain::rules::{NO_NUL_RULE, Positive, Rule, Violation};
use serde_json::{Map, Value};

use super::Fields;

/// An id.
pub(in super::super) fn id<I: TryFrom<i64>>(value: Value) -> Result<I, Violation> {
    let number = Positive::from_json(value)?;
    I::try_from(number).map_err(|_| Violation::out_of_range(Positive::RULE))
}

/// An object without NUL in its strings.
pub(in super::super) fn object(value: Value) -> Result<Map<String, Value>, Violation> {
    match value {
        Value::Object(map)
            if !map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)) =>
        {
            Ok(map)
        }
        Value::Object(_) => Err(Violation::invalid(NO_NUL_RULE)),
        other => Err(Violation::wrong_type("an object", &other)),
    }
}

/// An object whose fields are read one by one.
pub(in super::super) fn members(value: Value) -> Result<Fields, Violation> {
    match value {
        Value::Object(map) => Ok(Fields::new(map)),
        other => Err(Violation::wrong_type("an object", &other)),
    }
}

/// 1 to `max` different ids.
pub(in super::super) fn ids<I>(value: Value, max: usize) -> Result<Vec<I>, Violation>
where
    I: TryFrom<i64> + Copy + Eq + Hash + Display,
{
    let items = match value {
        Value::Array(items) => items,
        other => return Err(Violation::wrong_type("an array", &other)),
    };
    if items.is_empty() || items.len() > max {
        let rule = format!("must have from 1 to {max} ids, not {}", items.len());
        return Err(Violation::out_of_range(rule));
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

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use linnet_domain::LinkId;
    use serde_json::json;

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

    #[test]
    fn an_object_has_no_nul_at_any_depth() {
        assert!(object(json!({"a": [{"b": "\0"}]})).is_err());
        assert!(object(json!({"\0": 1})).is_err());
        assert!(object(json!({"a": [{"b": "c"}]})).is_ok());
    }
}
