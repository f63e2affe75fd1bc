//! The settings sections that gateway and shortener both read.

use hmac::{Hmac, KeyInit as _, Mac as _};
use linnet_domain::{base_host, host_name};
use linnet_platform::settings::{Problems, redacted};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Section `public`: the public names of this installation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublicSettings {
    /// Origin of every short URL, `http(s)://host[:port]`. The `Host` header of a request has no effect.
    pub base_url: String,
    /// Other host names of this installation. Links to them are rejected, because they would loop.
    #[serde(deserialize_with = "linnet_platform::settings::comma_list")]
    pub own_hosts: Vec<String>,
    /// URL under which the types of problems are described; a slash and the code are appended. Empty means `/problems`
    /// under `base_url`, which the gateway serves.
    pub problem_types_url: String,
}

impl Default for PublicSettings {
    fn default() -> Self {
        Self {
            base_url: "http://localhost:8080".into(),
            own_hosts: Vec::new(),
            problem_types_url: String::new(),
        }
    }
}

impl PublicSettings {
    /// Checks the URLs and the hosts.
    pub fn validate(&self, problems: &mut Problems) {
        let scheme = self
            .base_url
            .strip_prefix("https://")
            .or_else(|| self.base_url.strip_prefix("http://"));
        let ok = scheme
            .is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@', ' ']));
        problems.require(
            ok,
            "public.base_url",
            "must be http(s)://host[:port] without a path or trailing slash",
        );
        if let (true, Err(error)) = (ok, base_host(&self.base_url)) {
            problems.add("public.base_url", error);
        }
        if let Some(error) = self.own_hosts.iter().find_map(|host| host_name(host).err()) {
            problems.add("public.own_hosts", error.to_string());
        }
        let url = &self.problem_types_url;
        let has_scheme = url.starts_with("https://") || url.starts_with("http://");
        problems.require(
            url.is_empty()
                || (has_scheme
                    && url
                        .bytes()
                        .all(|byte| byte.is_ascii_graphic() && !b"?#\"<>".contains(&byte))
                    && !url.ends_with('/')),
            "public.problem_types_url",
            "must be empty, or http(s)://… without a query and without a trailing slash",
        );
    }

    /// The URL of the types of problems, without the code.
    pub fn problem_types_url(&self) -> String {
        if self.problem_types_url.is_empty() {
            format!("{}/problems", self.base_url)
        } else {
            self.problem_types_url.clone()
        }
    }
}

/// Section `service`: how the processes of one installation authenticate to each other.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSettings {
    /// Shared secret of gateways and shorteners, at least 32 printable ASCII characters.
    #[serde(serialize_with = "redacted")]
    pub token: SecretString,
}

impl ServiceSettings {
    /// The header with the token.
    pub const TOKEN_HEADER: &'static str = "x-linnet-service-token";

    /// A hash with the token as its key. `context` separates it from any other use of the token.
    #[expect(clippy::expect_used, reason = "HMAC accepts a key of any length")]
    pub(crate) fn keyed_hash(&self, context: &[u8]) -> Hmac<Sha256> {
        let token = self.token.expose_secret().as_bytes();
        let mut mac = Hmac::<Sha256>::new_from_slice(token).expect("a key of any length");
        mac.update(context);
        mac
    }

    /// Shortest accepted token, in bytes.
    pub const MIN_TOKEN_BYTES: usize = 32;

    /// Checks the token's length and characters.
    pub fn validate(&self, problems: &mut Problems) {
        let token = self.token.expose_secret();
        problems.require(
            token.len() >= Self::MIN_TOKEN_BYTES && token.bytes().all(|b| b.is_ascii_graphic()),
            "service.token",
            "must be at least 32 printable ASCII characters",
        );
    }

    /// Compares tokens of equal length in constant time.
    pub fn accepts(&self, presented: &[u8]) -> bool {
        self.token.expose_secret().as_bytes().ct_eq(presented).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(validate: impl FnOnce(&mut Problems)) -> Vec<String> {
        let mut problems = Problems::default();
        validate(&mut problems);
        problems.keys().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn base_url_is_an_origin() {
        let problems = |base_url: &str| {
            let settings = PublicSettings { base_url: base_url.into(), ..Default::default() };
            problems_of(|problems| settings.validate(problems))
        };
        for good in ["http://localhost:8080", "https://lnt.example", "https://[::1]:1"] {
            assert_eq!(problems(good), [""; 0], "{good}");
        }
        for bad in [
            "",
            "lnt.example",
            "ftp://lnt.example",
            "http://",
            "https://",
            "https://lnt.example/",
            "https://lnt.example/x",
            "https://lnt.example?x",
            "https://lnt.example#x",
            "https://u@lnt.example",
            "https://lnt .example",
            "http://lnt.test;x",
            "http://lnt.test\\x",
            "http://$HOST",
            "http://lnt.test:99999",
            "https://https",
        ] {
            assert_eq!(problems(bad), ["public.base_url"], "{bad}");
        }
    }

    #[test]
    fn must_04_each_own_host_is_a_host() {
        let problems = |own_hosts: &[&str]| {
            let own_hosts = own_hosts.iter().map(|&host| host.to_owned()).collect();
            let settings = PublicSettings { own_hosts, ..Default::default() };
            problems_of(|problems| settings.validate(problems))
        };
        assert_eq!(problems(&["go.example.com", "192.0.2.7", "[::1]"]), [""; 0]);
        for bad in ["go.example.com;www.example.com", "${HOST}", "\"go.example\"", "https"] {
            assert_eq!(problems(&["go.example.com", bad]), ["public.own_hosts"], "{bad}");
        }
    }

    #[test]
    fn types_of_problems_are_described_under_a_url() {
        let settings = |url: &str| PublicSettings {
            base_url: "https://lnt.example".into(),
            problem_types_url: url.into(),
            ..Default::default()
        };
        for (given, url) in [
            ("", "https://lnt.example/problems"),
            ("http://docs.example", "http://docs.example"),
            ("https://docs.example/a/b", "https://docs.example/a/b"),
        ] {
            assert_eq!(problems_of(|problems| settings(given).validate(problems)), [""; 0]);
            assert_eq!(settings(given).problem_types_url(), url);
        }
        for bad in [
            "docs.example",
            "ftp://docs.example",
            "https://docs.example/",
            "https://docs.example/?a",
            "https://docs.example/#a",
            "https://docs.example/a b",
            "https://docs.example/\"",
            "https://docs.example/<",
            "https://docs.example/\u{e9}",
        ] {
            let keys = problems_of(|problems| settings(bad).validate(problems));
            assert_eq!(keys, ["public.problem_types_url"], "{bad}");
        }
    }

    #[test]
    fn a_token_has_32_printable_characters() {
        let settings = |token: &str| ServiceSettings { token: token.into() };
        let problems = |token: &str| problems_of(|problems| settings(token).validate(problems));
        assert_eq!(problems(&"x".repeat(32)), [""; 0]);
        for bad in [&"x".repeat(31), &" ".repeat(32), &format!("{}\u{e9}", "x".repeat(32)), ""] {
            assert_eq!(problems(bad), ["service.token"], "{bad}");
        }
        let settings = settings("0123456789abcdef0123456789abcdef");
        assert!(settings.accepts(b"0123456789abcdef0123456789abcdef"));
        for wrong in [&b"0123456789abcdef0123456789abcdeF"[..], b"0123456789abcdef", b""] {
            assert!(!settings.accepts(wrong));
        }
    }
}
