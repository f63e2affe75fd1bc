//! Links: short codes with their target URLs.

use chrono::{DateTime, Utc};

use super::{LinkId, ShortCode, TargetUrl, UserId};

/// The status of a redirect: whether browsers may cache it, and whether they keep the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedirectStatus {
    /// 301: permanent.
    MovedPermanently,
    /// 302: temporary; the default.
    #[default]
    Found,
    /// 307: temporary, with the same method.
    TemporaryRedirect,
    /// 308: permanent, with the same method.
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

    /// Whether browsers may cache the redirect.
    pub const fn is_permanent(self) -> bool {
        matches!(self, Self::MovedPermanently | Self::PermanentRedirect)
    }
}

/// A link.
#[derive(Debug, Clone)]
pub struct Link {
    /// The link's id.
    pub id: LinkId,
    /// The owner; `None` for a link that was created without a key.
    pub user_id: Option<UserId>,
    /// The short code.
    pub short_code: String,
    /// The target URL.
    pub original_url: String,
    /// A label.
    pub title: Option<String>,
    /// Whether it resolves.
    pub is_active: bool,
    /// The status of the redirect.
    pub redirect_status: RedirectStatus,
    /// The expiry.
    pub expires_at: Option<DateTime<Utc>>,
    /// The number of clicks after which it no longer resolves.
    pub max_clicks: Option<i64>,
    /// The number of clicks.
    pub clicks: i64,
    /// Increases with every change of any link; caches keep the higher version.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl Link {
    /// The longest title, in characters.
    pub const MAX_TITLE: usize = 500;
}

/// A link to create.
#[derive(Debug, Clone)]
pub struct NewLink {
    /// The owner.
    pub user_id: Option<UserId>,
    /// A custom code; `None` generates one.
    pub short_code: Option<ShortCode>,
    /// The target URL.
    pub target: TargetUrl,
    /// A label.
    pub title: Option<String>,
    /// Whether it resolves.
    pub is_active: bool,
    /// The status of the redirect.
    pub redirect_status: RedirectStatus,
    /// The expiry.
    pub expires_at: Option<DateTime<Utc>>,
    /// The number of clicks after which it no longer resolves, at least 1.
    pub max_clicks: Option<i64>,
}

impl NewLink {
    /// Whether the link has neither a custom code nor limits, so that an existing link can be reused.
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
    /// Whether it resolves from now on.
    pub is_active: Option<bool>,
    /// New status.
    pub redirect_status: Option<RedirectStatus>,
    /// New expiry.
    pub expires_at: Option<Option<DateTime<Utc>>>,
    /// New click limit.
    pub max_clicks: Option<Option<i64>>,
}

/// A filter for lists of links; a `None` field matches every link.
#[derive(Debug, Clone, Default)]
pub struct LinkFilter {
    /// The owner.
    pub user_id: Option<UserId>,
    /// Whether the link is active.
    pub is_active: Option<bool>,
    /// Text in the code, the target URL or the title, in any case.
    pub search: Option<String>,
}
