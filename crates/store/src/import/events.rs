//! Events by the chunk.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use linnet_domain::{EventId, LinkId, UserId};
use sqlx::PgConnection;

use super::{
    super::StoreError, RowOutcome, WriteFuture, WriteOptions, WriteRows, column, pass_ids,
};

/// An event to write.
#[derive(Debug, Clone)]
pub struct ImportEvent {
    /// Its id.
    pub id: EventId,
    /// The link, which may be gone.
    pub url_id: Option<LinkId>,
    /// Who did it.
    pub user_id: Option<UserId>,
    /// What happened.
    pub event_type: String,
    /// When it happened.
    pub timestamp: DateTime<Utc>,
    /// An object.
    pub details: serde_json::Value,
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
    let mut written = insert(connection, rows).await?;
    pass_ids(connection, "events_id_seq", written.iter().copied(), options).await?;
    let ids = if written.len() == rows.len() { vec![] } else { column(rows, |row| row.id.get()) };
    let taken =
        sqlx::query_scalar!(r#"SELECT id AS "id: EventId" FROM events WHERE id = ANY($1)"#, &ids);
    let taken: HashSet<EventId> = taken.fetch_all(connection).await?.into_iter().collect();
    // A row is written once; a second one with its id, later in the chunk, is not.
    Ok(rows
        .iter()
        .map(|row| match written.remove(&row.id) {
            true => RowOutcome::Written,
            false if row.url_id.is_none() || taken.contains(&row.id) => {
                RowOutcome::taken(options, "id", "a row with this id exists")
            }
            false => RowOutcome::bad("url_id", "not_found", "there is no such link"),
        })
        .collect())
}

async fn insert(
    connection: &mut PgConnection,
    rows: &[&ImportEvent],
) -> Result<HashSet<EventId>, StoreError> {
    let written = sqlx::query_scalar!(
        r#"INSERT INTO events (id, url_id, user_id, event_type, timestamp, details)
         SELECT row.* FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::text[],
                                  $5::timestamptz[], $6::jsonb[])
           AS row (id, url_id, user_id, event_type, timestamp, details)
          WHERE row.url_id IS NULL OR EXISTS (SELECT FROM urls WHERE urls.id = row.url_id)
         ON CONFLICT DO NOTHING RETURNING id AS "id: EventId""#,
        &column(rows, |row| row.id.get()),
        &column(rows, |row| row.url_id.map(LinkId::get)) as &[Option<i64>],
        &column(rows, |row| row.user_id.map(UserId::get)) as &[Option<i64>],
        &column(rows, |row| row.event_type.clone()),
        &column(rows, |row| row.timestamp),
        &column(rows, |row| row.details.clone())
    )
    .fetch_all(connection)
    .await?;
    Ok(written.into_iter().collect())
}
