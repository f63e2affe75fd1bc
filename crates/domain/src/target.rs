//! Target URLs and the policy that accepts them.
//!
//! The `url` crate parses a target by the WHATWG rules, as browsers do. The target is stored in that crate's
//! serialization, so browsers get exactly the URL that was checked: ASCII, with the host in lower case and punycode.

use std::collections::BTreeSet;

use serde::Serialize;
use url::Url;

use super::host::{base_host, canonical_host, host_name, is_local};

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
    /// Whether the service is on the visitor's own machine, so that each of its local names and addresses leads to it.
    is_local: bool,
}

impl TargetPolicy {
    /// A policy that allows `schemes` and refuses the host of `base_url` and `own_hosts`. The error contains the
    /// base URL or host that is invalid.
    pub fn new(schemes: &[String], base_url: &str, own_hosts: &[String]) -> Result<Self, String> {
        let mut hosts = BTreeSet::from([base_host(base_url)?]);
        for host in own_hosts {
            hosts.insert(host_name(host).map_err(|error| error.to_string())?);
        }
        let is_local = hosts.iter().any(|host| is_local(host));
        let schemes = schemes.iter().map(|scheme| scheme.to_ascii_lowercase()).collect();
        Ok(Self { schemes, own_hosts: hosts, is_local })
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
        if self.own_hosts.contains(&host) || (self.is_local && is_local(&host)) {
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

    // Long because it lists the spellings.
    #[test]
    fn must_04_no_link_to_any_spelling_of_a_local_address() {
        for base in
            ["http://localhost:8080", "http://127.0.0.1", "http://[::1]:1", "http://go.localhost"]
        {
            let policy = TargetPolicy::new(&["http".into()], base, &[]).unwrap();
            for bad in [
                "localhost",
                "LOCALHOST.",
                "a.localhost",
                "a.b.localhost.",
                "127.0.0.1",
                "127.0.0.2",
                "127.1",
                "127.255.255.254",
                "0",
                "0.0.0.0",
                "0x7f.0.0.1",
                "0x7f000001",
                "2130706433",
                "017700000001",
                "0177.0.0.01",
                "[::1]",
                "[::]",
                "[::ffff:127.0.0.1]",
                "[::ffff:7f00:2]",
                "[::ffff:0:0]",
                "[::127.0.0.1]",
                "[64:ff9b::127.0.0.1]",
                "[0:0:0:0:0:0:0:1]",
                "１２７.0.0.1",
                "127。0。0。1",
                "localhost.localdomain",
                "%6cocalhost",
            ] {
                let target = format!("http://{bad}:8080/abc");
                assert_eq!(policy.parse(&target), Err(TargetError::OwnHost), "{base}: {bad}");
            }
            for good in [
                "example.com",
                "localhost.example.com",
                "mylocalhost",
                "128.0.0.1",
                "[2001:db8::1]",
            ] {
                assert!(policy.parse(&format!("http://{good}/")).is_ok(), "{base}: {good}");
            }
        }
        let addresses = ["192.0.2.7".into(), "2001:db8::7".into(), "[2001:db8::8]".into()];
        let policy =
            TargetPolicy::new(&["http".into()], "https://lnt.example", &addresses).unwrap();
        for bad in [
            "192.0.2.7",
            "[::ffff:192.0.2.7]",
            "[64:ff9b::c000:207]",
            "3221225991",
            "[2001:db8::7]",
            "[2001:db8:0:0::0007]",
            "[2001:DB8::8]",
        ] {
            assert_eq!(policy.parse(&format!("http://{bad}/")), Err(TargetError::OwnHost), "{bad}");
        }
        // If the service is not local, a local address is the visitor's own machine.
        assert!(policy.parse("http://127.0.0.1:3000/").is_ok());
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

    #[test]
    fn must_29_the_longest_target_is_accepted() {
        let start = "https://example.com/";
        let target = |length: usize| format!("{start}{}", "a".repeat(length - start.len()));
        let longest = target(MAX_TARGET_BYTES);
        assert_eq!(policy().parse(&longest).unwrap().as_str(), longest);
        assert_eq!(policy().parse(&target(MAX_TARGET_BYTES + 1)), Err(TargetError::TooLong));
        // Each blank becomes three bytes.
        let blanks = |count: usize| {
            let letters = "a".repeat(MAX_TARGET_BYTES - start.len() - 3 * count);
            format!("{start}{}{letters}", " ".repeat(count))
        };
        assert_eq!(policy().parse(&blanks(9)).unwrap().as_str().len(), MAX_TARGET_BYTES);
        assert_eq!(policy().parse(&(blanks(9) + "a")), Err(TargetError::TooLong));
    }
}
