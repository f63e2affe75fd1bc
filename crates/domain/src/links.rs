//! Links: a short code that leads to a target.

use chrono::{DateTime, Utc};

use super::{LinkId, ShortCode, TargetUrl, UserId};

/// The status of a redirect: how much a browser may remember, and whether it keeps the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedirectStatus {
    /// 301: permanent.
    MovedPermanently,
    /// 302: the default; the browser asks again each time.
    #[default]
    Found,
    /// 307: as 302, keeping the method.
    TemporaryRedirect,
    /// 308: as 301, keeping the method.
    PermanentRedirect,
}

impl RedirectStatus {
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

    /// Whether browsers may keep the answer.
    pub const fn is_permanent(self) -> bool {
        matches!(self, Self::MovedPermanently | Self::PermanentRedirect)
    }
}

/// A link as stored.
#[derive(Debug, Clone)]
pub struct Link {
    /// Unique number.
    pub id: LinkId,
    /// The owner; absent for a link made without a key.
    pub user_id: Option<UserId>,
    /// The code.
    pub short_code: String,
    /// The target.
    pub original_url: String,
    /// A label.
    pub title: Option<String>,
    /// Whether it resolves.
    pub is_active: bool,
    /// The redirect's status.
    pub redirect_status: RedirectStatus,
    /// When it stops resolving.
    pub expires_at: Option<DateTime<Utc>>,
    /// After how many clicks it stops resolving.
    pub max_clicks: Option<i64>,
    /// Clicks so far.
    pub clicks: i64,
    /// Goes up with every change; see the migration.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl Link {
    /// Longest title, in characters.
    pub const MAX_TITLE: usize = 500;
}

/// What is needed to make a link.
#[derive(Debug, Clone)]
pub struct NewLink {
    /// The owner.
    pub user_id: Option<UserId>,
    /// A chosen code; `None` draws one.
    pub short_code: Option<ShortCode>,
    /// The target.
    pub target: TargetUrl,
    /// A label.
    pub title: Option<String>,
    /// Whether it resolves.
    pub is_active: bool,
    /// The redirect's status.
    pub redirect_status: RedirectStatus,
    /// When it stops resolving.
    pub expires_at: Option<DateTime<Utc>>,
    /// After how many clicks it stops resolving; at least 1.
    pub max_clicks: Option<i64>,
}

impl NewLink {
    /// Whether the link has no code or limits of its own, so that another one can stand for it.
    pub fn is_plain(&self) -> bool {
        self.short_code.is_none()
            && self.is_active
            && self.expires_at.is_none()
            && self.max_clicks.is_none()
    }
}

/// A change of a link. `None` leaves a field as it is; `Some(None)` clears it.
#[derive(Debug, Clone, Default)]
pub struct LinkPatch {
    /// New target.
    pub target: Option<TargetUrl>,
    /// New label.
    pub title: Option<Option<String>>,
    /// Switches it on or off.
    pub is_active: Option<bool>,
    /// New status.
    pub redirect_status: Option<RedirectStatus>,
    /// New end.
    pub expires_at: Option<Option<DateTime<Utc>>>,
    /// New limit.
    pub max_clicks: Option<Option<i64>>,
}

/// Which links to list; `None` does not filter.
#[derive(Debug, Clone, Default)]
pub struct LinkFilter {
    /// Of this user.
    pub user_id: Option<UserId>,
    /// Active ones, or inactive ones.
    pub is_active: Option<bool>,
    /// Holding this text in code, target or title, whatever its case.
    pub search: Option<String>,
}
