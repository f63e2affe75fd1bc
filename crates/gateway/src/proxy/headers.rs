//! Chooses the headers that are forwarded, in both directions.
//!
//! Invariants:
//! - Hop-by-hop headers (RFC 9110 §7.6.1) are dropped, including those that `Connection` names.
//! - Credentials and all `X-Linnet-…` headers are dropped. The proxy sets the identity headers
//!   afterwards.

use actix_web::http::header as actix;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use linnet_protocol::identity::HEADER_PREFIX;

/// Dropped in both directions.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Dropped from requests: credentials, headers that the proxy sets itself, and headers that the HTTP
/// client writes.
const DROPPED_FROM_REQUESTS: [&str; 13] = [
    "authorization",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "traceparent",
    "x-api-key",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// Dropped from responses: headers that the HTTP server writes, and headers that reveal software.
const DROPPED_FROM_RESPONSES: [&str; 5] =
    ["content-length", "date", "server", "x-powered-by", "x-request-id"];

/// The request headers of a client that are forwarded to a shortener.
pub(super) fn for_upstream(incoming: &actix::HeaderMap) -> HeaderMap {
    let connection =
        ConnectionHeaders::parse(incoming.get_all("connection").filter_map(|v| v.to_str().ok()));
    let mut headers = HeaderMap::with_capacity(incoming.len() + 8);
    for (name, value) in incoming {
        let text = name.as_str();
        if is_dropped_always(text)
            || DROPPED_FROM_REQUESTS.contains(&text)
            || connection.contains(text)
        {
            continue;
        }
        let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(text.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        else {
            continue;
        };
        headers.append(name, value);
    }
    headers
}

/// Copies the response headers of a shortener that are forwarded to the client.
pub(super) fn for_client(response: &HeaderMap, outgoing: &mut actix::HeaderMap) {
    let values = response.get_all("connection").iter();
    let connection = ConnectionHeaders::parse(values.filter_map(|v| v.to_str().ok()));
    for (name, value) in response {
        let text = name.as_str();
        if is_dropped_always(text)
            || DROPPED_FROM_RESPONSES.contains(&text)
            || connection.contains(text)
        {
            continue;
        }
        let (Ok(name), Ok(value)) = (
            actix::HeaderName::from_bytes(text.as_bytes()),
            actix::HeaderValue::from_maybe_shared(Bytes::copy_from_slice(value.as_bytes())),
        ) else {
            continue;
        };
        outgoing.append(name, value);
    }
}

fn is_dropped_always(name: &str) -> bool {
    name.starts_with(HEADER_PREFIX) || HOP_BY_HOP.contains(&name)
}

/// The headers that `Connection` names.
struct ConnectionHeaders<'a>(Vec<&'a str>);

impl<'a> ConnectionHeaders<'a> {
    fn parse(connection: impl Iterator<Item = &'a str>) -> Self {
        Self(connection.flat_map(|value| value.split(',')).map(str::trim).collect())
    }

    fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|header| header.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(pairs: &[(&str, &str)]) -> actix::HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    actix::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    actix::HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn must_14_identity_headers_of_a_client_are_not_forwarded() {
        let headers = for_upstream(&incoming(&[
            ("X-Linnet-User-Id", "1"),
            ("x-linnet-anything", "1"),
            ("X-Linnet-Service-Token", "guess"),
            ("authorization", "Bearer x"),
            ("x-api-key", "x"),
            ("x-real-ip", "1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("host", "evil"),
            ("content-type", "application/json"),
            ("idempotency-key", "k"),
        ]));
        assert_eq!(names(&headers), ["content-type", "idempotency-key"]);
    }

    #[test]
    fn hop_by_hop_headers_and_those_that_connection_names_are_dropped() {
        let headers = for_upstream(&incoming(&[
            ("connection", "close, X-Private"),
            ("connection", "x-other"),
            ("x-private", "1"),
            ("x-other", "1"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("accept", "a"),
            ("accept", "b"),
        ]));
        assert_eq!(names(&headers), ["accept"]);
        assert_eq!(headers.get_all("accept").iter().count(), 2);
    }

    #[test]
    fn internal_response_headers_are_dropped() {
        let mut response = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-inner"),
            ("x-inner", "1"),
            ("server", "s"),
            ("x-linnet-secret", "1"),
            ("location", "/a"),
            ("link", "<a>"),
        ] {
            response.append(name, HeaderValue::from_static(value));
        }
        let mut outgoing = actix::HeaderMap::new();
        for_client(&response, &mut outgoing);
        let mut names: Vec<_> = outgoing.keys().map(actix::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["link", "location"]);
    }
}
