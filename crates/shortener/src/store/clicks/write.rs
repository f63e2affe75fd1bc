//! Writing a group of clicks: raw rows and roll-ups, together or not at all.

use std::num::NonZeroI32;

use sqlx::{PgConnection, postgres::PgCopyIn};

use crate::store::{Store, StoreError, copy::BinaryRows};

use super::{ClickGroup, ClickRow, DayDelta, HourDelta, LinkDelta, ValueDelta, column};

/// Rows that are sent at a time: their bytes are in memory three times over on the way.
const AT_ONCE: usize = 4_096;

impl Store {
    /// Writes a group in one transaction. False, and nothing is written, when a shard of one of its
    /// batches is there already: another worker was faster.
    pub async fn write_clicks(&self, group: &ClickGroup<'_>) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let fresh = sqlx::query!(
            "INSERT INTO click_batches (id, shard)
             SELECT * FROM UNNEST($1::bytea[]) AS id CROSS JOIN UNNEST($2::smallint[]) AS shard
             ON CONFLICT DO NOTHING",
            group.batches,
            &group.shards
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if fresh != (group.batches.len() * group.shards.len()) as u64 {
            transaction.rollback().await?;
            return Ok(false);
        }
        write_rows(&mut transaction, group.rows).await?;
        // Every group has the most clicked links, so roll-ups of a shard of two groups would wait for each
        // other row by row. Waiting once, here, costs less; raw rows are written side by side. The
        // shared lock is for workers of releases before there were shards, which take it alone.
        sqlx::query!(
            "SELECT pg_advisory_xact_lock_shared(hashtextextended('linnet.click_roll_ups', 0)),
                    pg_advisory_xact_lock(hashtextextended('linnet.click_roll_ups', shard))
               FROM UNNEST($1::smallint[]) AS shard",
            &group.shards
        )
        .execute(&mut *transaction)
        .await?;
        for part in group.totals.hours.chunks(AT_ONCE) {
            add_hours(&mut transaction, part).await?;
        }
        for part in group.totals.days.chunks(AT_ONCE) {
            add_days(&mut transaction, part).await?;
        }
        for part in group.totals.values.chunks(AT_ONCE) {
            add_to_values(&mut transaction, part).await?;
        }
        // Last, since edits of these rows wait until the commit.
        for part in group.totals.links.chunks(AT_ONCE) {
            add_to_links(&mut transaction, part).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }
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
            binary.smallint(i16::from(row.kind as u8));
            binary.nullable(row.visitor, BinaryRows::bigint);
            for value in row.values {
                binary.nullable(value.map(NonZeroI32::get), BinaryRows::integer);
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

// `MERGE` and not `INSERT … ON CONFLICT`, which writes a log record more for each row: the lock of a row
// that it changes, or that it keeps one that it has added. The shard's lock keeps others from adding the
// same row.

async fn add_hours(connection: &mut PgConnection, hours: &[HourDelta]) -> Result<(), StoreError> {
    sqlx::query!(
        "MERGE INTO click_hours AS held
         USING (SELECT UNNEST($1::bigint[]) AS subject, UNNEST($2::timestamptz[]) AS hour,
                       UNNEST($3::bigint[]) AS clicks, UNNEST($4::bigint[]) AS bots,
                       UNNEST($5::bigint[]) AS prefetches, UNNEST($6::bigint[]) AS heads) AS delta
            ON held.subject = delta.subject AND held.hour = delta.hour
          WHEN MATCHED THEN UPDATE SET
               clicks = held.clicks + delta.clicks, bots = held.bots + delta.bots,
               prefetches = held.prefetches + delta.prefetches, heads = held.heads + delta.heads
          WHEN NOT MATCHED THEN INSERT (subject, hour, clicks, bots, prefetches, heads)
               VALUES (subject, hour, clicks, bots, prefetches, heads)",
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
        "MERGE INTO click_days AS held
         USING (SELECT UNNEST($1::bigint[]) AS subject, UNNEST($2::date[]) AS day,
                       UNNEST($3::bigint[]) AS clicks, UNNEST($4::bigint[]) AS bots,
                       UNNEST($5::bigint[]) AS prefetches, UNNEST($6::bigint[]) AS heads,
                       UNNEST($7::bigint[]) AS visitors) AS delta
            ON held.subject = delta.subject AND held.day = delta.day
          WHEN MATCHED THEN UPDATE SET
               clicks = held.clicks + delta.clicks, bots = held.bots + delta.bots,
               prefetches = held.prefetches + delta.prefetches, heads = held.heads + delta.heads,
               visitors = GREATEST(held.visitors, delta.visitors)
          WHEN NOT MATCHED THEN INSERT (subject, day, clicks, bots, prefetches, heads, visitors)
               VALUES (subject, day, clicks, bots, prefetches, heads, visitors)",
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
        "MERGE INTO click_days_by_value AS held
         USING (SELECT UNNEST($1::bigint[]) AS subject, UNNEST($2::date[]) AS day,
                       UNNEST($3::integer[]) AS value_id, UNNEST($4::bigint[]) AS clicks) AS delta
            ON held.subject = delta.subject AND held.day = delta.day
               AND held.value_id = delta.value_id
          WHEN MATCHED THEN UPDATE SET clicks = held.clicks + delta.clicks
          WHEN NOT MATCHED THEN INSERT (subject, day, value_id, clicks)
               VALUES (subject, day, value_id, clicks)",
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
