//! Ingestion of clicks: lookups before writing, and the writing of groups.

mod counts;
mod group;
mod link_days;
mod raw;
mod write;

pub use counts::{KindCounts, ValueDelta};
pub use group::{
    ClickGroup, ClickRow, ClickTotals, DayDelta, HourDelta, LinkDelta, SHARDS, shard_of,
};
pub use link_days::{LinkDay, LinkDays};
pub(super) use write::lock_roll_ups;

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Utc};

use linnet_domain::{ClickValue, LinkId, Subject, UserId, ValueKind};

use super::{
    Store, StoreError,
    columns::{column, numbers},
};

/// The properties of a link that ingestion needs.
#[derive(Debug, Clone)]
pub struct LinkFacts {
    /// The link's id.
    pub id: LinkId,
    /// The owner.
    pub user_id: Option<UserId>,
    /// The target URL, if it may contain a campaign.
    pub campaign_target: Option<String>,
}

/// A page of [`Store::visitors_of_day`].
#[derive(Debug)]
pub struct VisitorPage {
    /// Link, owner and visitor hash.
    pub visitors: Vec<(LinkId, Option<UserId>, i64)>,
    /// Where the next page begins; `None` if this was the last one.
    pub next: Option<(LinkId, i64)>,
}

/// The shard of batches that were written before shards existed, which means all shards.
const ALL_SHARDS: i16 = 0;

/// Separates parts, which contain no control characters.
const PART_SEPARATOR: &str = "\u{1f}";

fn joined(value: &ClickValue) -> String {
    value.parts.join(PART_SEPARATOR)
}

impl Store {
    /// The shards of these batches that are already written. A batch without a written shard is left out.
    pub async fn written_shards(
        &self,
        ids: &[Vec<u8>],
    ) -> Result<HashMap<Vec<u8>, Vec<i16>>, StoreError> {
        let rows = sqlx::query!("SELECT id, shard FROM click_batches WHERE id = ANY($1)", ids)
            .fetch_all(&self.pool)
            .await?;
        let mut written: HashMap<Vec<u8>, Vec<i16>> = HashMap::new();
        for row in rows {
            let shards = written.entry(row.id).or_default();
            match row.shard {
                ALL_SHARDS => shards.extend(SHARDS),
                shard => shards.push(shard),
            }
        }
        Ok(written)
    }

    /// The properties of these links. Deleted links are left out.
    pub async fn link_facts(&self, ids: &[LinkId]) -> Result<Vec<LinkFacts>, StoreError> {
        Ok(sqlx::query_as!(
            LinkFacts,
            r#"SELECT id AS "id: LinkId", user_id AS "user_id: UserId",
                      CASE WHEN original_url LIKE '%utm\_%' THEN original_url END AS campaign_target
                 FROM urls WHERE id = ANY($1)"#,
            &numbers(ids)
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Those of these deleted links that have no event any more: the history of their owner was erased.
    pub async fn links_without_history(&self, ids: &[LinkId]) -> Result<Vec<LinkId>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT id AS "id!: LinkId" FROM UNNEST($1::bigint[]) AS deleted (id)
                WHERE NOT EXISTS (SELECT FROM events WHERE url_id = deleted.id)"#,
            &numbers(ids)
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The ids of these values. New values are left out.
    pub async fn find_click_values(
        &self,
        values: &[ClickValue],
    ) -> Result<Vec<(ClickValue, i32)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id, stored.kind, parts FROM click_values AS stored
                 JOIN UNNEST($1::smallint[], $2::text[]) AS wanted (kind, joined)
                   ON stored.kind = wanted.kind
                  AND stored.parts = string_to_array(wanted.joined, $3)"#,
            &column(values, |value| value.kind.number()),
            &column(values, joined),
            PART_SEPARATOR
        )
        .fetch_all(&self.pool)
        .await?;
        let kind_of = |number| ValueKind::ALL.into_iter().find(|kind| kind.number() == number);
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                Some((ClickValue { kind: kind_of(row.kind)?, parts: row.parts }, row.id))
            })
            .collect())
    }

    /// Inserts these values, which gives them ids. Values with ids are left as they are.
    pub async fn add_click_values(&self, values: &[ClickValue]) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO click_values (kind, parts)
             SELECT kind, string_to_array(joined, $3)
               FROM UNNEST($1::smallint[], $2::text[]) AS wanted (kind, joined)
             ON CONFLICT DO NOTHING",
            &column(values, |value| value.kind.number()),
            &column(values, joined),
            PART_SEPARATOR
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The number of values of each kind.
    pub async fn count_click_values(&self) -> Result<HashMap<i16, i64>, StoreError> {
        let rows =
            sqlx::query!(r#"SELECT kind, count(*) AS "count!" FROM click_values GROUP BY kind"#);
        let rows = rows.fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(|row| (row.kind, row.count)).collect())
    }

    /// The visitor keys of these days. A day without a key gets the offered one.
    pub async fn ensure_visitor_keys(
        &self,
        offered: &[(NaiveDate, [u8; 16])],
    ) -> Result<Vec<(NaiveDate, [u8; 16])>, StoreError> {
        let days = column(offered, |(day, _)| *day);
        let keys = column(offered, |(_, key)| key.to_vec());
        sqlx::query!(
            "INSERT INTO visitor_keys (day, key)
             SELECT * FROM UNNEST($1::date[], $2::bytea[]) ON CONFLICT DO NOTHING",
            &days,
            &keys
        )
        .execute(&self.pool)
        .await?;
        let rows = sqlx::query!("SELECT day, key FROM visitor_keys WHERE day = ANY($1)", &days)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().filter_map(|row| Some((row.day, row.key.try_into().ok()?))).collect())
    }

    /// Whether the roll-up of the whole service has visitors on this day.
    pub async fn had_visitors(&self, day: NaiveDate) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM click_days
                 WHERE subject = $1 AND day = $2 AND visitors > 0) AS "had!""#,
            Subject::Service.key(),
            day
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Up to `limit` visitors of a day after the link and visitor `after`, in the order of links and visitors. Only
    /// clicks by people count.
    ///
    /// A page is from the next `limit` rows of raw clicks, so that no page reads the whole day. It may be empty, although
    /// there are more.
    pub async fn visitors_of_day(
        &self,
        day: NaiveDate,
        after: Option<(LinkId, i64)>,
        limit: i64,
    ) -> Result<VisitorPage, StoreError> {
        let (from, to) = utc_day(day);
        let after_link = after.map_or(0, |(url_id, _)| url_id.get());
        let last_link = sqlx::query_scalar!(
            r#"SELECT max(url_id) AS "url_id: LinkId"
                 FROM (SELECT url_id
                         FROM ((SELECT url_id FROM clicks
                                 WHERE clicked_at >= $1 AND clicked_at < $2 AND url_id > $3
                                 ORDER BY url_id LIMIT $4)
                               UNION ALL
                               (SELECT url_id FROM raw_clicks
                                 WHERE clicked_at >= $1 AND clicked_at < $2 AND url_id > $3
                                 ORDER BY url_id LIMIT $4)) AS click
                        ORDER BY url_id LIMIT $4) AS next"#,
            from,
            to,
            after_link,
            limit
        )
        .fetch_one(&self.pool)
        .await?;
        let rows = sqlx::query!(
            r#"SELECT seen.url_id AS "url_id!: LinkId", urls.user_id AS "user_id?: UserId",
                      seen.visitor AS "visitor!"
                 FROM (SELECT DISTINCT url_id, visitor
                         FROM (SELECT url_id, visitor, kind FROM clicks
                                WHERE clicked_at >= $1 AND clicked_at < $2
                                  AND url_id >= $3 AND url_id <= $6
                               UNION ALL
                               SELECT url_id, click.visitor, kind
                                 FROM raw_clicks CROSS JOIN LATERAL clicks_of(raw_clicks) AS click
                                WHERE raw_clicks.clicked_at >= $1 AND raw_clicks.clicked_at < $2
                                  AND url_id >= $3 AND url_id <= $6) AS click
                        WHERE kind = 0 AND visitor IS NOT NULL AND (url_id, visitor) > ($3, $4)
                        ORDER BY url_id, visitor LIMIT $5) AS seen
                 LEFT JOIN urls ON urls.id = seen.url_id
                ORDER BY 1, 3"#,
            from,
            to,
            after_link,
            after.map_or(0, |(_, visitor)| visitor),
            limit,
            last_link.map_or(after_link, LinkId::get)
        )
        .fetch_all(&self.pool)
        .await?;
        let visitors: Vec<_> =
            rows.into_iter().map(|row| (row.url_id, row.user_id, row.visitor)).collect();
        let is_full = i64::try_from(visitors.len()).is_ok_and(|count| count >= limit);
        let next = match visitors.last() {
            Some((url_id, _, visitor)) if is_full => Some((*url_id, *visitor)),
            _ => last_link.map(|url_id| (url_id, i64::MAX)),
        };
        Ok(VisitorPage { visitors, next })
    }
}

/// The start and the end of a UTC day.
pub(crate) fn utc_day(day: NaiveDate) -> (DateTime<Utc>, DateTime<Utc>) {
    let from = day.and_time(chrono::NaiveTime::MIN).and_utc();
    (from, from + chrono::Days::new(1))
}
