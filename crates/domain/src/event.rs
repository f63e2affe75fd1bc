//! Events: what happened to a link. Clicks are events, too, kept in a table of their own.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{EventId, LinkId, UserId};

/// An event as stored.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Event {
    /// Unique number.
    #[schema(value_type = i64)]
    pub id: EventId,
    /// The link, which may be gone.
    #[schema(value_type = Option<i64>)]
    pub url_id: Option<LinkId>,
    /// Who did it; absent for callers without a key.
    #[schema(value_type = Option<i64>)]
    pub user_id: Option<UserId>,
    /// `created`, `updated`, `deleted`, `click`, or a client's own word.
    pub event_type: String,
    /// When it happened.
    pub timestamp: DateTime<Utc>,
    /// What else is known; always an object.
    #[schema(value_type = Object)]
    pub details: serde_json::Value,
}

/// A client's own event.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// An existing link.
    pub url_id: LinkId,
    /// An existing user.
    pub user_id: Option<UserId>,
    /// What happened.
    pub event_type: EventType,
    /// An object.
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// Which events to list; `None` does not filter.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Of this link.
    pub url_id: Option<LinkId>,
    /// By this user.
    pub user_id: Option<UserId>,
    /// Of this type.
    pub event_type: Option<String>,
    /// Not before.
    pub from: Option<DateTime<Utc>>,
    /// Before.
    pub to: Option<DateTime<Utc>>,
}

/// The word for what happened: 1 to 64 of `[0-9A-Za-z_.:-]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType(String);

impl EventType {
    /// What clicks are called.
    pub const CLICK: &str = "click";

    /// Checks a word.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let ok = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be 1 to 64 of 0-9, A-Z, a-z, _ . : -")
        }
    }

    /// A word for a client's own event: clicks are counted, not claimed.
    pub fn parse_own(text: &str) -> Result<Self, &'static str> {
        if text == Self::CLICK {
            return Err("may not be click: the service counts clicks itself");
        }
        Self::parse(text)
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
