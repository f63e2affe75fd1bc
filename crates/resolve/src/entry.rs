//! Cache entries, and their text form in Redis.
//!
//! The text has these parts, without separators:
//!
//! 1. The version in 19 decimal digits. Redis scripts compare strings by the rules of the locale, and
//!    digits of a fixed length have the order of versions in every locale.
//! 2. A letter for the kind: `R` (redirect), `L` (limited) or `N` (negative).
//! 3. For a redirect: the status in 3 digits, the expiry and the link's id in 19 digits each, and the
//!    target. For a negative entry of a row: a letter for the reason.

use actix_web::http::{StatusCode, header::HeaderValue};

use chrono::{DateTime, Utc};
use linnet_domain::{Link, LinkId};
use linnet_store::ResolveRow;

/// The expiry of a link that never expires.
const NEVER: i64 = i64::MAX;
/// Digits of the largest `i64`.
const DIGITS: usize = 19;

/// The resolution of a code, with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// The version of the link's row; 0 if no link has the code. Caches keep the entry with the higher version.
    pub version: i64,
    /// The resolution.
    pub resolution: Resolution,
}

/// The result of resolving a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// A redirect that needs no query to PostgreSQL.
    Redirect(Redirect),
    /// A link with `max_clicks`: PostgreSQL counts each click and decides whether to redirect it.
    Limited,
    /// No redirect.
    Negative(Absence),
}

/// Why a code has no redirect. Visitors get the same page in each case, on the same path and after the same
/// time; only a metric and the budget of misses distinguish them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// No link has or had the code.
    Unknown,
    /// The link is inactive or deleted, or the code is banned.
    Inactive,
    /// The link has expired.
    Expired,
    /// All `max_clicks` are used up.
    UsedUp,
}

impl Absence {
    /// The letter in the text form; `None` for an unknown code.
    const fn letter(self) -> Option<u8> {
        match self {
            Self::Unknown => None,
            Self::Inactive => Some(b'I'),
            Self::Expired => Some(b'E'),
            Self::UsedUp => Some(b'U'),
        }
    }

    /// The reason of a text form: its version, and the bytes after `N`. Earlier releases wrote no letter.
    fn read(version: i64, rest: &[u8]) -> Self {
        match rest {
            b"E" => Self::Expired,
            b"U" => Self::UsedUp,
            b"I" => Self::Inactive,
            _ if version == 0 => Self::Unknown,
            _ => Self::Inactive,
        }
    }
}

/// A redirect, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The `Location` header.
    pub location: HeaderValue,
    /// 301, 302, 307 or 308.
    pub status: StatusCode,
    /// The link's id, for recording clicks.
    pub url_id: LinkId,
    /// Expiry, in milliseconds since 1970.
    expires_at_ms: i64,
}

impl Redirect {
    /// Returns `None` if the target is not a valid header value or the status is not a redirect. Neither
    /// occurs in validated rows.
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
            // The text form has no sign. An expiry before 1970 has the same effect as 1970: the link has expired.
            expires_at_ms: expires_at_ms.map_or(NEVER, |time| time.max(0)),
        })
    }

    /// Expiry, in milliseconds since 1970; `None` for never.
    #[inline]
    pub fn expires_at_ms(&self) -> Option<i64> {
        (self.expires_at_ms != NEVER).then_some(self.expires_at_ms)
    }

    /// A copy whose target shares no memory with this one.
    pub(super) fn unshared_copy(&self) -> Self {
        // The bytes come from a valid header value.
        let location = HeaderValue::from_bytes(self.location.as_bytes());
        Self { location: location.unwrap_or_else(|_| self.location.clone()), ..self.clone() }
    }

    /// Approximate size on the heap, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.location.len()
    }
}

impl CacheEntry {
    /// The entry of an unknown code.
    pub const NEGATIVE: Self =
        Self { version: 0, resolution: Resolution::Negative(Absence::Unknown) };

    /// The entry of a row.
    pub fn from_row(row: &ResolveRow) -> Self {
        // A link that has ended is a negative entry from the start, so that its visitors wait as long as those of
        // a code without a link.
        let resolution = if !row.is_active {
            Resolution::Negative(Absence::Inactive)
        } else if row.has_expired {
            Resolution::Negative(Absence::Expired)
        } else if row.is_used_up {
            Resolution::Negative(Absence::UsedUp)
        } else if row.is_limited {
            Resolution::Limited
        } else {
            let status = u16::try_from(row.redirect_status).unwrap_or(302);
            Self::redirect_to(&row.original_url, status, row.expires_at, row.id)
        };
        Self { version: row.version, resolution }
    }

    /// The entry of a link that was just written.
    pub fn from_link(link: &Link) -> Self {
        let resolution = if !link.attributes.is_active {
            Resolution::Negative(Absence::Inactive)
        } else if link.attributes.max_clicks.is_some() {
            Resolution::Limited
        } else {
            let status = link.attributes.redirect_status.code();
            Self::redirect_to(&link.original_url, status, link.attributes.expires_at, link.id)
        };
        Self { version: link.version, resolution }
    }

    fn redirect_to(
        target: &str,
        status: u16,
        expires_at: Option<DateTime<Utc>>,
        id: LinkId,
    ) -> Resolution {
        let expires_at_ms = expires_at.map(|time| time.timestamp_millis());
        Redirect::new(target, status, expires_at_ms, id)
            .map_or(Resolution::Negative(Absence::Inactive), Resolution::Redirect)
    }

    /// The text form.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{:019}", self.version).into_bytes();
        match &self.resolution {
            Resolution::Negative(absence) => {
                text.push(b'N');
                text.extend(absence.letter());
            }
            Resolution::Limited => text.push(b'L'),
            Resolution::Redirect(redirect) => {
                let status = redirect.status.as_u16();
                let (expires_at, id) = (redirect.expires_at_ms, redirect.url_id);
                text.extend(format!("R{status}{expires_at:019}{id:019}").into_bytes());
                text.extend(redirect.location.as_bytes());
            }
        }
        text
    }

    /// The inverse of [`CacheEntry::encode`]; `None` for text that has another form, such as that of another release.
    pub fn decode(text: &[u8]) -> Option<Self> {
        let (version, rest) = take_number(text)?;
        let (kind, rest) = rest.split_first()?;
        let resolution = match kind {
            b'N' => Resolution::Negative(Absence::read(version, rest)),
            b'L' if rest.is_empty() => Resolution::Limited,
            b'R' => {
                let (status, rest) = rest.split_at_checked(3)?;
                let status = std::str::from_utf8(status).ok()?.parse().ok()?;
                let (expires_at, rest) = take_number(rest)?;
                let (id, target) = take_number(rest)?;
                let target = std::str::from_utf8(target).ok()?;
                let expires_at = (expires_at != NEVER).then_some(expires_at);
                Resolution::Redirect(Redirect::new(target, status, expires_at, LinkId::new(id)?)?)
            }
            _ => return None,
        };
        Some(Self { version, resolution })
    }
}

fn take_number(text: &[u8]) -> Option<(i64, &[u8])> {
    let (digits, rest) = text.split_at_checked(DIGITS)?;
    // The order of texts is that of versions only without signs.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use linnet_domain::LinkAttributes;

    use super::*;

    fn redirect(expires_at: Option<i64>) -> CacheEntry {
        let id = LinkId::new(77).unwrap();
        let redirect = Redirect::new("https://example.com/a?b=c", 307, expires_at, id).unwrap();
        CacheEntry { version: 7, resolution: Resolution::Redirect(redirect) }
    }

    #[test]
    fn entries_round_trip() {
        let limited = CacheEntry { version: i64::MAX, resolution: Resolution::Limited };
        let dated = [i64::MIN, -1, 0, 1_700_000_000_000].map(|time| redirect(Some(time)));
        let negative = [Absence::Inactive, Absence::Expired, Absence::UsedUp]
            .map(|absence| CacheEntry { version: 9, resolution: Resolution::Negative(absence) });
        let held = Resolution::Negative(Absence::Inactive);
        let held = CacheEntry { version: 0, resolution: held };
        let others = [redirect(None), limited, CacheEntry::NEGATIVE, held];
        for entry in dated.into_iter().chain(others).chain(negative) {
            assert_eq!(CacheEntry::decode(&entry.encode()), Some(entry));
        }
    }

    #[test]
    fn negative_entries_of_the_previous_release_are_understood() {
        let read = |text: &str| CacheEntry::decode(text.as_bytes()).unwrap().resolution;
        assert_eq!(read("0000000000000000000N"), Resolution::Negative(Absence::Unknown));
        assert_eq!(read("0000000000000000007N"), Resolution::Negative(Absence::Inactive));
    }

    #[test]
    fn text_order_is_version_order() {
        let negative = Resolution::Negative(Absence::Inactive);
        let text = |version| CacheEntry { version, resolution: negative.clone() }.encode();
        for (low, high) in [(0, 1), (9, 10), (15, 16), (255, 256), (1 << 40, i64::MAX)] {
            assert!(text(low) < text(high), "{low} {high}");
        }
    }

    #[test]
    fn entries_of_another_release_are_not_understood() {
        let whole = redirect(None).encode();
        for cut in 0..61 {
            assert_eq!(CacheEntry::decode(&whole[..cut]), None, "{cut}");
        }
        for odd in [
            "",
            "zzzzzzzzzzzzzzzzzzzN",
            "0000000000000000001X",
            "0000000000000000001R200",
            "0000000000000000001Lx",
            "-000000000000000001L",
            "+000000000000000001L",
        ] {
            assert_eq!(CacheEntry::decode(odd.as_bytes()), None, "{odd}");
        }
        let signed = String::from_utf8(whole).unwrap().replace("R307922", "R307+22");
        assert_eq!(CacheEntry::decode(signed.as_bytes()), None, "{signed}");
    }

    #[test]
    fn a_redirect_has_the_expiry_that_it_was_given() {
        let expiry = |given| {
            let redirect = Redirect::new("https://a.example/", 302, given, LinkId::MIN).unwrap();
            redirect.expires_at_ms()
        };
        assert_eq!(expiry(None), None);
        assert_eq!(expiry(Some(1_700_000_000_000)), Some(1_700_000_000_000));
        assert_eq!(expiry(Some(-5)), Some(0), "the text form has no sign");
    }

    #[test]
    fn a_target_or_a_status_that_cannot_be_sent_makes_no_redirect() {
        for (target, status) in
            [("a\nb", 302), ("https://a.example/", 200), ("https://a.example/", 99)]
        {
            assert_eq!(Redirect::new(target, status, None, LinkId::MIN), None, "{target} {status}");
        }
    }

    #[test]
    fn an_unshared_copy_is_equal_and_has_its_own_target() {
        let redirect = Redirect::new("https://a.example/", 302, Some(9), LinkId::MIN).unwrap();
        let copy = redirect.unshared_copy();
        assert_eq!(copy, redirect);
        assert_ne!(copy.location.as_bytes().as_ptr(), redirect.location.as_bytes().as_ptr());
        assert_eq!(redirect.heap_bytes(), "https://a.example/".len());
    }

    fn row() -> ResolveRow {
        ResolveRow {
            id: LinkId::MIN,
            short_code: "abc".into(),
            original_url: "https://a.example/".into(),
            is_active: true,
            redirect_status: 308,
            expires_at: None,
            has_expired: false,
            is_used_up: false,
            is_limited: false,
            version: 7,
        }
    }

    #[test]
    fn entry_of_a_row_follows_from_its_state() {
        let negative = Resolution::Negative;
        let inactive = ResolveRow { is_active: false, has_expired: true, ..row() };
        let expired = ResolveRow { has_expired: true, is_used_up: true, ..row() };
        let used_up = ResolveRow { is_used_up: true, is_limited: true, ..row() };
        let limited = ResolveRow { is_limited: true, ..row() };
        let unsendable = ResolveRow { original_url: "\n".into(), ..row() };
        let redirect = Redirect::new("https://a.example/", 308, None, LinkId::MIN).unwrap();
        for (row, resolution) in [
            (inactive, negative(Absence::Inactive)),
            (expired, negative(Absence::Expired)),
            (used_up, negative(Absence::UsedUp)),
            (limited, Resolution::Limited),
            (unsendable, negative(Absence::Inactive)),
            (row(), Resolution::Redirect(redirect)),
        ] {
            assert_eq!(CacheEntry::from_row(&row), CacheEntry { version: 7, resolution });
        }
    }

    #[test]
    fn entry_of_a_written_link_is_that_of_its_row() {
        let link = |attributes| Link {
            id: LinkId::MIN,
            user_id: None,
            short_code: "abc".into(),
            original_url: "https://a.example/".into(),
            attributes,
            clicks: 0,
            version: 7,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            taken_down_at: None,
            takedown_reason: None,
        };
        let status = linnet_domain::RedirectStatus::PermanentRedirect;
        let plain = LinkAttributes { redirect_status: status, ..Default::default() };
        let limited = LinkAttributes { max_clicks: Some(1), ..Default::default() };
        let inactive = LinkAttributes { is_active: false, ..limited.clone() };
        for (attributes, row) in [
            (plain, row()),
            (limited, ResolveRow { is_limited: true, ..row() }),
            (inactive, ResolveRow { is_active: false, ..row() }),
        ] {
            assert_eq!(CacheEntry::from_link(&link(attributes)), CacheEntry::from_row(&row));
        }
    }
}
