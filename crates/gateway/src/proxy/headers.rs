//! Which headers go on, both ways.
//!
//! Invariants:
//! - Hop-by-hop headers (RFC 9110 §7.6.1) end here, those that `Connection` names included.
//! - Credentials and everything by which processes of this installation know each other end here;
//!   what the other side is to believe is set afterwards.

use actix_web::http::header as actix;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use linnet_protocol::identity::HEADER_PREFIX;

/// Marks a problem that the gateway itself made.
pub(crate) const ORIGIN: actix::HeaderName = actix::HeaderName::from_static("x-linnet-origin");

/// End at every hop.
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

/// End here on the way in: credentials, what names the client or the request (set anew), and what
/// the HTTP client writes itself.
const NOT_INWARDS: [&str; 13] = [
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

/// End here on the way out: what the HTTP server writes itself, and what tells about the inside.
const NOT_OUTWARDS: [&str; 5] =
    ["content-length", "date", "server", "x-powered-by", "x-request-id"];

/// The client's headers, for the shortener.
pub(crate) fn inwards(incoming: &actix::HeaderMap) -> HeaderMap {
    let named = Named::by(incoming.get_all("connection").filter_map(|v| v.to_str().ok()));
    let mut headers = HeaderMap::with_capacity(incoming.len() + 8);
    for (name, value) in incoming {
        let text = name.as_str();
        if is_local(text) || NOT_INWARDS.contains(&text) || named.contains(text) {
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

/// The shortener's headers, for the client.
pub(crate) fn outwards(answer: &HeaderMap, outgoing: &mut actix::HeaderMap) {
    let named = Named::by(answer.get_all("connection").iter().filter_map(|v| v.to_str().ok()));
    for (name, value) in answer {
        let text = name.as_str();
        if is_local(text) || NOT_OUTWARDS.contains(&text) || named.contains(text) {
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

fn is_local(name: &str) -> bool {
    name.starts_with(HEADER_PREFIX) || HOP_BY_HOP.contains(&name)
}

/// The headers that `Connection` names.
struct Named<'a>(Vec<&'a str>);

impl<'a> Named<'a> {
    fn by(connection: impl Iterator<Item = &'a str>) -> Self {
        Self(connection.flat_map(|value| value.split(',')).map(str::trim).collect())
    }

    fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|named| named.eq_ignore_ascii_case(name))
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
    fn must_14_what_a_client_says_about_itself_does_not_go_on() {
        let headers = inwards(&incoming(&[
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
    fn hop_by_hop_headers_end_here_and_so_do_the_named_ones() {
        let headers = inwards(&incoming(&[
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
    fn the_answers_inside_stays_inside() {
        let mut answer = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-inner"),
            ("x-inner", "1"),
            ("server", "s"),
            ("x-linnet-secret", "1"),
            ("location", "/a"),
            ("link", "<a>"),
        ] {
            answer.append(name, HeaderValue::from_static(value));
        }
        let mut outgoing = actix::HeaderMap::new();
        outwards(&answer, &mut outgoing);
        let mut names: Vec<_> = outgoing.keys().map(actix::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["link", "location"]);
    }
}
