//! Writing chunks of events.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use sqlx::PgConnection;

use linnet_domain::{EventDetails, EventId, LinkId, UserId};

use super::{
    super::{
        Constraint, StoreError,
        columns::{column, numbers},
        quotas::{RowKind, Written, count_written},
    },
    RowOutcome, WriteFuture, WriteOptions, WriteRows, advance_sequence, unwritten,
};

/// An event to write.
#[derive(Debug, Clone)]
pub struct ImportEvent {
    /// The explicit id.
    pub id: EventId,
    /// The link, which must exist if it is given.
    pub url_id: Option<LinkId>,
    /// The user who caused the event, who may be deleted.
    pub user_id: Option<UserId>,
    /// The type.
    pub event_type: String,
    /// When it happened.
    pub timestamp: DateTime<Utc>,
    /// Details.
    pub details: EventDetails,
}

impl WriteRows for ImportEvent {
    fn write<'a>(
        connection: &'a mut PgConnection,
        rows: &'a [&'a Self],
        options: &'a WriteOptions,
    ) -> WriteFuture<'a> {
        write(connection, rows, options).boxed()
    }
}

async fn write(
    connection: &mut PgConnection,
    rows: &[&ImportEvent],
    options: &WriteOptions,
) -> Result<Vec<RowOutcome>, StoreError> {
    let ids = column(rows, |row| row.id);
    if !options.dry_run {
        let highest = ids.iter().map(|id| id.get()).max();
        advance_sequence(connection, "events_id_seq", highest).await?;
    }
    let written = insert(connection, rows).await?;
    let counted = rows.iter().filter(|row| written.contains(&row.id)).map(|row| Written {
        user_id: row.user_id,
        rows: 1,
        bytes: row.details.as_str().len(),
    });
    count_written(connection, RowKind::Events, counted).await?;
    let mut outcomes = vec![RowOutcome::Written; rows.len()];
    let unwritten = unwritten(rows.iter().zip(&mut outcomes), |(row, _)| row.id, written);
    if unwritten.is_empty() {
        return Ok(outcomes);
    }
    let taken = taken_ids(connection, &ids).await?;
    let full =
        users_at_quota(connection, unwritten.iter().filter_map(|(row, _)| row.user_id)).await?;
    for (row, outcome) in unwritten {
        let constraint = if taken.contains(&row.id) {
            Constraint::IdTaken
        } else if row.user_id.is_some_and(|user_id| full.contains(&user_id)) {
            Constraint::EventQuota
        } else if row.url_id.is_none() {
            // Another row of the chunk has the id.
            Constraint::IdTaken
        } else {
            Constraint::LinkMissing
        };
        *outcome = RowOutcome::violates(constraint, options);
    }
    Ok(outcomes)
}

/// Inserts the rows that violate no constraint. Returns their ids.
async fn insert(
    connection: &mut PgConnection,
    rows: &[&ImportEvent],
) -> Result<HashSet<EventId>, StoreError> {
    let written = sqlx::query_scalar!(
        r#"INSERT INTO events (id, url_id, user_id, event_type, timestamp, details)
         SELECT row.* FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::text[],
                                  $5::timestamptz[], $6::jsonb[])
           AS row (id, url_id, user_id, event_type, timestamp, details)
          WHERE (row.url_id IS NULL OR EXISTS (SELECT FROM urls WHERE urls.id = row.url_id))
            AND NOT is_at_quota('user:' || row.user_id, 'events')
         ON CONFLICT DO NOTHING RETURNING id AS "id: EventId""#,
        &column(rows, |row| row.id.get()),
        &column(rows, |row| row.url_id.map(LinkId::get)) as &[Option<i64>],
        &column(rows, |row| row.user_id.map(UserId::get)) as &[Option<i64>],
        &column(rows, |row| row.event_type.clone()),
        &column(rows, |row| row.timestamp),
        &column(rows, |row| row.details.clone()) as &[EventDetails]
    )
    .fetch_all(connection)
    .await?;
    Ok(written.into_iter().collect())
}

/// Those of the users who are at their quota of events.
async fn users_at_quota(
    connection: &mut PgConnection,
    users: impl Iterator<Item = UserId>,
) -> Result<HashSet<UserId>, StoreError> {
    let users: HashSet<i64> = users.map(UserId::get).collect();
    let full = sqlx::query_scalar!(
        r#"SELECT user_id AS "user_id!: UserId" FROM UNNEST($1::bigint[]) AS row (user_id)
            WHERE is_at_quota('user:' || user_id, 'events')"#,
        &users.into_iter().collect::<Vec<_>>()
    )
    .fetch_all(connection)
    .await?;
    Ok(full.into_iter().collect())
}

/// The ids that events have.
async fn taken_ids(
    connection: &mut PgConnection,
    ids: &[EventId],
) -> Result<HashSet<EventId>, StoreError> {
    let taken = sqlx::query_scalar!(
        r#"SELECT id AS "id: EventId" FROM events WHERE id = ANY($1)"#,
        &numbers(ids)
    )
    .fetch_all(connection)
    .await?;
    Ok(taken.into_iter().collect())
}
