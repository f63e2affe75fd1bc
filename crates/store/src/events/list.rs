//! Events and clicks in the order of time.

use crate::observe::observe_query;
use chrono::{DateTime, Utc};

use linnet_domain::{
    ClickKind, Event, EventDetails, EventFilter, EventId, LinkId, Page, Subject, TimeSortKey,
    UserId, ValueKind, Visibility,
};

use super::super::{Store, StoreError};

/// The maximum size of all details of one page, in bytes. It bounds the memory of a page.
const MAX_PAGE_BYTES: i64 = 1024 * 1024;

/// One page of events.
#[derive(Debug)]
pub struct EventPage {
    /// The events, in the order of time.
    pub events: Vec<Event>,
    /// The last event, if the page ends before its size because its details would have exceeded 1 MiB.
    pub cut_after: Option<TimeSortKey>,
}

/// An event, or a click with its attributes.
struct EventRow {
    id: EventId,
    url_id: Option<LinkId>,
    user_id: Option<UserId>,
    event_type: String,
    timestamp: DateTime<Utc>,
    /// `None` for a click.
    details: Option<EventDetails>,
    /// The rows of the page before it is cut.
    rows: i64,
    kind: Option<i16>,
    agent: Option<Vec<String>>,
    origin: Option<Vec<String>>,
    referrer: Option<Vec<String>>,
    campaign: Option<Vec<String>>,
}

impl Store {
    /// One page of the visible events and clicks, in the order of time. A user sees the events that it caused and those
    /// of its links. Clicks have no user, so a filter by user excludes them. A page ends before its size when its
    /// details exceed 1 MiB, but has at least one event.
    pub async fn list_events(
        &self,
        filter: &EventFilter,
        visible_to: Visibility,
        page: Page<TimeSortKey>,
    ) -> Result<EventPage, StoreError> {
        self.read(async |store| store.list_events_once(filter, visible_to, page).await).await
    }

    async fn list_events_once(
        &self,
        filter: &EventFilter,
        visible_to: Visibility,
        page: Page<TimeSortKey>,
    ) -> Result<EventPage, StoreError> {
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
            visible_to.owner().map(|user_id| Subject::User(user_id).key()),
            MAX_PAGE_BYTES
        );
        let rows = observe_query("list_events", query.fetch_all(&self.pool)).await?;
        let whole = rows.first().map_or(0, |row| row.rows);
        let is_cut = i64::try_from(rows.len()).is_ok_and(|count| count < whole);
        let events = rows.into_iter().map(Event::try_from).collect::<Result<Vec<_>, _>>();
        let events = events.map_err(StoreError::Failed)?;
        let last = events.last().filter(|_| is_cut);
        let cut_after =
            last.map(|last| TimeSortKey { time: Some(last.timestamp), id: last.id.get() });
        Ok(EventPage { events, cut_after })
    }
}

impl TryFrom<EventRow> for Event {
    type Error = sqlx::Error;

    fn try_from(row: EventRow) -> Result<Self, sqlx::Error> {
        let values = [
            (ValueKind::Agent, row.agent),
            (ValueKind::Origin, row.origin),
            (ValueKind::Referrer, row.referrer),
            (ValueKind::Campaign, row.campaign),
        ];
        let details = match row.details {
            Some(details) => details,
            None => EventDetails::from_value(&click_details(row.kind, values))
                .map_err(|error| sqlx::Error::Decode(error.into()))?,
        };
        Ok(Self {
            id: row.id,
            url_id: row.url_id,
            user_id: row.user_id,
            event_type: row.event_type,
            timestamp: row.timestamp,
            details,
        })
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
