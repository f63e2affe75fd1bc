//! Clicks: raw rows and roll-ups, written together or not at all.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{PgConnection, postgres::PgCopyIn};

use crate::domain::{ClickValue, ValueKind};

use super::{Store, StoreError, copy::BinaryRows};

/// A raw click.
#[derive(Debug, Clone, Copy)]
pub struct ClickRow {
    /// When.
    pub at: DateTime<Utc>,
    /// Which link.
    pub url_id: i64,
    /// `ClickKind`'s number.
    pub kind: i16,
    /// The visitor's hash.
    pub visitor: Option<i64>,
    /// Ids of `click_values`, in the order of `ValueKind::ALL`.
    pub values: [Option<i32>; 4],
}

/// How many, by what the requests were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindCounts {
    /// People's clicks.
    pub clicks: i64,
    /// Bots.
    pub bots: i64,
    /// Prefetches.
    pub prefetches: i64,
    /// `HEAD` requests.
    pub heads: i64,
}

/// What is added to a row of `click_hours`.
#[derive(Debug, Clone, Copy)]
pub struct HourDelta {
    /// A link, a user negated, or 0 for all.
    pub subject: i64,
    /// The hour's beginning.
    pub hour: DateTime<Utc>,
    /// What is added.
    pub counts: KindCounts,
}

/// What is added to a row of `click_days`.
#[derive(Debug, Clone, Copy)]
pub struct DayDelta {
    /// As in [`HourDelta`].
    pub subject: i64,
    /// The UTC day.
    pub day: NaiveDate,
    /// What is added.
    pub counts: KindCounts,
    /// Visitors of the whole day so far: replaces a lower number.
    pub visitors: i64,
}

/// What is added to a row of `click_days_by_value`.
#[derive(Debug, Clone, Copy)]
pub struct ValueDelta {
    /// As in [`HourDelta`].
    pub subject: i64,
    /// The UTC day.
    pub day: NaiveDate,
    /// An id of `click_values`.
    pub value_id: i32,
    /// What is added.
    pub clicks: i64,
}

/// What is added to a link.
#[derive(Debug, Clone, Copy)]
pub struct LinkDelta {
    /// The link.
    pub url_id: i64,
    /// Clicks that its own counter does not have yet.
    pub clicks: i64,
    /// The latest of them.
    pub last: DateTime<Utc>,
}

/// Batches of clicks with everything that follows from them. Each list is in the order in which its
/// rows are to be locked.
#[derive(Debug, Clone, Default)]
pub struct ClickGroup {
    /// The batches' ids.
    pub batches: Vec<Vec<u8>>,
    /// Raw rows.
    pub rows: Vec<ClickRow>,
    /// Hours.
    pub hours: Vec<HourDelta>,
    /// Days.
    pub days: Vec<DayDelta>,
    /// Days by value.
    pub values: Vec<ValueDelta>,
    /// Links.
    pub links: Vec<LinkDelta>,
}

/// What ingestion must know of a link.
#[derive(Debug, Clone)]
pub struct LinkFacts {
    /// The link.
    pub id: i64,
    /// Its owner.
    pub user_id: Option<i64>,
    /// Its target, if that may name a campaign.
    pub campaign_target: Option<String>,
}

/// Rows that are sent at a time: their bytes are in memory three times over on the way.
const AT_ONCE: usize = 4_096;

/// No part has control characters, so this one can stand between them.
const PART_SEPARATOR: &str = "\u{1f}";

fn joined(value: &ClickValue) -> String {
    value.parts.join(PART_SEPARATOR)
}

fn column<T, V>(items: &[T], of: impl Fn(&T) -> V) -> Vec<V> {
    items.iter().map(of).collect()
}

impl Store {
    /// Which of these batches are written already.
    pub async fn known_batches(&self, ids: &[Vec<u8>]) -> Result<HashSet<Vec<u8>>, StoreError> {
        let known = sqlx::query_scalar!("SELECT id FROM click_batches WHERE id = ANY($1)", ids)
            .fetch_all(&self.pool)
            .await?;
        Ok(known.into_iter().collect())
    }

    /// Writes a group in one transaction. False, and nothing is written, when one of its batches is
    /// there already: another worker was faster.
    pub async fn write_clicks(&self, group: &ClickGroup) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let fresh = sqlx::query!(
            "INSERT INTO click_batches (id) SELECT * FROM UNNEST($1::bytea[]) ON CONFLICT DO NOTHING",
            &group.batches
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if fresh != group.batches.len() as u64 {
            transaction.rollback().await?;
            return Ok(false);
        }
        write_rows(&mut transaction, &group.rows).await?;
        // Every group has the most clicked links, so roll-ups of two groups would wait for each other
        // row by row. Waiting once, here, costs less; raw rows are written side by side.
        sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended('linnet.click_roll_ups', 0))")
            .execute(&mut *transaction)
            .await?;
        for part in group.hours.chunks(AT_ONCE) {
            add_hours(&mut transaction, part).await?;
        }
        for part in group.days.chunks(AT_ONCE) {
            add_days(&mut transaction, part).await?;
        }
        for part in group.values.chunks(AT_ONCE) {
            add_to_values(&mut transaction, part).await?;
        }
        // Last, since edits of these rows wait until the commit.
        for part in group.links.chunks(AT_ONCE) {
            add_to_links(&mut transaction, part).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Owner and campaign of links; those that are gone are left out.
    pub async fn link_facts(&self, ids: &[i64]) -> Result<Vec<LinkFacts>, StoreError> {
        Ok(sqlx::query_as!(
            LinkFacts,
            r#"SELECT id, user_id,
                      CASE WHEN original_url LIKE '%utm\_%' THEN original_url END AS campaign_target
                 FROM urls WHERE id = ANY($1)"#,
            ids
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The ids of those values that have one.
    pub async fn find_values(
        &self,
        values: &[ClickValue],
    ) -> Result<Vec<(ClickValue, i32)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id, held.kind, parts FROM click_values AS held
                 JOIN UNNEST($1::smallint[], $2::text[]) AS wanted (kind, joined)
                   ON held.kind = wanted.kind
                  AND held.parts = string_to_array(wanted.joined, $3)"#,
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

    /// Gives these values ids, unless they have some.
    pub async fn add_values(&self, values: &[ClickValue]) -> Result<(), StoreError> {
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

    /// How many values there are of each kind.
    pub async fn count_values(&self) -> Result<HashMap<i16, i64>, StoreError> {
        let rows =
            sqlx::query!(r#"SELECT kind, count(*) AS "count!" FROM click_values GROUP BY kind"#);
        let rows = rows.fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(|row| (row.kind, row.count)).collect())
    }

    /// The visitors' keys of these days; a day without one gets the one that is offered.
    pub async fn visitor_keys(
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

    /// Whether the whole service had visitors on this day, by its roll-up.
    pub async fn had_visitors(&self, day: NaiveDate) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM click_days
                 WHERE subject = 0 AND day = $1 AND visitors > 0) AS "had!""#,
            day
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// People's visitors of a day, link by link from `after` on: at most `limit` rows of link, owner and
    /// visitor, in the order of links and visitors.
    pub async fn visitors_of_day(
        &self,
        day: NaiveDate,
        after: (i64, i64),
        limit: i64,
    ) -> Result<Vec<(i64, Option<i64>, i64)>, StoreError> {
        let (from, to) = utc_day(day);
        let rows = sqlx::query!(
            r#"SELECT seen.url_id AS "url_id!", urls.user_id AS "user_id?", seen.visitor AS "visitor!"
                 FROM (SELECT DISTINCT url_id, visitor FROM clicks
                        WHERE clicked_at >= $1 AND clicked_at < $2 AND kind = 0
                          AND visitor IS NOT NULL AND (url_id, visitor) > ($3, $4)
                        ORDER BY url_id, visitor LIMIT $5) AS seen
                 LEFT JOIN urls ON urls.id = seen.url_id
                ORDER BY 1, 3"#,
            from,
            to,
            after.0,
            after.1,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.url_id, row.user_id, row.visitor)).collect())
    }
}

/// A UTC day's beginning and end.
pub(crate) fn utc_day(day: NaiveDate) -> (DateTime<Utc>, DateTime<Utc>) {
    let from = day.and_time(chrono::NaiveTime::MIN).and_utc();
    (from, from + chrono::Days::new(1))
}

async fn send_rows(
    copy: &mut PgCopyIn<&mut PgConnection>,
    rows: &[ClickRow],
) -> Result<(), sqlx::Error> {
    let mut binary = BinaryRows::new(rows.len().min(AT_ONCE) * 96);
    for part in rows.chunks(AT_ONCE) {
        for row in part {
            binary.begin(4 + row.values.len());
            binary.timestamp(row.at);
            binary.bigint(row.url_id);
            binary.smallint(row.kind);
            binary.nullable(row.visitor, BinaryRows::bigint);
            for value in row.values {
                binary.nullable(value, BinaryRows::integer);
            }
        }
        copy.send(binary.bytes()).await?;
        binary.forget_sent();
    }
    copy.send(binary.finish()).await?;
    Ok(())
}

async fn write_rows(connection: &mut PgConnection, rows: &[ClickRow]) -> Result<(), StoreError> {
    let mut copy = connection
        .copy_in_raw(
            "COPY clicks (clicked_at, url_id, kind, visitor, agent_id, origin_id, referrer_id,
                          campaign_id) FROM STDIN (FORMAT binary)",
        )
        .await?;
    if let Err(error) = send_rows(&mut copy, rows).await {
        // The first error is the one that matters.
        let _ = copy.abort("the rows could not be sent").await;
        return Err(error.into());
    }
    copy.finish().await?;
    Ok(())
}

async fn add_hours(connection: &mut PgConnection, hours: &[HourDelta]) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO click_hours AS held (subject, hour, clicks, bots, prefetches, heads)
         SELECT * FROM UNNEST($1::bigint[], $2::timestamptz[], $3::bigint[], $4::bigint[],
             $5::bigint[], $6::bigint[])
         ON CONFLICT (subject, hour) DO UPDATE SET
             clicks = held.clicks + EXCLUDED.clicks, bots = held.bots + EXCLUDED.bots,
             prefetches = held.prefetches + EXCLUDED.prefetches,
             heads = held.heads + EXCLUDED.heads",
        &column(hours, |row| row.subject),
        &column(hours, |row| row.hour),
        &column(hours, |row| row.counts.clicks),
        &column(hours, |row| row.counts.bots),
        &column(hours, |row| row.counts.prefetches),
        &column(hours, |row| row.counts.heads)
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_days(connection: &mut PgConnection, days: &[DayDelta]) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO click_days AS held (subject, day, clicks, bots, prefetches, heads, visitors)
         SELECT * FROM UNNEST($1::bigint[], $2::date[], $3::bigint[], $4::bigint[], $5::bigint[],
             $6::bigint[], $7::bigint[])
         ON CONFLICT (subject, day) DO UPDATE SET
             clicks = held.clicks + EXCLUDED.clicks, bots = held.bots + EXCLUDED.bots,
             prefetches = held.prefetches + EXCLUDED.prefetches,
             heads = held.heads + EXCLUDED.heads,
             visitors = GREATEST(held.visitors, EXCLUDED.visitors)",
        &column(days, |row| row.subject),
        &column(days, |row| row.day),
        &column(days, |row| row.counts.clicks),
        &column(days, |row| row.counts.bots),
        &column(days, |row| row.counts.prefetches),
        &column(days, |row| row.counts.heads),
        &column(days, |row| row.visitors)
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_to_values(
    connection: &mut PgConnection,
    values: &[ValueDelta],
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO click_days_by_value AS held (subject, day, value_id, clicks)
         SELECT * FROM UNNEST($1::bigint[], $2::date[], $3::integer[], $4::bigint[])
         ON CONFLICT (subject, day, value_id) DO UPDATE SET
             clicks = held.clicks + EXCLUDED.clicks",
        &column(values, |row| row.subject),
        &column(values, |row| row.day),
        &column(values, |row| row.value_id),
        &column(values, |row| row.clicks)
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_to_links(
    connection: &mut PgConnection,
    links: &[LinkDelta],
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE urls SET clicks = urls.clicks + delta.clicks,
                         last_clicked_at = GREATEST(urls.last_clicked_at, delta.last)
           FROM UNNEST($1::bigint[], $2::bigint[], $3::timestamptz[]) AS delta (id, clicks, last)
          WHERE urls.id = delta.id",
        &column(links, |row| row.url_id),
        &column(links, |row| row.clicks),
        &column(links, |row| row.last)
    )
    .execute(connection)
    .await?;
    Ok(())
}
