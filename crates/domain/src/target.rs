//! Target URLs and the policy that accepts them.
//!
//! The `url` crate parses a target by the WHATWG rules, as browsers do. The target is stored in that crate's
//! serialization, so browsers get exactly the URL that was checked: ASCII, with the host in lower case and punycode.

use std::collections::BTreeSet;

use serde::Serialize;
use url::{Host, Url};

/// The longest target, in bytes, both as given and as stored.
pub const MAX_TARGET_BYTES: usize = 8_192;

/// A target URL that a [`TargetPolicy`] has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TargetUrl(String);

impl TargetUrl {
    /// The URL as text: ASCII, at most [`MAX_TARGET_BYTES`].
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not an acceptable target URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Longer than [`MAX_TARGET_BYTES`].
    #[error("must be at most {MAX_TARGET_BYTES} bytes")]
    TooLong,
    /// Contains a control character, or white space at an end.
    #[error("must not contain control characters or white space at its ends")]
    Control,
    /// Not an absolute URL.
    #[error("must be an absolute URL")]
    Syntax(#[source] url::ParseError),
    /// The scheme is not allowed.
    #[error("must begin with an allowed scheme, such as https://")]
    Scheme,
    /// It has no host.
    #[error("must contain a host")]
    Host,
    /// It contains a user name or a password.
    #[error("must not contain a user name or password")]
    Credentials,
    /// It is on this service, where redirects would loop.
    #[error("must not be on this service")]
    OwnHost,
}

/// The rules for target URLs.
#[derive(Debug, Clone)]
pub struct TargetPolicy {
    schemes: Vec<String>,
    own_hosts: BTreeSet<String>,
}

/// A host in the form that is compared: lower case, punycode, no trailing dot.
fn canonical_host(host: &Host<&str>) -> String {
    host.to_string().trim_end_matches('.').to_owned()
}

impl TargetPolicy {
    /// A policy that allows `schemes` and refuses the host of `base_url` and `own_hosts`. The error contains the
    /// base URL or host that is invalid.
    pub fn new(schemes: &[String], base_url: &str, own_hosts: &[String]) -> Result<Self, String> {
        let base = std::iter::once(base_url.to_owned());
        let others = own_hosts.iter().map(|host| format!("http://{host}"));
        let mut own_hosts = BTreeSet::new();
        for origin in base.chain(others) {
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

    /// Checks and normalizes a target URL.
    pub fn parse(&self, text: &str) -> Result<TargetUrl, TargetError> {
        if text.len() > MAX_TARGET_BYTES {
            return Err(TargetError::TooLong);
        }
        // The parser would remove tabs and line breaks without an error.
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
        // Percent-encoding may have made it longer.
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
    fn targets_are_normalized() {
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
    fn relative_hostless_and_long_targets_are_refused() {
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
