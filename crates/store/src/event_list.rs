//! Events and clicks in the order of time.
//!
//! One statement of several branches, of which the filters leave two at most. Each follows an index
//! in the list's order and ends at the page's end, so a page costs what it holds. Conditions on
//! parameters alone switch whole branches off, also in a plan that is made before they are known.

use chrono::{DateTime, Utc};
use linnet_telemetry::context::observe_query;

use linnet_domain::{
    ClickKind, Event, EventFilter, EventId, LinkId, Page, Subject, TimeSortKey, UserId, ValueKind,
    Visibility,
};

use super::{Store, StoreError};

/// An event, or a click with its values.
struct Row {
    id: EventId,
    url_id: Option<LinkId>,
    user_id: Option<UserId>,
    event_type: String,
    timestamp: DateTime<Utc>,
    details: Option<serde_json::Value>,
    kind: Option<i16>,
    agent: Option<Vec<String>>,
    origin: Option<Vec<String>>,
    referrer: Option<Vec<String>>,
    campaign: Option<Vec<String>>,
}

impl Store {
    /// One page of events and clicks. A user sees what it did itself, and what happened to its links.
    ///
    /// Clicks know no user, so a filter by user leaves them out. For a user without a filter by link,
    /// the roll-ups say which links have clicks on which days, and until which hour there are enough of
    /// them for the page: else each link would be looked up in each day there is.
    #[expect(clippy::too_many_lines, reason = "one statement, which parts would hide")]
    pub async fn list_events(
        &self,
        filter: &EventFilter,
        visible_to: Visibility,
        page: Page<TimeSortKey>,
    ) -> Result<Vec<Event>, StoreError> {
        // The beginning is a point of the list like a cursor is.
        let start = TimeSortKey { time: filter.from, id: 0 }.max(page.after());
        let query = sqlx::query_as!(
            Row,
            r#"WITH hours AS (
                 SELECT first, COALESCE((SELECT hour
                    FROM (SELECT hour, sum(clicks + bots + prefetches + heads) OVER (ORDER BY hour)
                                         AS seen
                            FROM click_hours
                           WHERE subject = $10::bigint AND hour >= first
                             AND hour > COALESCE($1::timestamptz, '-infinity')) AS counted
                   WHERE seen >= $8::bigint + $9::bigint ORDER BY hour LIMIT 1), 'infinity') AS last
                   FROM (SELECT GREATEST(date_trunc('hour', $1, 'UTC'), date_trunc('hour',
                           (SELECT min(clicked_at) FROM clicks), 'UTC')) AS first) AS oldest
               ), event AS (
                 -- Everybody's.
                 (SELECT * FROM events
                   WHERE $4::bigint IS NULL AND $5::bigint IS NULL AND $6::bigint IS NULL
                     AND $7::text IS DISTINCT FROM 'click' AND ($7 IS NULL OR event_type = $7)
                     AND (timestamp, id) > (COALESCE($1, '-infinity'), $2::bigint)
                     AND timestamp < COALESCE($3::timestamptz, 'infinity')
                   ORDER BY timestamp, id LIMIT $8 + $9)
                 UNION ALL
                 -- One link's.
                 (SELECT * FROM events
                   WHERE url_id = $5 AND ($6 IS NULL OR user_id = $6)
                     AND ($4 IS NULL OR user_id = $4
                          OR EXISTS (SELECT FROM urls WHERE urls.id = $5 AND urls.user_id = $4))
                     AND $7 IS DISTINCT FROM 'click' AND ($7 IS NULL OR event_type = $7)
                     AND (timestamp, id) > (COALESCE($1, '-infinity'), $2)
                     AND timestamp < COALESCE($3, 'infinity')
                   ORDER BY timestamp, id LIMIT $8 + $9)
                 UNION ALL
                 -- A user's own deeds, and what happened to each of its links.
                 ((SELECT * FROM events
                    WHERE $5 IS NULL AND user_id = COALESCE($4, $6) AND ($6 IS NULL OR user_id = $6)
                      AND $7 IS DISTINCT FROM 'click' AND ($7 IS NULL OR event_type = $7)
                      AND (timestamp, id) > (COALESCE($1, '-infinity'), $2)
                      AND timestamp < COALESCE($3, 'infinity')
                    ORDER BY timestamp, id LIMIT $8 + $9)
                  UNION
                  (SELECT found.* FROM urls CROSS JOIN LATERAL (
                     SELECT * FROM events
                      WHERE events.url_id = urls.id AND ($6 IS NULL OR events.user_id = $6)
                        AND ($7 IS NULL OR event_type = $7)
                        AND (timestamp, id) > (COALESCE($1, '-infinity'), $2)
                        AND timestamp < COALESCE($3, 'infinity')
                      ORDER BY timestamp, id LIMIT $8 + $9) AS found
                    WHERE urls.user_id = $4 AND $5 IS NULL AND $7 IS DISTINCT FROM 'click'
                    ORDER BY timestamp, id LIMIT $8 + $9))
               ), click AS (
                 (SELECT * FROM clicks
                   WHERE $4 IS NULL AND $5 IS NULL AND $6 IS NULL AND COALESCE($7, 'click') = 'click'
                     AND clicked_at >= COALESCE($1, '-infinity')
                     AND (clicked_at, id) > (COALESCE($1, '-infinity'), $2)
                     AND clicked_at < COALESCE($3, 'infinity')
                   ORDER BY clicked_at, id LIMIT $8 + $9)
                 UNION ALL
                 (SELECT * FROM clicks
                   WHERE url_id = $5 AND $6 IS NULL AND COALESCE($7, 'click') = 'click'
                     AND ($4 IS NULL
                          OR EXISTS (SELECT FROM urls WHERE urls.id = $5 AND urls.user_id = $4))
                     AND clicked_at >= COALESCE($1, '-infinity')
                     AND (clicked_at, id) > (COALESCE($1, '-infinity'), $2)
                     AND clicked_at < COALESCE($3, 'infinity')
                   ORDER BY clicked_at, id LIMIT $8 + $9)
                 UNION ALL
                 (SELECT found.* FROM (
                     SELECT urls.id AS clicked_id, day FROM urls JOIN click_link_days ON url_id = urls.id
                      WHERE urls.user_id = $4
                        AND day >= (SELECT (first AT TIME ZONE 'UTC')::date FROM hours)
                        AND day <= (SELECT (last AT TIME ZONE 'UTC')::date FROM hours)
                     -- Days may be in both tables, and their clicks are listed once.
                     UNION
                     SELECT urls.id, day FROM urls JOIN click_days ON subject = urls.id
                      WHERE urls.user_id = $4
                        AND day >= (SELECT (first AT TIME ZONE 'UTC')::date FROM hours)
                        AND day <= (SELECT (last AT TIME ZONE 'UTC')::date FROM hours)) AS clicked
                   CROSS JOIN LATERAL (
                     SELECT * FROM clicks
                      WHERE url_id = clicked_id
                        AND clicked_at >= GREATEST(day::timestamp AT TIME ZONE 'UTC',
                                                   COALESCE($1, '-infinity'))
                        AND clicked_at < LEAST((day + 1)::timestamp AT TIME ZONE 'UTC',
                                               (SELECT last + interval '1 hour' FROM hours),
                                               COALESCE($3, 'infinity'))
                        AND (clicked_at, id) > (COALESCE($1, '-infinity'), $2)
                      ORDER BY clicked_at, id LIMIT $8 + $9) AS found
                   WHERE $5 IS NULL AND $6 IS NULL AND COALESCE($7, 'click') = 'click'
                   ORDER BY clicked_at, id LIMIT $8 + $9)
               ), page AS (
                 SELECT id, url_id, user_id, event_type, timestamp, details, NULL::smallint AS kind,
                        NULL::integer AS agent_id, NULL::integer AS origin_id,
                        NULL::integer AS referrer_id, NULL::integer AS campaign_id
                   FROM event
                 UNION ALL
                 SELECT id, url_id, NULL, 'click', clicked_at, NULL, kind,
                        agent_id, origin_id, referrer_id, campaign_id
                   FROM click
                  ORDER BY timestamp, id LIMIT $8 OFFSET $9
               )
               -- Not joins: those would read all values there are to find a page's.
               SELECT id AS "id!: EventId", url_id AS "url_id: LinkId",
                      user_id AS "user_id: UserId", event_type AS "event_type!",
                      timestamp AS "timestamp!", details AS "details?", kind AS "kind?",
                      (SELECT parts FROM click_values WHERE id = agent_id) AS agent,
                      (SELECT parts FROM click_values WHERE id = origin_id) AS origin,
                      (SELECT parts FROM click_values WHERE id = referrer_id) AS referrer,
                      (SELECT parts FROM click_values WHERE id = campaign_id) AS campaign
                 FROM page
                ORDER BY timestamp, id"#,
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

impl From<Row> for Event {
    fn from(row: Row) -> Self {
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

/// What is known of a click, by the names that the statistics have.
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
    fn a_click_tells_what_is_known() {
        let texts = |parts: &[&str]| Some(parts.iter().map(|part| (*part).to_owned()).collect());
        let values = [
            (ValueKind::Agent, texts(&["Firefox", "", "desktop"])),
            (ValueKind::Origin, None),
            (ValueKind::Referrer, texts(&["example.com"])),
            (ValueKind::Campaign, None),
        ];
        let wanted = serde_json::json!({"kind": "bot", "browser": "Firefox", "device": "desktop",
            "referrer": "example.com"});
        assert_eq!(click_details(Some(1), values), wanted);
    }
}
