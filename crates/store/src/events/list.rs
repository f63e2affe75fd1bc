//! Events and clicks in the order of time.

use chrono::{DateTime, Utc};
use linnet_telemetry::context::observe_query;

use linnet_domain::{
    ClickKind, Event, EventFilter, EventId, LinkId, Page, Subject, TimeSortKey, UserId, ValueKind,
    Visibility,
};

use super::super::{Store, StoreError};

/// An event, or a click with its attributes.
struct EventRow {
    id: EventId,
    url_id: Option<LinkId>,
    user_id: Option<UserId>,
    event_type: String,
    timestamp: DateTime<Utc>,
    /// `None` for a click.
    details: Option<serde_json::Value>,
    kind: Option<i16>,
    agent: Option<Vec<String>>,
    origin: Option<Vec<String>>,
    referrer: Option<Vec<String>>,
    campaign: Option<Vec<String>>,
}

impl Store {
    /// One page of the visible events and clicks, in the order of time. A user sees the events that it caused and those
    /// of its links. Clicks have no user, so a filter by user excludes them.
    pub async fn list_events(
        &self,
        filter: &EventFilter,
        visible_to: Visibility,
        page: Page<TimeSortKey>,
    ) -> Result<Vec<Event>, StoreError> {
        let start = TimeSortKey { time: filter.from, id: 0 }.max(page.after());
        let query = sqlx::query_file_as!(
            EventRow,
            "queries/list_events.sql",
            start.time,
            start.id,
            filter.to,
            visible_to.owner_filter(),
            filter.url_id.map(LinkId::get),
            filter.user_id.map(UserId::get),
            filter.event_type,
            page.size,
            page.offset(),
            visible_to.owner().map(|user_id| Subject::User(user_id).key())
        );
        let rows = observe_query("list_events", query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(Event::from).collect())
    }
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        let values = [
            (ValueKind::Agent, row.agent),
            (ValueKind::Origin, row.origin),
            (ValueKind::Referrer, row.referrer),
            (ValueKind::Campaign, row.campaign),
        ];
        Self {
            id: row.id,
            url_id: row.url_id,
            user_id: row.user_id,
            event_type: row.event_type,
            timestamp: row.timestamp,
            details: row.details.unwrap_or_else(|| click_details(row.kind, values)),
        }
    }
}

/// The details of a click: its kind and its known attributes, by the names of the dimensions of statistics.
fn click_details(
    kind: Option<i16>,
    values: [(ValueKind, Option<Vec<String>>); 4],
) -> serde_json::Value {
    let mut details = serde_json::Map::new();
    let kind = kind.and_then(|number| ClickKind::from_number(u8::try_from(number).ok()?));
    if let Some(kind) = kind {
        details.insert("kind".to_owned(), kind.name().into());
    }
    for (kind, parts) in values {
        let parts = parts.unwrap_or_default();
        for (name, part) in kind.parts().iter().zip(parts).filter(|(_, part)| !part.is_empty()) {
            details.insert((*name).to_owned(), part.into());
        }
    }
    details.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn click_details_contain_the_known_attributes() {
        let texts = |parts: &[&str]| Some(parts.iter().map(|part| (*part).to_owned()).collect());
        let values = [
            (ValueKind::Agent, texts(&["Firefox", "", "desktop"])),
            (ValueKind::Origin, None),
            (ValueKind::Referrer, texts(&["example.com"])),
            (ValueKind::Campaign, None),
        ];
        let expected = serde_json::json!({"kind": "bot", "browser": "Firefox", "device": "desktop",
            "referrer": "example.com"});
        assert_eq!(click_details(Some(1), values), expected);
    }
}
