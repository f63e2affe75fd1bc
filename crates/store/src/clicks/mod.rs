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
    /// Link, owner and visitor hash. The same visitor may be on several pages.
    pub visitors: Vec<(LinkId, Option<UserId>, i64)>,
    /// Where the next page begins; `None` if this was the last one.
    pub next: Option<VisitorPosition>,
}

/// A place in the raw clicks of a day: behind the rows of this link and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisitorPosition {
    /// The link.
    pub link_id: LinkId,
    /// The time of the row.
    pub at: DateTime<Utc>,
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

    /// The visitors in the next `limit` rows of a day's raw clicks, and in those of the same link and time as the last of
    /// them. Only clicks by people count.
    ///
    /// All pages together read each row once, also those of a link with many clicks. A page may be empty, although there are
    /// more.
    pub async fn visitors_of_day(
        &self,
        day: NaiveDate,
        after: Option<VisitorPosition>,
        limit: i64,
    ) -> Result<VisitorPage, StoreError> {
        let (from, to) = utc_day(day);
        // Rows of `clicks` are written as rows of `raw_clicks` with one click.
        let rows = sqlx::query!(
            r#"WITH page AS MATERIALIZED (
                 SELECT url_id, clicked_at, run
                   FROM ((SELECT url_id, clicked_at, ROW(id, clicked_at, url_id, visitor, kind::integer, NULL,
                                 NULL, NULL)::raw_clicks AS run
                            FROM clicks
                           WHERE clicked_at >= $1 AND clicked_at < $2 AND (url_id, clicked_at) > ($3, $4)
                           ORDER BY url_id, clicked_at FETCH FIRST ($5::bigint) ROWS WITH TIES)
                         UNION ALL
                         (SELECT url_id, clicked_at, raw_clicks AS run
                            FROM raw_clicks
                           WHERE clicked_at >= $1 AND clicked_at < $2 AND (url_id, clicked_at) > ($3, $4)
                           ORDER BY url_id, clicked_at FETCH FIRST ($5::bigint) ROWS WITH TIES)) AS next
                  ORDER BY url_id, clicked_at FETCH FIRST ($5::bigint) ROWS WITH TIES
               )
               SELECT page.url_id AS "url_id!: LinkId", page.clicked_at AS "clicked_at!",
                      urls.user_id AS "user_id?: UserId", click.visitor AS "visitor?"
                 FROM page
                 LEFT JOIN LATERAL (SELECT DISTINCT visitor FROM clicks_of(page.run)
                                     WHERE kind = 0 AND visitor IS NOT NULL) AS click ON true
                 LEFT JOIN urls ON urls.id = page.url_id
                ORDER BY page.url_id, page.clicked_at"#,
            from,
            to,
            after.map_or(0, |after| after.link_id.get()),
            after.map_or(from, |after| after.at),
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        let next =
            rows.last().map(|row| VisitorPosition { link_id: row.url_id, at: row.clicked_at });
        let visitors =
            rows.into_iter().filter_map(|row| Some((row.url_id, row.user_id, row.visitor?)));
        Ok(VisitorPage { visitors: visitors.collect(), next })
    }
}

/// The start and the end of a UTC day.
pub(crate) fn utc_day(day: NaiveDate) -> (DateTime<Utc>, DateTime<Utc>) {
    let from = day.and_time(chrono::NaiveTime::MIN).and_utc();
    (from, from + chrono::Days::new(1))
}
