//! JSON bodies of the API.

use chrono::{DateTime, Utc};
use linnet_domain::EventDetails;
use linnet_protocol::{problem::Problem, problem_code::ProblemCode};
use linnet_shortener::http::api::fuzzing::{BodyKind, read_body};
use serde_json::Value;

use super::{
    assert_is_rule,
    links::{POLICIES, URL_FACTOR},
};
use crate::memory::bounded;

/// The time of every request.
pub(super) fn now() -> DateTime<Utc> {
    "2026-11-27T12:00:00Z".parse().expect("a time")
}

/// The maximum number of errors of one response: two lists of 20 unknown names, and all known fields.
const MAX_ERRORS: usize = 64;

/// Panics unless each error of a problem has a name, a code and a rule, all of bounded length.
pub(super) fn assert_names_fields(problem: &Problem) {
    assert!(problem.status().is_client_error(), "{problem}");
    let errors = problem.errors_by_field();
    assert!(!errors.is_empty() && errors.len() <= MAX_ERRORS, "{problem}");
    for error in errors {
        assert!(error.field.chars().count() <= 120, "{}", error.field);
        assert!(!error.code.is_empty());
        assert_is_rule(&error.message);
    }
}

/// A body of any route: it is malformed exactly if another parser rejects it, and its memory depends only on its
/// length.
pub(super) fn json_body(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    let kind = BodyKind::ALL[usize::from(*first) % BodyKind::ALL.len()];
    let [policy, _] = &*POLICIES;
    let result = bounded(body, 64 * 1024, 8 + URL_FACTOR, || read_body(kind, body, policy, now()));
    let value = serde_json::from_slice::<Value>(body);
    match result {
        Ok(()) => assert!(value.is_ok_and(|value| value.is_object())),
        Err(error) => {
            let problem = error.0;
            assert_names_fields(&problem);
            assert_eq!(problem.code() == ProblemCode::MalformedJson, value.is_err(), "{problem}");
        }
    }
}

/// The details of an event: they keep their meaning, and the text is within its limits and accepted again.
pub(super) fn event_details(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match bounded(input, 4_096, 16, || EventDetails::from_text(text)) {
        Ok(details) => {
            let compact = details.as_str();
            assert!(compact.len() <= EventDetails::MAX_BYTES);
            let value: Value = serde_json::from_str(compact).expect("JSON");
            assert!(value.is_object());
            let given: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(given, value, "{text}");
            let again = EventDetails::from_text(compact).expect("accepted again");
            let read: Value = serde_json::from_str(again.as_str()).expect("JSON");
            assert_eq!(read, value, "{text}");
            let stored = EventDetails::stored(compact).expect("accepted from the database");
            assert_eq!(stored.as_str(), again.as_str());
        }
        Err(violation) => {
            assert!(!violation.code.is_empty());
            assert_is_rule(&violation.message);
        }
    }
}
