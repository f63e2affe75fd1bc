//! Stream tokens: a short-lived credential in the URL of one event stream, for a browser's `EventSource`, which cannot send
//! headers.
//!
//! Invariants:
//! - A token opens one path during its [`LIFETIME`], and nothing else. An open stream continues after that, and ends
//!   with the API key that made the token.
//! - It contains the id of that key, its own expiry and its stream, and a keyed hash of them. The hash's key is derived from
//!   the service token, so no process stores tokens.
//! - The text has only unreserved characters of URLs.

use std::{fmt::Write as _, time::Duration};

use chrono::{DateTime, Utc};
use hmac::Mac as _;
use linnet_domain::{JobId, KeyId, LinkId};
use subtle::ConstantTimeEq as _;

use crate::settings::ServiceSettings;

/// Time during which a token can open its stream.
pub const LIFETIME: Duration = Duration::from_mins(1);
/// The query parameter of event streams with a token.
pub const PARAMETER: &str = "stream_token";
/// The prefix of every token.
pub const PREFIX: &str = "lns_";

/// Separates these hashes from any other use of the service token.
const CONTEXT: &[u8] = b"linnet stream token v1\0";
const HASH_DIGITS: usize = 64;

/// An event stream that a token can open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The clicks of a link.
    LinkClicks(LinkId),
    /// The progress of a job.
    JobEvents(JobId),
}

impl Stream {
    /// The stream with this path.
    pub fn of_path(path: &str) -> Option<Self> {
        let resource = path.strip_prefix("/api/v1/")?;
        if let Some(id) = resource.strip_prefix("urls/").and_then(|rest| rest.strip_suffix("/live"))
        {
            return Some(Self::LinkClicks(id.parse().ok()?));
        }
        let id = resource.strip_prefix("jobs/")?.strip_suffix("/events")?;
        Some(Self::JobEvents(id.parse().ok()?))
    }

    /// The path of the stream.
    pub fn path(self) -> String {
        match self {
            Self::LinkClicks(id) => format!("/api/v1/urls/{}/live", id.get()),
            Self::JobEvents(id) => format!("/api/v1/jobs/{}/events", id.get()),
        }
    }

    fn code(self) -> String {
        match self {
            Self::LinkClicks(id) => format!("u{}", id.get()),
            Self::JobEvents(id) => format!("j{}", id.get()),
        }
    }

    fn of_code(code: &str) -> Option<Self> {
        match code.split_at_checked(1)? {
            ("u", id) => Some(Self::LinkClicks(id.parse().ok()?)),
            ("j", id) => Some(Self::JobEvents(id.parse().ok()?)),
            _ => None,
        }
    }
}

/// A well-formed token, which may be forged or expired.
#[derive(Debug, Clone, Copy)]
pub struct StreamToken<'a> {
    signed: &'a str,
    hash: &'a str,
    key_id: &'a str,
    expires_at: i64,
    stream: Stream,
}

impl<'a> StreamToken<'a> {
    /// Parses `lns_`, the key's id, the expiry, the stream and the hash, separated by underscores.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (signed, hash) = text.rsplit_once('_')?;
        let mut parts = signed.strip_prefix(PREFIX)?.split('_');
        let (key_id, expires_at, stream) = (parts.next()?, parts.next()?, parts.next()?);
        let is_hash = hash.len() == HASH_DIGITS
            && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if parts.next().is_some() || !is_hash {
            return None;
        }
        KeyId::parse(key_id).ok()?;
        // The hash covers the text as it is written, so another spelling of these numbers is not authentic.
        let (expires_at, stream) = (expires_at.parse().ok()?, Stream::of_code(stream)?);
        Some(Self { signed, hash, key_id, expires_at, stream })
    }

    /// The public id of the API key that made the token.
    pub fn key_id(&self) -> &'a str {
        self.key_id
    }

    /// The only stream that the token opens.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// Whether the token can no longer open its stream at `now`.
    pub fn has_expired(&self, now: DateTime<Utc>) -> bool {
        now.timestamp() >= self.expires_at
    }

    /// Whether this installation made the token. The comparison takes the same time for every forged hash.
    pub fn is_authentic(&self, settings: &ServiceSettings) -> bool {
        hash_of(settings, self.signed).as_bytes().ct_eq(self.hash.as_bytes()).into()
    }
}

/// Makes a token for the key with this id. Returns it with its expiry, in whole seconds.
pub fn mint(
    settings: &ServiceSettings,
    key_id: &str,
    stream: Stream,
    now: DateTime<Utc>,
) -> (String, DateTime<Utc>) {
    let expires_at = now + LIFETIME;
    let expires_at = DateTime::from_timestamp(expires_at.timestamp(), 0).unwrap_or(expires_at);
    let signed = format!("{PREFIX}{key_id}_{}_{}", expires_at.timestamp(), stream.code());
    let hash = hash_of(settings, &signed);
    (format!("{signed}_{hash}"), expires_at)
}

fn hash_of(settings: &ServiceSettings, signed: &str) -> String {
    let mut mac = settings.keyed_hash(CONTEXT);
    mac.update(signed.as_bytes());
    let mut text = String::with_capacity(HASH_DIGITS);
    for byte in mac.finalize().into_bytes() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(token: &str) -> ServiceSettings {
        ServiceSettings { token: token.into() }
    }

    fn now() -> DateTime<Utc> {
        "2026-11-27T10:00:00.7Z".parse().unwrap()
    }

    #[test]
    fn a_token_names_its_key_stream_and_expiry() {
        let settings = settings("0123456789abcdef0123456789abcdef");
        for path in ["/api/v1/urls/7/live", "/api/v1/jobs/12/events"] {
            let stream = Stream::of_path(path).unwrap();
            let (text, expires_at) = mint(&settings, "Ab3xYz01", stream, now());
            let token = StreamToken::parse(&text).unwrap();
            assert!(token.is_authentic(&settings));
            assert_eq!((token.key_id(), token.stream().path()), ("Ab3xYz01", path.to_owned()));
            assert_eq!(expires_at, "2026-11-27T10:01:00Z".parse::<DateTime<Utc>>().unwrap());
            assert!(!token.has_expired(expires_at - Duration::from_millis(1)));
            assert!(token.has_expired(expires_at));
        }
    }

    #[test]
    fn a_changed_token_is_malformed_or_not_authentic() {
        let settings = settings("0123456789abcdef0123456789abcdef");
        let (text, _) =
            mint(&settings, "Ab3xYz01", Stream::of_path("/api/v1/urls/7/live").unwrap(), now());
        for index in 0..text.len() {
            for replacement in ["0", "9", "a", "j", "_"] {
                let mut changed = text.clone();
                changed.replace_range(index..=index, replacement);
                let is_accepted =
                    StreamToken::parse(&changed).is_some_and(|token| token.is_authentic(&settings));
                assert_eq!(is_accepted, changed == text, "{changed}");
            }
        }
        let other = ServiceSettings { token: "another token of the same length...".into() };
        assert!(!StreamToken::parse(&text).unwrap().is_authentic(&other));
        for bad in [
            "",
            "lns_",
            &text[..text.len() - 1],
            &format!("{text}0"),
            &text.replace("lns", "lnt"),
            &text.replace("_u7_", "_u7_u7_"),
        ] {
            assert!(StreamToken::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_event_streams_have_tokens() {
        for bad in [
            "/api/v1/urls/7",
            "/api/v1/urls/7/stats",
            "/api/v1/urls/07/live",
            "/api/v1/urls/-7/live",
            "/api/v1/urls/7/live/",
            "/api/v1/urls/7/live?x=1",
            "/api/v1/urls//live",
            "/api/v1/urls/7/events",
            "/api/v1/jobs/7/live",
            "/api/v1/jobs/7/../8/events",
            "/api/v1/urls/99999999999999999999/live",
            "https://lnt.test/api/v1/urls/7/live",
            "",
        ] {
            assert_eq!(Stream::of_path(bad), None, "{bad}");
        }
    }
}
