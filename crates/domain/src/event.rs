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
    /// One of Linnet's types (`created`, `updated`, `deleted`, `taken_down`, `restored`, `click`), or a client's own type.
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
    /// The types that only Linnet records. A client's event of such a type would falsify the history of a link.
    pub const OF_LINNET: [&str; 6] =
        [Self::CLICK, "created", "updated", "deleted", "taken_down", "restored"];

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

    /// Checks the type of a client's own event, which must not be in [`Self::OF_LINNET`].
    pub fn parse_own(text: &str) -> Result<Self, &'static str> {
        if Self::OF_LINNET.contains(&text) {
            return Err(
                "must not be click, created, updated, deleted, taken_down or restored: only the service records these",
            );
        }
        Self::parse(text)
    }

    /// The regular expression of the types that [`Self::parse_own`] accepts.
    pub fn own_pattern() -> String {
        format!("^(?!({})$)[0-9A-Za-z_.:-]{{1,64}}$", Self::OF_LINNET.join("|"))
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
    fn clients_record_no_event_of_a_type_of_linnet() {
        for name in EventType::OF_LINNET {
            let rule = EventType::parse_own(name).unwrap_err();
            assert!(rule.starts_with("must not be ") && rule.contains(name), "{name}: {rule}");
            // Imports and filters accept them.
            assert!(EventType::parse(name).is_ok());
            for own in [format!("{name}s"), format!("my.{name}"), name.to_uppercase()] {
                assert!(EventType::parse_own(&own).is_ok(), "{own}");
            }
        }
    }
}
