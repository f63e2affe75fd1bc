//! Links: a short code that redirects to a target.

use chrono::{DateTime, Utc};

use super::{LinkAttributePatch, LinkAttributes, LinkId, LinkSearch, ShortCode, TargetUrl, UserId};

/// A link.
#[derive(Debug, Clone)]
pub struct Link {
    /// The id.
    pub id: LinkId,
    /// The owner; `None` for a link that was created without a key.
    pub user_id: Option<UserId>,
    /// The short code.
    pub short_code: String,
    /// The target URL, normalized.
    pub original_url: String,
    /// The fields that a caller may set.
    pub attributes: LinkAttributes,
    /// Recorded clicks.
    pub clicks: i64,
    /// The version. Every change of any link gets a higher one.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// When an administrator took it down; until the takedown ends, it is inactive.
    pub taken_down_at: Option<DateTime<Utc>>,
    /// Why it is taken down.
    pub takedown_reason: Option<String>,
}

/// A link to create.
#[derive(Debug, Clone)]
pub struct NewLink {
    /// The owner.
    pub user_id: Option<UserId>,
    /// The custom short code; `None` generates one.
    pub short_code: Option<ShortCode>,
    /// The target URL.
    pub target: TargetUrl,
    /// The fields that a caller may set.
    pub attributes: LinkAttributes,
}

impl NewLink {
    /// Whether an existing link can be returned instead: the link has an owner, a generated short code and no limits.
    pub fn is_reusable(&self) -> bool {
        self.user_id.is_some()
            && self.short_code.is_none()
            && self.attributes.is_active
            && self.attributes.expires_at.is_none()
            && self.attributes.max_clicks.is_none()
    }
}

/// A change of a link.
#[derive(Debug, Clone, Default)]
pub struct LinkPatch {
    /// The new target URL; `None` keeps the target.
    pub target: Option<TargetUrl>,
    /// The fields that a caller may set.
    pub attributes: LinkAttributePatch,
}

impl From<LinkAttributePatch> for LinkPatch {
    fn from(attributes: LinkAttributePatch) -> Self {
        Self { target: None, attributes }
    }
}

/// A filter for lists of links; a `None` field matches every link.
#[derive(Debug, Clone, Default)]
pub struct LinkFilter {
    /// Links of this user.
    pub user_id: Option<UserId>,
    /// Whether matching links are active.
    pub is_active: Option<bool>,
    /// Links whose short code, target URL or title contains this text, in any case.
    pub search: Option<LinkSearch>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TargetPolicy;

    #[test]
    fn only_a_plain_link_of_an_owner_is_reused() {
        let policy = TargetPolicy::new(&["https".into()], "https://lnt.example", &[]).unwrap();
        let plain = NewLink {
            user_id: UserId::new(7),
            short_code: None,
            target: policy.parse("https://example.com/").unwrap(),
            attributes: LinkAttributes::default(),
        };
        assert!(plain.is_reusable());
        let titled = LinkAttributes { title: Some("a".into()), ..LinkAttributes::default() };
        assert!(NewLink { attributes: titled, ..plain.clone() }.is_reusable());
        assert!(!NewLink { user_id: None, ..plain.clone() }.is_reusable());
        let code = ShortCode::parse("abc").ok();
        assert!(!NewLink { short_code: code, ..plain.clone() }.is_reusable());
        for attributes in [
            LinkAttributes { is_active: false, ..LinkAttributes::default() },
            LinkAttributes { expires_at: Some(DateTime::UNIX_EPOCH), ..LinkAttributes::default() },
            LinkAttributes { max_clicks: Some(1), ..LinkAttributes::default() },
        ] {
            assert!(!NewLink { attributes, ..plain.clone() }.is_reusable());
        }
    }

    #[test]
    fn a_patch_of_attributes_keeps_the_target() {
        let attributes = LinkAttributePatch { is_active: Some(false), ..Default::default() };
        let patch = LinkPatch::from(attributes.clone());
        assert_eq!((patch.target, patch.attributes), (None, attributes));
    }
}
