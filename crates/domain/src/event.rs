//! Events: the history of links. Clicks are listed as events, but have their own table.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{EventDetails, EventId, LinkId, UserId};

/// An event in the history of a link.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Event {
    /// The event's id.
    #[schema(value_type = i64)]
    pub id: EventId,
    /// The link, which may be deleted.
    #[schema(value_type = Option<i64>)]
    pub url_id: Option<LinkId>,
    /// The user who caused it; null for a caller without a key.
    #[schema(value_type = Option<i64>)]
    pub user_id: Option<UserId>,
    /// `created`, `updated`, `deleted`, `click`, or a client's own type.
    pub event_type: String,
    /// When it happened.
    pub timestamp: DateTime<Utc>,
    /// Details; always an object.
    #[schema(value_type = Object)]
    pub details: EventDetails,
}

/// An event to create for a client.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The link, which must exist.
    pub url_id: LinkId,
    /// The user, who must exist.
    pub user_id: Option<UserId>,
    /// The type.
    pub event_type: EventType,
    /// Details.
    pub details: EventDetails,
}

/// A filter for lists of events; a `None` field matches every event.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// The link.
    pub url_id: Option<LinkId>,
    /// The user who caused the event.
    pub user_id: Option<UserId>,
    /// The type.
    pub event_type: Option<String>,
    /// The earliest time, inclusive.
    pub from: Option<DateTime<Utc>>,
    /// The latest time, exclusive.
    pub to: Option<DateTime<Utc>>,
}

/// The type of an event: 1 to 64 of `[0-9A-Za-z_.:-]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType(String);

impl EventType {
    /// The type of clicks.
    pub const CLICK: &str = "click";

    /// Checks a type.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let is_valid = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
        if is_valid {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be 1 to 64 characters of 0-9, A-Z, a-z, _ . : -")
        }
    }

    /// Checks the type of a client's own event, which must not be [`Self::CLICK`].
    pub fn parse_own(text: &str) -> Result<Self, &'static str> {
        if text == Self::CLICK {
            return Err("must not be click: the service records clicks itself");
        }
        Self::parse(text)
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_1_to_64_characters() {
        for good in ["a", "a.b:c_d-E9", &"x".repeat(64)] {
            assert_eq!(EventType::parse(good).unwrap().as_str(), good);
            assert_eq!(EventType::parse_own(good).unwrap().as_str(), good);
        }
        for bad in ["", &"x".repeat(65), "a b", "a/b", "\u{e9}", "a\0"] {
            assert!(EventType::parse(bad).is_err(), "{bad:?}");
            assert!(EventType::parse_own(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn clients_create_no_clicks() {
        assert!(EventType::parse_own("click").unwrap_err().starts_with("must not be click"));
        assert!(EventType::parse("click").is_ok());
        assert!(EventType::parse_own("clicks").is_ok());
    }
}
