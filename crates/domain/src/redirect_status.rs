//! The HTTP status with which a link redirects.

use serde::{Serialize, Serializer};

/// The status of a redirect. It decides whether a browser may cache the redirect, and whether it keeps the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedirectStatus {
    /// 301: permanent.
    MovedPermanently,
    /// 302, the default: the browser requests the short URL again on each visit.
    #[default]
    Found,
    /// 307: like 302, but the browser keeps the method.
    TemporaryRedirect,
    /// 308: like 301, but the browser keeps the method.
    PermanentRedirect,
}

impl RedirectStatus {
    /// The codes of all statuses.
    pub const CODES: &'static [i64] = &[301, 302, 307, 308];

    /// The HTTP status code.
    pub const fn code(self) -> u16 {
        match self {
            Self::MovedPermanently => 301,
            Self::Found => 302,
            Self::TemporaryRedirect => 307,
            Self::PermanentRedirect => 308,
        }
    }

    /// The inverse of [`RedirectStatus::code`].
    pub const fn from_code(code: i64) -> Option<Self> {
        match code {
            301 => Some(Self::MovedPermanently),
            302 => Some(Self::Found),
            307 => Some(Self::TemporaryRedirect),
            308 => Some(Self::PermanentRedirect),
            _ => None,
        }
    }

    /// Whether browsers may cache the redirect.
    pub const fn is_permanent(self) -> bool {
        matches!(self, Self::MovedPermanently | Self::PermanentRedirect)
    }
}

/// Serializes the status as its code.
impl Serialize for RedirectStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status() {
        for code in RedirectStatus::CODES {
            let status = RedirectStatus::from_code(*code).unwrap();
            assert_eq!(i64::from(status.code()), *code);
        }
        assert_eq!(RedirectStatus::from_code(303), None);
    }

    #[test]
    fn only_301_and_308_are_permanent() {
        for (code, is_permanent) in [(301, true), (302, false), (307, false), (308, true)] {
            let status = RedirectStatus::from_code(code).unwrap();
            assert_eq!(status.is_permanent(), is_permanent, "{code}");
            assert_eq!(serde_json::to_value(status).unwrap(), code);
        }
        assert_eq!(RedirectStatus::default().code(), 302);
    }
}
