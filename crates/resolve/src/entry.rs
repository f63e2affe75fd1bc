//! What a cache holds of a link, and how it is written in Redis.
//!
//! In Redis an entry is text: 19 decimal digits of the version, so that text order is version order in
//! every locale (Redis's scripts compare by the locale's rules), a letter for the kind, and for a
//! redirect the status, the end of its life and the link's id in 19 digits each, and the target.

use actix_web::http::{StatusCode, header::HeaderValue};

use linnet_domain::LinkId;
use linnet_store::ResolveRow;

/// No end of life.
const NEVER: i64 = i64::MAX;
/// Digits of the largest `i64`.
const DIGITS: usize = 19;

/// An answer and the version of the row that it came from; 0 when there was no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Orders entries of one code.
    pub version: i64,
    /// What to do.
    pub answer: Answer,
}

/// What a code leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A redirect that needs nothing else.
    Redirect(Redirect),
    /// A link with a click limit: every click asks the database.
    Limited,
    /// Unknown or inactive.
    Absent,
}

/// A redirect, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The `Location` header.
    pub location: HeaderValue,
    /// 301, 302, 307 or 308.
    pub status: StatusCode,
    /// Which link it is, for counting clicks.
    pub url_id: LinkId,
    /// When it stops, in milliseconds since 1970.
    expires_at_ms: i64,
}

impl Redirect {
    /// A redirect; `None` when the target cannot stand in a header or the status is no redirect,
    /// which checked rows do not have.
    pub fn new(
        target: &str,
        status: u16,
        expires_at_ms: Option<i64>,
        url_id: LinkId,
    ) -> Option<Self> {
        Some(Self {
            url_id,
            location: HeaderValue::from_str(target).ok()?,
            status: StatusCode::from_u16(status).ok().filter(StatusCode::is_redirection)?,
            // The text in Redis has no sign, and before 1970 is as much in the past as 1970.
            expires_at_ms: expires_at_ms.map_or(NEVER, |time| time.max(0)),
        })
    }

    /// When it stops, in milliseconds since 1970; `None` for never.
    #[inline]
    pub fn expires_at_ms(&self) -> Option<i64> {
        (self.expires_at_ms != NEVER).then_some(self.expires_at_ms)
    }

    /// A copy whose target shares no memory with this one.
    pub(super) fn copied(&self) -> Self {
        // It was a header's value before, so it is one.
        let location = HeaderValue::from_bytes(self.location.as_bytes());
        Self { location: location.unwrap_or_else(|_| self.location.clone()), ..self.clone() }
    }

    /// Bytes on the heap, about.
    pub fn heap_bytes(&self) -> usize {
        self.location.len()
    }
}

impl Entry {
    /// The entry of a code that no row has.
    pub const ABSENT: Self = Self { version: 0, answer: Answer::Absent };

    /// The entry of a row.
    pub fn from_row(row: &ResolveRow) -> Self {
        let status = u16::try_from(row.redirect_status).unwrap_or(302);
        let expires_at = row.expires_at.map(|time| time.timestamp_millis());
        let answer = if !row.is_active {
            Answer::Absent
        } else if row.is_limited {
            Answer::Limited
        } else {
            Redirect::new(&row.original_url, status, expires_at, row.id)
                .map_or(Answer::Absent, Answer::Redirect)
        };
        Self { version: row.version, answer }
    }

    /// The text in Redis.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{:019}", self.version).into_bytes();
        match &self.answer {
            Answer::Absent => text.push(b'N'),
            Answer::Limited => text.push(b'L'),
            Answer::Redirect(redirect) => {
                let status = redirect.status.as_u16();
                let (expires_at, id) = (redirect.expires_at_ms, redirect.url_id);
                text.extend(format!("R{status}{expires_at:019}{id:019}").into_bytes());
                text.extend(redirect.location.as_bytes());
            }
        }
        text
    }

    /// The inverse of [`Entry::encode`]; `None` for what another release wrote.
    pub fn decode(text: &[u8]) -> Option<Self> {
        let (version, rest) = take_number(text)?;
        let (kind, rest) = rest.split_first()?;
        let answer = match kind {
            b'N' => Answer::Absent,
            b'L' => Answer::Limited,
            b'R' => {
                let (status, rest) = rest.split_at_checked(3)?;
                let status = std::str::from_utf8(status).ok()?.parse().ok()?;
                let (expires_at, rest) = take_number(rest)?;
                let (id, target) = take_number(rest)?;
                let target = std::str::from_utf8(target).ok()?;
                let expires_at = (expires_at != NEVER).then_some(expires_at);
                Answer::Redirect(Redirect::new(target, status, expires_at, LinkId::new(id)?)?)
            }
            _ => return None,
        };
        Some(Self { version, answer })
    }
}

fn take_number(text: &[u8]) -> Option<(i64, &[u8])> {
    let (digits, rest) = text.split_at_checked(DIGITS)?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(expires_at: Option<i64>) -> Entry {
        let id = LinkId::new(77).unwrap();
        let redirect = Redirect::new("https://example.com/a?b=c", 307, expires_at, id).unwrap();
        Entry { version: 7, answer: Answer::Redirect(redirect) }
    }

    #[test]
    fn entries_round_trip() {
        let limited = Entry { version: i64::MAX, answer: Answer::Limited };
        let dated = [i64::MIN, -1, 0, 1_700_000_000_000].map(|time| redirect(Some(time)));
        for entry in dated.into_iter().chain([redirect(None), limited, Entry::ABSENT]) {
            assert_eq!(Entry::decode(&entry.encode()), Some(entry));
        }
    }

    #[test]
    fn text_order_is_version_order() {
        let text = |version| Entry { version, answer: Answer::Absent }.encode();
        for (low, high) in [(0, 1), (9, 10), (15, 16), (255, 256), (1 << 40, i64::MAX)] {
            assert!(text(low) < text(high), "{low} {high}");
        }
    }

    #[test]
    fn what_another_release_wrote_is_not_understood() {
        let whole = redirect(None).encode();
        for cut in 0..61 {
            assert_eq!(Entry::decode(&whole[..cut]), None, "{cut}");
        }
        for odd in ["", "zzzzzzzzzzzzzzzzzzzN", "0000000000000000001X", "0000000000000000001R200"] {
            assert_eq!(Entry::decode(odd.as_bytes()), None, "{odd}");
        }
    }
}
