//! Headers of API requests, of the gateway and of tracing.

use std::{collections::HashMap, num::NonZeroU32, time::Duration};

use actix_web::{
    http::header::{HeaderMap, HeaderName, HeaderValue},
    test::TestRequest,
};
use linnet_domain::{Scope, Scopes, UserId};
use linnet_gateway::fuzzing::{forwarded, key_of, rate_headers};
use linnet_protocol::identity::{HEADER_PREFIX, Identity};
use linnet_shortener::http::api::fuzzing::read_headers;
use linnet_telemetry::trace_headers::parse_traceparent;
use opentelemetry::{
    propagation::TextMapPropagator as _,
    trace::{TraceContextExt as _, TraceState},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::{bodies::assert_names_fields, first_line};

/// The headers in lines of `name: value`. Other lines are skipped.
fn headers(lines: &str) -> HeaderMap {
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.trim().as_bytes()).ok()?))
    };
    lines.split('\n').filter_map(header).collect()
}

/// The headers that a handler reads: waits are bounded, and an accepted key or event id is accepted again when it is
/// printed.
pub(super) fn request_headers(input: &[u8]) {
    let Ok(lines) = std::str::from_utf8(input) else { return };
    let request = |lines: &str| {
        let mut request = TestRequest::post();
        for header in headers(lines) {
            request = request.append_header(header);
        }
        request.to_http_request()
    };
    let read = read_headers(&request(lines)).expect("no header rejects all others");
    if let Some(wait) = read.wait {
        assert!((Duration::from_secs(1)..=Duration::from_secs(45)).contains(&wait));
    }
    match &read.idempotency_key {
        Ok(Some(key)) => {
            assert!(
                (1..=255).contains(&key.len()) && key.bytes().all(|b| (b' '..=b'~').contains(&b))
            );
            let quoted = key.replace('\\', r"\\").replace('"', "\\\"");
            let again = read_headers(&request(&format!("Idempotency-Key: \"{quoted}\"")));
            assert_eq!(again.expect("a key").idempotency_key.ok(), Some(Some(key.clone())));
        }
        Ok(None) => {}
        Err(error) => assert_names_fields(&error.0),
    }
    match &read.last_click {
        Ok(Some(id)) => {
            let again = read_headers(&request(&format!("Last-Event-ID: {id}"))).expect("an id");
            assert_eq!(again.last_click.ok(), Some(Some(*id)));
            // An event id of one kind of stream is not valid for the other.
            assert!(read.last_job_event.is_err());
        }
        Ok(None) => assert_eq!(read.last_job_event.ok(), Some(None)),
        Err(error) => assert_names_fields(&error.0),
    }
}

/// Public id, user and scopes of a caller, then a client's headers: the shortener reads exactly this caller.
pub(super) fn identity(input: &[u8]) {
    let Some((caller, client)) = std::str::from_utf8(input).ok().and_then(|_| first_line(input))
    else {
        return;
    };
    let mut parts = caller.split(' ');
    // Ids of keys are ASCII.
    let key_id = parts.next().filter(|id| id.is_ascii()).unwrap_or_default();
    let user = parts.next().and_then(|text| text.parse::<UserId>().ok());
    let bits = parts.next().map_or(0, str::len);
    let scopes: Scopes = Scope::ALL
        .into_iter()
        .enumerate()
        .filter(|(at, _)| bits >> at & 1 == 1)
        .map(|(_, s)| s)
        .collect();
    assert_eq!(Scopes::parse(&scopes.to_string()), Some(scopes));
    let key = user.map(|user| (key_id, user));
    let Some(sent) = forwarded(&headers(client), key, scopes) else { return };
    let received: HeaderMap = sent
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_str().as_bytes()).expect("a name");
            (name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
        })
        .collect();
    let expected = Identity { user_id: user, key_id: user.map(|_| key_id.to_owned()), scopes };
    assert_eq!(Identity::from_headers(&received), expected);
    for name in sent.keys().map(http::HeaderName::as_str) {
        let is_own = ["user-id", "key-id", "scopes"]
            .iter()
            .any(|own| name == format!("{HEADER_PREFIX}{own}"));
        assert!(is_own || !name.starts_with(HEADER_PREFIX), "{name}");
        assert!(!["authorization", "cookie", "x-api-key", "x-real-ip", "host"].contains(&name));
        assert!(
            !["connection", "transfer-encoding", "te", "upgrade", "content-length"].contains(&name)
        );
    }
}

/// A query, then headers: a key is found only in its header and in its form, and a key in the query is refused.
pub(super) fn credentials(input: &[u8]) {
    let Some((query, lines)) = first_line(input) else { return };
    let found = key_of(&headers(lines), query);
    let mut parameters = url::form_urlencoded::parse(query.as_bytes());
    let is_in_url = parameters.any(|(name, _)| {
        ["api_key", "key", "access_token", "token"].iter().any(|own| name.eq_ignore_ascii_case(own))
    });
    if is_in_url {
        assert!(found.is_err(), "{query}");
    }
    if let Ok(Some((id, key))) = found {
        assert_eq!((id.len(), key.len()), (8, 56));
        assert!(key.starts_with(&format!("lnt_{id}_")) && lines.contains(&key));
    }
}

/// `traceparent`, then `tracestate`: Linnet's parser accepts no more than the parser of the SDK, and both find the same
/// ids.
pub(super) fn trace_headers(input: &[u8]) {
    let Some((parent, state)) = first_line(input) else { return };
    let carrier = HashMap::from([
        ("traceparent".to_owned(), parent.to_owned()),
        ("tracestate".to_owned(), state.to_owned()),
    ]);
    let context = TraceContextPropagator::new().extract(&carrier);
    let span = context.span();
    let span = span.span_context();
    if let Some(own) = parse_traceparent(parent) {
        assert!(span.is_valid(), "{parent}");
        assert_eq!(span.trace_id().to_string(), own.trace_id);
        assert_eq!(span.span_id().to_string(), own.parent_id);
        assert_eq!(span.is_sampled(), own.flags & 1 == 1, "{parent}");
        let canonical = format!("00-{}-{}-{:02x}", own.trace_id, own.parent_id, own.flags);
        assert!(parse_traceparent(&canonical).is_some());
    }
    if let Ok(parsed) = state.parse::<TraceState>() {
        let header = parsed.header();
        assert_eq!(header.parse::<TraceState>().expect("printed").header(), header);
    }
}

/// `RateLimit` and `RateLimit-Policy` of any policy: lists of RFC 8941 whose integers have at most 15 digits.
pub(super) fn rate_limits(input: &[u8]) {
    let number = |at: usize| {
        let bytes = input.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    let positive = |at| NonZeroU32::new(number(at)).unwrap_or(NonZeroU32::MIN);
    let more_after = Duration::new(number(12).into(), number(16) % 1_000_000_000);
    let headers = rate_headers(positive(0), positive(4), number(8), more_after);
    for (name, parameters) in [("ratelimit", ["r", "t"]), ("ratelimit-policy", ["q", "w"])] {
        let value = headers.get(name).expect("both headers").to_str().expect("ASCII");
        for item in value.split(", ") {
            let mut parts = item.split(';');
            assert_eq!(parts.next(), Some("\"key\""), "{value}");
            for wanted in parameters {
                let (key, number) =
                    parts.next().and_then(|part| part.split_once('=')).expect("a parameter");
                assert_eq!(key, wanted, "{value}");
                assert!(number.len() <= 15 && number.parse::<u64>().is_ok(), "{value}");
            }
            assert_eq!(parts.next(), None, "{value}");
        }
    }
}
