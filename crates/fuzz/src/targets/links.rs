//! Target URLs, cache entries and searches.

use std::{net::Ipv4Addr, sync::LazyLock};

use actix_web::http::header::HeaderValue;
use linnet_domain::{LinkId, LinkSearch, MAX_TARGET_BYTES, TargetPolicy};
use linnet_resolve::{CacheEntry, Redirect, Resolution};
use url::Url;

use super::assert_is_rule;
use crate::memory::bounded;

const OWN_HOSTS: [&str; 5] =
    ["lnt.example", "go.example", "xn--bcher-kva.example", "192.0.2.7", "[2001:db8::7]"];

/// One installation on the Internet, and one on the visitor's machine.
pub(super) static POLICIES: LazyLock<[TargetPolicy; 2]> = LazyLock::new(|| {
    let schemes = ["http".to_owned(), "https".to_owned()];
    let own = OWN_HOSTS.map(ToOwned::to_owned);
    [("https://lnt.example", &own[..]), ("http://localhost:8080", &[])]
        .map(|(base, own)| TargetPolicy::new(&schemes, base, own).expect("valid hosts"))
});

/// Bytes that the `url` crate allocates at most for each byte of a URL. Its list of a host's labels, 24 bytes each, is
/// copied when it doubles, and a label may be empty: 72 bytes for each dot. Its characters take 12.
pub(super) const URL_FACTOR: usize = 96;

/// A target URL: the stored text is accepted again unchanged, is a valid header, leads to no host of the installation,
/// and passes through L2 unchanged.
pub(super) fn target_url(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let [public, local] = &*POLICIES;
    let policy = if first % 2 == 0 { public } else { local };
    let target = match bounded(rest, 8_192, URL_FACTOR, || policy.parse(text)) {
        Ok(target) => target,
        Err(error) => return assert_is_rule(&error.to_string()),
    };
    let stored = target.as_str();
    assert!(stored.is_ascii() && stored.len() <= MAX_TARGET_BYTES, "{stored}");
    assert!(stored.bytes().all(|byte| byte.is_ascii_graphic()), "{stored}");
    assert_eq!(policy.parse(stored).as_ref(), Ok(&target));
    let url = Url::parse(stored).expect("a stored target is a URL");
    assert!(matches!(url.scheme(), "http" | "https"));
    assert!(url.username().is_empty() && url.password().is_none());
    let host = url.host_str().expect("a host").trim_end_matches('.').to_lowercase();
    assert!(!host.is_empty());
    if first % 2 == 0 {
        assert!(!OWN_HOSTS.contains(&host.as_str()), "{stored}");
    } else {
        assert!(host != "localhost" && !host.ends_with(".localhost"), "{stored}");
        let address = host.parse::<Ipv4Addr>();
        assert!(!address.is_ok_and(|v4| v4.is_loopback() || v4.is_unspecified()), "{stored}");
        assert!(host != "[::1]" && host != "[::]", "{stored}");
    }
    let redirect = Redirect::new(stored, 302, None, LinkId::MIN).expect("a header");
    assert_eq!(redirect.location, HeaderValue::from_str(stored).expect("a header"));
    let entry = CacheEntry { version: 1, resolution: Resolution::Redirect(redirect) };
    assert_eq!(CacheEntry::decode(&entry.encode()), Some(entry));
}

/// An entry of L2: it has one spelling, except the negative entries of other releases.
pub(super) fn cache_entry(input: &[u8]) {
    let Some(entry) = bounded(input, 256, 2, || CacheEntry::decode(input)) else { return };
    assert!(entry.version >= 0);
    let text = entry.encode();
    assert_eq!(CacheEntry::decode(&text).as_ref(), Some(&entry));
    if !matches!(entry.resolution, Resolution::Negative(_)) {
        assert_eq!(text, input);
    }
}

/// A search: the expression of each spelling is short.
pub(super) fn link_search(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let search = match LinkSearch::parse(text) {
        Ok(search) => search,
        Err(error) => return assert_is_rule(&error.to_string()),
    };
    assert_eq!(search.text, text);
    assert!((LinkSearch::MIN_CHARS..=LinkSearch::MAX_CHARS).contains(&text.chars().count()));
    for spelling in [&search.encoded, &search.host].into_iter().flatten() {
        assert!(spelling.len() <= 48 * LinkSearch::MAX_CHARS, "{spelling}");
    }
}
