//! Writing a group of clicks with its roll-ups, in one transaction.

use futures::TryStreamExt;
use linnet_domain::LinkId;
use sqlx::PgConnection;

use crate::{Store, StoreError, columns::column};

use super::{
    ClickGroup, DayDelta, HourDelta, LinkDay, LinkDays, LinkDelta, ValueDelta,
    link_days::ListRanges, raw::write_raw_clicks,
};

/// Rows per statement. Their bytes are in memory three times while they are sent.
const ROWS_AT_ONCE: usize = 4_096;
/// Days of links per statement. Each takes some kilobytes while it is sent. With 1,024 of them a worker needs 61 MiB
/// instead of 50, and with 4,096 it needs 110, without being faster.
const DAYS_AT_ONCE: usize = 256;

impl Store {
    /// Writes a group in one transaction. Returns false without writing anything if another worker has already written
    /// a shard of one of the batches.
    pub async fn write_clicks(&self, group: &ClickGroup<'_>) -> Result<bool, StoreError> {
        self.on_one_primary(self.try_write_clicks(group)).await
    }

    async fn try_write_clicks(&self, group: &ClickGroup<'_>) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let inserted = sqlx::query!(
            "INSERT INTO click_batches (id, shard)
             SELECT * FROM UNNEST($1::bytea[]) AS id CROSS JOIN UNNEST($2::smallint[]) AS shard
             ON CONFLICT DO NOTHING",
            group.batches,
            &group.shards
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if inserted != (group.batches.len() * group.shards.len()) as u64 {
            transaction.rollback().await?;
            return Ok(false);
        }
        write_raw_clicks(&mut transaction, group.rows).await?;
        lock_roll_ups(&mut transaction, &group.shards).await?;
        let overflow = add_to_link_days(&mut transaction, &group.totals.link_days).await?;
        for part in overflow.chunks(ROWS_AT_ONCE) {
            add_to_values(&mut transaction, part).await?;
        }
        for part in group.totals.hours.chunks(ROWS_AT_ONCE) {
            add_hours(&mut transaction, part).await?;
        }
        for part in group.totals.days.chunks(ROWS_AT_ONCE) {
            add_days(&mut transaction, part).await?;
        }
        for part in group.totals.values.chunks(ROWS_AT_ONCE) {
            add_to_values(&mut transaction, part).await?;
        }
        // Links come last, because changes of these links wait until the commit.
        for part in group.totals.links.chunks(ROWS_AT_ONCE) {
            add_to_links(&mut transaction, part).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }
}

/// Locks the roll-ups of these shards until the end of the transaction.
///
/// * Every group contains the most clicked links. Without the lock, two groups would wait for each other at each of
///   these rows. The clicks themselves are written without the lock.
/// * The day of a link is read and then replaced, so no other transaction may change it in between. It must be read by
///   a later statement of the transaction, which at READ COMMITTED sees the data of the previous holder.
/// * Workers of releases without shards take the shared lock exclusively.
pub(crate) async fn lock_roll_ups(
    connection: &mut PgConnection,
    shards: &[i16],
) -> Result<(), StoreError> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock_shared(hashtextextended('linnet.click_roll_ups', 0)),
                pg_advisory_xact_lock(hashtextextended('linnet.click_roll_ups', shard))
           FROM UNNEST($1::smallint[]) AS shard",
        shards
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds days of links to the stored days. Returns the values that do not fit in a row. Requires the locks of the
/// shards.
async fn add_to_link_days(
    connection: &mut PgConnection,
    days: &LinkDays,
) -> Result<Vec<ValueDelta>, StoreError> {
    let mut overflow = Vec::new();
    let mut added = days.iter();
    loop {
        let part: Vec<LinkDay<'_>> = added.by_ref().take(DAYS_AT_ONCE).collect();
        if part.is_empty() {
            return Ok(overflow);
        }
        let (places, stored) = stored_link_days(connection, &part).await?;
        let mut stored = places.into_iter().zip(stored.iter()).peekable();
        let mut sums = LinkDays::default();
        for (place, added) in (1..).zip(&part) {
            let stored = stored.next_if(|(at, _)| *at == place).map(|(_, stored)| stored);
            sums.push_sum(stored, *added, &mut overflow);
        }
        replace_link_days(connection, &sums).await?;
    }
}

/// The rows that are already stored for these days, each with its index in `days` (from 1), in ascending order.
async fn stored_link_days(
    connection: &mut PgConnection,
    days: &[LinkDay<'_>],
) -> Result<(Vec<i64>, LinkDays), StoreError> {
    let (url_ids, dates) = (column(days, |row| row.url_id.get()), column(days, |row| row.day));
    let mut rows = sqlx::query!(
        r#"SELECT place AS "place!", stored.url_id AS "url_id: LinkId", stored.day, visitors, hours, value_ids, value_clicks
             FROM UNNEST($1::bigint[], $2::date[]) WITH ORDINALITY AS wanted (url_id, day, place)
             JOIN click_link_days AS stored
               ON stored.url_id = wanted.url_id AND stored.day = wanted.day
            ORDER BY place"#,
        &url_ids,
        &dates
    )
    .fetch(connection);
    let (mut places, mut stored) = (Vec::new(), LinkDays::default());
    while let Some(row) = rows.try_next().await? {
        places.push(row.place);
        stored.begin(row.url_id, row.day, row.visitors);
        stored.extend_hours(&row.hours);
        stored.extend_values(&row.value_ids, &row.value_clicks);
    }
    Ok((places, stored))
}

// The statements below use `MERGE`, because `INSERT … ON CONFLICT` writes one more WAL record for each row. The locks
// of the shards prevent concurrent insertions of the same row, which `MERGE` does not handle.

async fn replace_link_days(
    connection: &mut PgConnection,
    days: &LinkDays,
) -> Result<(), StoreError> {
    let rows: Vec<LinkDay<'_>> = days.iter().collect();
    let counts = column(&rows, |row| row.counts());
    let ranges: Vec<ListRanges> = days.list_ranges().collect();
    sqlx::query!(
        "MERGE INTO click_link_days AS stored
         USING (SELECT UNNEST($1::bigint[]) AS url_id, UNNEST($2::date[]) AS day,
                       UNNEST($3::bigint[]) AS clicks, UNNEST($4::bigint[]) AS bots,
                       UNNEST($5::bigint[]) AS prefetches, UNNEST($6::bigint[]) AS heads,
                       UNNEST($7::bigint[]) AS visitors,
                       UNNEST($8::integer[]) AS hours_from, UNNEST($9::integer[]) AS hours_to,
                       UNNEST($10::integer[]) AS values_from, UNNEST($11::integer[]) AS values_to)
               AS sum
            ON stored.url_id = sum.url_id AND stored.day = sum.day
          WHEN MATCHED THEN UPDATE SET
               clicks = sum.clicks, bots = sum.bots, prefetches = sum.prefetches,
               heads = sum.heads, visitors = sum.visitors,
               hours = ($12::integer[])[hours_from:hours_to],
               value_ids = ($13::integer[])[values_from:values_to],
               value_clicks = ($14::bigint[])[values_from:values_to]
          WHEN NOT MATCHED THEN
               INSERT (url_id, day, clicks, bots, prefetches, heads, visitors,
                       hours, value_ids, value_clicks)
               VALUES (url_id, day, clicks, bots, prefetches, heads, visitors,
                       ($12::integer[])[hours_from:hours_to],
                       ($13::integer[])[values_from:values_to],
                       ($14::bigint[])[values_from:values_to])",
        &column(&rows, |row| row.url_id.get()),
        &column(&rows, |row| row.day),
        &column(&counts, |row| row.clicks),
        &column(&counts, |row| row.bots),
        &column(&counts, |row| row.prefetches),
        &column(&counts, |row| row.heads),
        &column(&rows, |row| row.visitors),
        &column(&ranges, |row| row.hours.0),
        &column(&ranges, |row| row.hours.1),
        &column(&ranges, |row| row.values.0),
        &column(&ranges, |row| row.values.1),
        &days.hours,
        &days.value_ids,
        &days.value_clicks
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_hours(connection: &mut PgConnection, hours: &[HourDelta]) -> Result<(), StoreError> {
    sqlx::query!(
        "MERGE INTO click_hours AS stored
         USING (SELECT UNNEST($1::bigint[]) AS subject, UNNEST($2::timestamptz[]) AS hour,
                       UNNEST($3::bigint[]) AS clicks, UNNEST($4::bigint[]) AS bots,
                       UNNEST($5::bigint[]) AS prefetches, UNNEST($6::bigint[]) AS heads) AS delta
            ON stored.subject = delta.subject AND stored.hour = delta.hour
          WHEN MATCHED THEN UPDATE SET
               clicks = stored.clicks + delta.clicks, bots = stored.bots + delta.bots,
               prefetches = stored.prefetches + delta.prefetches, heads = stored.heads + delta.heads
          WHEN NOT MATCHED THEN INSERT (subject, hour, clicks, bots, prefetches, heads)
               VALUES (subject, hour, clicks, bots, prefetches, heads)",
        &column(hours, |row| row.subject.key()),
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
        "MERGE INTO click_days AS stored
         USING (SELECT UNNEST($1::bigint[]) AS subject, UNNEST($2::date[]) AS day,
                       UNNEST($3::bigint[]) AS clicks, UNNEST($4::bigint[]) AS bots,
                       UNNEST($5::bigint[]) AS prefetches, UNNEST($6::bigint[]) AS heads,
                       UNNEST($7::bigint[]) AS visitors) AS delta
            ON stored.subject = delta.subject AND stored.day = delta.day
          WHEN MATCHED THEN UPDATE SET
               clicks = stored.clicks + delta.clicks, bots = stored.bots + delta.bots,
               prefetches = stored.prefetches + delta.prefetches, heads = stored.heads + delta.heads,
               visitors = GREATEST(stored.visitors, delta.visitors)
          WHEN NOT MATCHED THEN INSERT (subject, day, clicks, bots, prefetches, heads, visitors)
               VALUES (subject, day, clicks, bots, prefetches, heads, visitors)",
        &column(days, |row| row.subject.key()),
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
        "MERGE INTO click_days_by_value AS stored
         USING (SELECT UNNEST($1::bigint[]) AS subject, UNNEST($2::date[]) AS day,
                       UNNEST($3::integer[]) AS value_id, UNNEST($4::bigint[]) AS clicks) AS delta
            ON stored.subject = delta.subject AND stored.day = delta.day
               AND stored.value_id = delta.value_id
          WHEN MATCHED THEN UPDATE SET clicks = stored.clicks + delta.clicks
          WHEN NOT MATCHED THEN INSERT (subject, day, value_id, clicks)
               VALUES (subject, day, value_id, clicks)",
        &column(values, |row| row.subject.key()),
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
        &column(links, |row| row.url_id.get()),
        &column(links, |row| row.clicks),
        &column(links, |row| row.last)
    )
    .execute(connection)
    .await?;
    Ok(())
}
