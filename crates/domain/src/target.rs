//! Where a link leads.
//!
//! A target is parsed by the `url` crate (the WHATWG rules that browsers follow) and stored as that
//! crate writes it, so what was checked is what the browser will see: ASCII only, host in lower case
//! and punycode, no tab or line break.

use std::collections::BTreeSet;

use serde::Serialize;
use url::{Host, Url};

/// Longest target, in bytes, as given and as stored.
pub const MAX_TARGET_BYTES: usize = 8_192;

/// A target that passed a [`TargetPolicy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TargetUrl(String);

impl TargetUrl {
    /// The URL as text: ASCII, at most [`MAX_TARGET_BYTES`].
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Longer than [`MAX_TARGET_BYTES`].
    #[error("must be at most {MAX_TARGET_BYTES} bytes")]
    TooLong,
    /// Holds a control character, or white space at an end.
    #[error("may not hold control characters, nor white space at its ends")]
    Control,
    /// Not an absolute URL.
    #[error("is not an absolute URL: {0}")]
    Syntax(url::ParseError),
    /// A scheme that is not allowed.
    #[error("must begin with an allowed scheme, such as https://")]
    Scheme,
    /// No host.
    #[error("must name a host")]
    Host,
    /// A user name or password in the authority.
    #[error("may not hold a user name or password")]
    Credentials,
    /// A link to this service would loop.
    #[error("may not point to this service")]
    OwnHost,
}

/// Which targets are accepted.
#[derive(Debug, Clone)]
pub struct TargetPolicy {
    schemes: Vec<String>,
    own_hosts: BTreeSet<String>,
}

/// A host name that is compared: lower case, punycode, without a trailing dot.
fn canonical_host(host: &Host<&str>) -> String {
    host.to_string().trim_end_matches('.').to_owned()
}

impl TargetPolicy {
    /// A policy from the allowed schemes and this service's own names: the origin of its short URLs
    /// and further host names. An own name that does not parse is returned as the error.
    pub fn new(schemes: &[String], base_url: &str, own_hosts: &[String]) -> Result<Self, String> {
        let base = std::iter::once(base_url.to_owned());
        let further = own_hosts.iter().map(|host| format!("http://{host}"));
        let mut own_hosts = BTreeSet::new();
        for origin in base.chain(further) {
            let url = Url::parse(&origin).map_err(|e| format!("{origin}: {e}"))?;
            let host = url.host().ok_or_else(|| format!("{origin}: no host"))?;
            own_hosts.insert(canonical_host(&host));
        }
        if own_hosts.contains("localhost") {
            own_hosts.extend(["127.0.0.1".to_owned(), "[::1]".to_owned()]);
        }
        let schemes = schemes.iter().map(|scheme| scheme.to_ascii_lowercase()).collect();
        Ok(Self { schemes, own_hosts })
    }

    /// Checks and normalises a target.
    pub fn parse(&self, text: &str) -> Result<TargetUrl, TargetError> {
        if text.len() > MAX_TARGET_BYTES {
            return Err(TargetError::TooLong);
        }
        // The parser would drop tabs and line breaks silently, and with them what was meant.
        if text.chars().any(char::is_control) || text.trim() != text {
            return Err(TargetError::Control);
        }
        let url = Url::parse(text).map_err(|error| match error {
            url::ParseError::EmptyHost => TargetError::Host,
            error => TargetError::Syntax(error),
        })?;
        if !self.schemes.iter().any(|scheme| scheme == url.scheme()) {
            return Err(TargetError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Credentials);
        }
        let host = url.host().ok_or(TargetError::Host)?;
        let host = canonical_host(&host);
        if host.is_empty() {
            return Err(TargetError::Host);
        }
        if self.own_hosts.contains(&host) {
            return Err(TargetError::OwnHost);
        }
        let stored = String::from(url);
        // Percent-encoding can make it longer than what was given.
        if stored.len() > MAX_TARGET_BYTES {
            return Err(TargetError::TooLong);
        }
        Ok(TargetUrl(stored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> TargetPolicy {
        let schemes = ["http".into(), "https".into()];
        TargetPolicy::new(&schemes, "https://lnt.example:8443", &["bücher.example".into()]).unwrap()
    }

    #[test]
    fn targets_are_normalised() {
        for (given, stored) in [
            ("https://example.com", "https://example.com/"),
            ("HTTPS://EXAMPLE.com:443/a b", "https://example.com/a%20b"),
            ("http://пример.example/", "http://xn--e1afmkfd.example/"),
            ("http:\\\\example.com\\x", "http://example.com/x"),
            ("http://[::1]:8080/", "http://[::1]:8080/"),
        ] {
            assert_eq!(policy().parse(given).unwrap().as_str(), stored, "{given}");
        }
    }

    #[test]
    fn must_03_only_allowed_schemes() {
        for bad in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "vbscript:x",
            "ftp://example.com/",
        ] {
            assert_eq!(policy().parse(bad), Err(TargetError::Scheme), "{bad}");
        }
        for bad in [
            "\tjavascript:alert(1)",
            "\nhttps://example.com",
            "java\0script:x",
            " https://a.example",
        ] {
            assert_eq!(policy().parse(bad), Err(TargetError::Control), "{bad}");
        }
    }

    #[test]
    fn must_04_no_link_to_this_service() {
        for bad in [
            "https://lnt.example/abc",
            "http://LNT.example:1/abc",
            "https://lnt.example./abc",
            "https://lnt%2eexample/abc",
            "https://ｌｎｔ.example/",
            "http://bücher.example/",
            "http://BÜCHER.example./",
            "http://xn--bcher-kva.example:99/",
        ] {
            assert_eq!(policy().parse(bad), Err(TargetError::OwnHost), "{bad}");
        }
        for bad in
            ["https://user@lnt.example/", "https://u:p@example.com/", "https://:p@example.com/"]
        {
            assert_eq!(policy().parse(bad), Err(TargetError::Credentials), "{bad}");
        }
        assert!(policy().parse("https://other-lnt.example/").is_ok());
        assert!(policy().parse("https://lnt.example.org/").is_ok());
    }

    #[test]
    fn odd_input_is_refused() {
        for bad in
            ["", "example.com", "/relative", "http://", "https://", "http://?x", "http://a b/"]
        {
            assert!(policy().parse(bad).is_err(), "{bad}");
        }
        let long = format!("https://example.com/{}", "a".repeat(MAX_TARGET_BYTES));
        assert_eq!(policy().parse(&long), Err(TargetError::TooLong));
        let grows = format!("https://example.com/{}", "ä".repeat(2_000));
        assert_eq!(policy().parse(&grows), Err(TargetError::TooLong));
    }
}
