//! Writing chunks of users.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use futures::FutureExt;
use sqlx::PgConnection;

use linnet_domain::{Email, OnConflict, UserId};

use super::{
    super::{
        Constraint, StoreError,
        columns::{column, numbers},
    },
    RowOutcome, WriteFuture, WriteOptions, WriteRows, assign_ids, unwritten,
};

const SEQUENCE: &str = "users_id_seq";

/// A user to write.
#[derive(Debug, Clone)]
pub struct ImportUser {
    /// The explicit id.
    pub id: Option<UserId>,
    /// The label; it need not be unique.
    pub username: String,
    /// The e-mail address, unique in any case.
    pub email: Email,
    /// When the user was created; by default now.
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
    let ids = assign_ids(connection, SEQUENCE, rows.iter().map(|row| row.id), options).await?;
    let written = insert(connection, &ids, rows).await?;
    let mut outcomes = vec![RowOutcome::Written; rows.len()];
    let rows_with_ids = rows.iter().zip(&ids).zip(&mut outcomes);
    let unwritten = unwritten(rows_with_ids, |((_, id), _)| **id, written);
    if unwritten.is_empty() {
        return Ok(outcomes);
    }
    let conflicting: Vec<&ImportUser> = unwritten.iter().map(|((row, _), _)| **row).collect();
    let changed = match options.on_conflict {
        OnConflict::Update => update(connection, &conflicting).await?,
        OnConflict::Fail | OnConflict::Skip => HashSet::new(),
    };
    let taken = taken_addresses(connection, &conflicting).await?;
    for ((row, _), outcome) in unwritten {
        let email = row.email.as_str().to_lowercase();
        if changed.contains(&email) {
            continue;
        }
        let constraint =
            if taken.contains(&email) { Constraint::EmailTaken } else { Constraint::IdTaken };
        *outcome = RowOutcome::violates(constraint, options);
    }
    Ok(outcomes)
}

/// Inserts the rows that violate no constraint. Returns their ids.
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

/// Changes the names of users with these addresses. Of several rows with the same address, the last one counts. Returns
/// the addresses in lower case.
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

/// The addresses that users have, in lower case.
async fn taken_addresses(
    connection: &mut PgConnection,
    rows: &[&ImportUser],
) -> Result<HashSet<String>, StoreError> {
    let taken = sqlx::query_scalar!(
        r#"SELECT lower(email) AS "email!" FROM users WHERE lower(email) = ANY($1)"#,
        &column(rows, |row| row.email.as_str().to_lowercase())
    )
    .fetch_all(connection)
    .await?;
    Ok(taken.into_iter().collect())
}
