//! Users by the chunk.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use futures::FutureExt;
use sqlx::PgConnection;

use linnet_domain::{Email, OnConflict, UserId};

use super::{
    super::{StoreError, numbers},
    RowOutcome, WriteFuture, WriteOptions, WriteRows, column, ids_of, pass_ids,
};

const SEQUENCE: &str = "users_id_seq";

/// A user to write.
#[derive(Debug, Clone)]
pub struct ImportUser {
    /// An id of its own.
    pub id: Option<UserId>,
    /// Label; may repeat.
    pub username: String,
    /// Unique.
    pub email: Email,
    /// When it was made; now, if it does not say.
    pub created_at: Option<DateTime<Utc>>,
}

impl WriteRows for ImportUser {
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
    rows: &[&ImportUser],
    options: &WriteOptions,
) -> Result<Vec<RowOutcome>, StoreError> {
    let ids = ids_of(connection, SEQUENCE, rows.iter().map(|row| row.id)).await?;
    let mut written = insert(connection, &ids, rows).await?;
    let own = rows.iter().filter_map(|row| row.id).filter(|id| written.contains(id));
    pass_ids(connection, SEQUENCE, own, options).await?;
    let mut outcomes = vec![RowOutcome::Written; rows.len()];
    // A row is written once; a second one with its id, later in the chunk, is left over here.
    let left: Vec<usize> = ids
        .iter()
        .enumerate()
        .filter(|(_, id)| !written.remove(id))
        .map(|(place, _)| place)
        .collect();
    if left.is_empty() {
        return Ok(outcomes);
    }
    let rows: Vec<&ImportUser> =
        left.iter().filter_map(|place| rows.get(*place).copied()).collect();
    let changed = match options.on_conflict {
        OnConflict::Update => update(connection, &rows).await?,
        OnConflict::Fail | OnConflict::Skip => HashSet::new(),
    };
    let known = addresses(connection, &rows).await?;
    for (place, row) in left.into_iter().zip(&rows) {
        let email = row.email.as_str().to_lowercase();
        let Some(outcome) = outcomes.get_mut(place) else { continue };
        if changed.contains(&email) {
            continue;
        }
        *outcome = if known.contains(&email) {
            RowOutcome::taken(options, "email", "another user has this address")
        } else {
            RowOutcome::taken(options, "id", "a row with this id exists")
        };
    }
    Ok(outcomes)
}

async fn insert(
    connection: &mut PgConnection,
    ids: &[UserId],
    rows: &[&ImportUser],
) -> Result<HashSet<UserId>, StoreError> {
    let written = sqlx::query_scalar!(
        r#"INSERT INTO users (id, username, email, created_at)
         SELECT id, username, email, COALESCE(created_at, now())
           FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::timestamptz[])
             AS row (id, username, email, created_at)
         ON CONFLICT DO NOTHING RETURNING id AS "id: UserId""#,
        &numbers(ids),
        &column(rows, |row| row.username.clone()),
        &column(rows, |row| row.email.as_str().to_owned()),
        &column(rows, |row| row.created_at) as &[Option<DateTime<Utc>>]
    )
    .fetch_all(connection)
    .await?;
    Ok(written.into_iter().collect())
}

/// Changes the users that have these addresses; which addresses those were, in lower case. Of rows
/// with the same address the last one counts.
async fn update(
    connection: &mut PgConnection,
    rows: &[&ImportUser],
) -> Result<HashSet<String>, StoreError> {
    let names: HashMap<String, String> =
        rows.iter().map(|row| (row.email.as_str().to_lowercase(), row.username.clone())).collect();
    let (emails, names): (Vec<String>, Vec<String>) = names.into_iter().unzip();
    let changed = sqlx::query_scalar!(
        r#"UPDATE users SET username = row.username
             FROM UNNEST($1::text[], $2::text[]) AS row (email, username)
            WHERE lower(users.email) = row.email RETURNING row.email AS "email!""#,
        &emails,
        &names
    )
    .fetch_all(connection)
    .await?;
    Ok(changed.into_iter().collect())
}

/// Which of the addresses are somebody's, in lower case.
async fn addresses(
    connection: &mut PgConnection,
    rows: &[&ImportUser],
) -> Result<HashSet<String>, StoreError> {
    let known = sqlx::query_scalar!(
        r#"SELECT lower(email) AS "email!" FROM users WHERE lower(email) = ANY($1)"#,
        &column(rows, |row| row.email.as_str().to_lowercase())
    )
    .fetch_all(connection)
    .await?;
    Ok(known.into_iter().collect())
}
