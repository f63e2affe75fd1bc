//! The query string of a request, and the readers of its values.

use std::{collections::HashSet, rc::Rc};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use linnet_domain::rules::{Boolean, Positive, Violation, string};
use linnet_protocol::problem::Problem;
use serde_json::Value;

use super::{
    super::super::error::{ApiError, field_error},
    Fields,
    json::Node,
};

/// The parameters of the query string, as [`Fields`] of strings. An empty one, as forms send it, is the same as an
/// absent one.
#[derive(Debug)]
pub(crate) struct QueryFields {
    pub(in super::super) fields: Fields,
    /// The parameters as sent, for `Link` headers.
    pub(in super::super) pairs: Rc<[(String, String)]>,
}

impl FromRequest for QueryFields {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(Self::parse(request.query_string()))
    }
}

impl QueryFields {
    /// Reads a query string.
    pub(in super::super) fn parse(query: &str) -> Result<Self, ApiError> {
        // The parser below replaces invalid bytes with U+FFFD instead of failing.
        if std::str::from_utf8(&percent_decoded(query)).is_err() {
            let error = field_error("query", "invalid", "must be valid UTF-8");
            return Err(Problem::invalid(vec![error]).into());
        }
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut fields = Fields::default();
        let mut names = HashSet::new();
        for (name, value) in &pairs {
            if names.insert(name) {
                fields.insert(name, Node::Value(text_or_null(value)));
            } else {
                fields.add_repeated(name);
            }
        }
        Ok(Self { fields, pairs: pairs.into() })
    }
}

/// A value of a query or a form; null is the same as absent.
pub(in super::super) fn text_or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match rest {
            [b'%', high, low, ..] => {
                char::from(*high).to_digit(16).zip(char::from(*low).to_digit(16))
            }
            _ => None,
        };
        match escaped.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                decoded.push(first);
                rest = after;
            }
        }
    }
    decoded
}

/// A whole number in its plain spelling: "+7" and "007" are not numbers.
pub(in super::super) fn query_number(value: Value) -> Result<Option<i64>, Violation> {
    let text = string(value)?;
    Ok(text.parse::<i64>().ok().filter(|number| number.to_string() == text))
}

/// A whole number of at least 1.
pub(in super::super) fn query_positive(value: Value) -> Result<i64, Violation> {
    let number = query_number(value)?.filter(|number| *number > 0);
    number.ok_or_else(|| Violation::invalid(Positive::RULE))
}

/// An id.
pub(in super::super) fn query_id<I: TryFrom<i64>>(value: Value) -> Result<I, Violation> {
    let number = query_positive(value)?;
    I::try_from(number).map_err(|_| Violation::invalid(Positive::RULE))
}

/// `true` or `false`, in the spellings that clients use.
pub(in super::super) fn query_boolean(value: Value) -> Result<bool, Violation> {
    match string(value)?.as_str() {
        "true" | "True" | "1" => Ok(true),
        "false" | "False" | "0" => Ok(false),
        _ => Err(Violation::invalid(Boolean::RULE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_parameters_are_absent_and_unknown_ones_are_errors() {
        let mut query = QueryFields::parse("search=&limit=5&user_id=").unwrap();
        assert_eq!(query.fields.optional("search", string), None);
        assert_eq!(query.fields.optional("user_id", query_positive), None);
        assert_eq!(query.fields.optional("limit", query_positive), Some(5));
        assert!(query.fields.finish().is_ok());
        for bad in
            ["no_such=", "no_such", "search=a&search=", "search=&search=", "search=&search=a"]
        {
            let mut query = QueryFields::parse(bad).unwrap();
            query.fields.optional("search", string);
            assert!(query.fields.finish().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_query_that_is_not_utf_8_is_rejected() {
        for bad in ["search=%ff", "%c3=1", "search=%c3%28", "a=1&b=%ed%a0%80"] {
            assert!(QueryFields::parse(bad).is_err(), "{bad}");
        }
        for good in ["", "search=%C3%a4", "search=100%", "search=%zz", "a=%00"] {
            assert!(QueryFields::parse(good).is_ok(), "{good}");
        }
    }
}
