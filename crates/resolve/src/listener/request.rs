//! Reads the requests of the resolve listener: the code in the path, and headers.

use std::net::IpAddr;

use actix_web::{
    HttpRequest,
    http::header::{HeaderName, HeaderValue, X_FORWARDED_FOR},
};
use linnet_domain::{MAX_CODE_LENGTH, PURPOSE_HEADERS, has_code_shape, is_speculative};
use linnet_platform::client_network::ClientNetwork;
use sha2::{Digest as _, Sha256};

/// Space for a code that was percent-encoded.
pub type CodeBuffer = [u8; MAX_CODE_LENGTH];

/// The code in a path; `None` if no code can be there. By RFC 3986, a path whose unreserved characters are
/// percent-encoded is the same path. One slash at the end is ignored. Nothing is allocated.
#[inline]
pub fn code_of<'a>(path: &'a str, buffer: &'a mut CodeBuffer) -> Option<&'a str> {
    let code = path.strip_prefix('/')?;
    if has_code_shape(code) { Some(code) } else { decode(code, buffer) }
}

#[cold]
fn decode<'a>(code: &'a str, buffer: &'a mut CodeBuffer) -> Option<&'a str> {
    let code = code.strip_suffix('/').unwrap_or(code);
    let mut bytes = code.bytes();
    let mut length = 0;
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        };
        *buffer.get_mut(length)? = byte;
        length += 1;
    }
    let code = std::str::from_utf8(buffer.get(..length)?).ok()?;
    has_code_shape(code).then_some(code)
}

#[inline]
pub(super) fn header<'a>(request: &'a HttpRequest, name: &HeaderName) -> Option<&'a HeaderValue> {
    request.headers().get(name)
}

/// The value of a header; empty without it.
#[inline]
pub(super) fn header_bytes<'a>(request: &'a HttpRequest, name: &HeaderName) -> &'a [u8] {
    header(request, name).map_or(b"", HeaderValue::as_bytes)
}

/// Whether the browser fetches before a person has asked for the page.
#[inline]
pub(super) fn is_prefetch(request: &HttpRequest) -> bool {
    const NAMES: [HeaderName; PURPOSE_HEADERS.len()] = {
        let [a, b, c, d] = PURPOSE_HEADERS;
        [
            HeaderName::from_static(a),
            HeaderName::from_static(b),
            HeaderName::from_static(c),
            HeaderName::from_static(d),
        ]
    };
    NAMES.iter().any(|name| {
        request.headers().get_all(name).any(|purpose| is_speculative(purpose.as_bytes()))
    })
}

/// The client's address. nginx overwrites the header with exactly one address.
pub(super) fn address_of(request: &HttpRequest) -> Option<IpAddr> {
    header(request, &X_FORWARDED_FOR)?.to_str().ok()?.parse().ok()
}

/// The header in which nginx names each request. nginx forwards no such header of a client.
const VISIT: HeaderName = HeaderName::from_static("x-linnet-visit");

/// A number that a repetition of the request by nginx has too, and no other request; `None` without nginx.
pub(super) fn visit_id(request: &HttpRequest) -> Option<i64> {
    let name = header(request, &VISIT)?;
    let hash = Sha256::digest(name.as_bytes());
    hash.first_chunk().map(|bytes| i64::from_be_bytes(*bytes))
}

pub(super) fn client_of(request: &HttpRequest) -> Option<ClientNetwork> {
    address_of(request).map(ClientNetwork::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_mean_the_same_have_the_same_code() {
        let longest = "x".repeat(MAX_CODE_LENGTH);
        let encoded = "%78".repeat(MAX_CODE_LENGTH);
        for (path, code) in [
            ("/abc", Some("abc")),
            ("/abc/", Some("abc")),
            ("/my%5Fcode", Some("my_code")),
            ("/my%5fcode/", Some("my_code")),
            ("/%61%62%63", Some("abc")),
            ("/a%2Db", Some("a-b")),
            (&format!("/{longest}"), Some(longest.as_str())),
            (&format!("/{encoded}/"), Some(longest.as_str())),
            (&format!("/{encoded}%78"), None),
            (&format!("/{longest}x"), None),
            ("/abc//", None),
            ("//abc", None),
            ("/abc%2F", None),
            ("/ab%2", None),
            ("/ab%", None),
            ("/ab%zz", None),
            ("/ab%+1", None),
            ("/ab%00c", None),
            ("/%2561bc", None),
            ("/%C3%A4bc", None),
            ("/a.b", None),
            ("/ab", None),
            ("/", None),
            ("", None),
            ("*", None),
        ] {
            assert_eq!(code_of(path, &mut [0; MAX_CODE_LENGTH]), code, "{path}");
        }
    }
}
