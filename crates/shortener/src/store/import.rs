//! Rows with ids of their own, written a chunk at a time.
//!
//! A chunk is one statement over arrays: what breaks no rule is written, and what was left out is
//! told by its id. The sequences are moved past explicit ids, and never back, or the next row made
//! through the API would collide.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::domain::{Email, ShortCode, TargetUrl};

use super::{Store, StoreError};

/// A user to import.
#[derive(Debug, Clone)]
pub struct ImportUser {
    /// Explicit id.
    pub id: i64,
    /// Label; may repeat.
    pub username: String,
    /// Unique.
    pub email: Email,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// A link to import.
#[derive(Debug, Clone)]
pub struct ImportLink {
    /// Explicit id.
    pub id: i64,
    /// The owner.
    pub user_id: Option<i64>,
    /// The code.
    pub short_code: ShortCode,
    /// The target.
    pub target: TargetUrl,
    /// A label.
    pub title: Option<String>,
    /// Whether it resolves.
    pub is_active: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// An event to import.
#[derive(Debug, Clone)]
pub struct ImportEvent {
    /// Explicit id.
    pub id: i64,
    /// The link, which may be gone.
    pub url_id: Option<i64>,
    /// Who did it.
    pub user_id: Option<i64>,
    /// What happened.
    pub event_type: String,
    /// When it happened.
    pub timestamp: DateTime<Utc>,
    /// An object.
    pub details: serde_json::Value,
}

/// What became of a chunk.
#[derive(Debug, Default)]
pub struct ImportCounts {
    /// Ids that were written.
    pub written: Vec<i64>,
}

impl Store {
    /// Writes users; those whose id or address is taken are left out.
    pub async fn import_users(&self, rows: &[ImportUser]) -> Result<ImportCounts, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let usernames: Vec<String> = rows.iter().map(|row| row.username.clone()).collect();
        let emails: Vec<String> = rows.iter().map(|row| row.email.as_str().to_owned()).collect();
        let created: Vec<_> = rows.iter().map(|row| row.created_at).collect();
        let written = sqlx::query_scalar!(
            "INSERT INTO users (id, username, email, created_at)
             SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::timestamptz[])
             ON CONFLICT DO NOTHING RETURNING id",
            &ids,
            &usernames,
            &emails,
            &created
        )
        .fetch_all(&mut *transaction)
        .await?;
        sqlx::query!(
            "SELECT setval('users_id_seq', $1) FROM users_id_seq WHERE last_value <= $1",
            written.iter().max().copied().unwrap_or(0)
        )
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(ImportCounts { written })
    }

    /// Writes links; those whose id or code is taken, or whose user is unknown, are left out.
    pub async fn import_links(&self, rows: &[ImportLink]) -> Result<ImportCounts, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let user_ids: Vec<Option<i64>> = rows.iter().map(|row| row.user_id).collect();
        let codes: Vec<String> = rows.iter().map(|row| row.short_code.to_string()).collect();
        let targets: Vec<String> = rows.iter().map(|row| row.target.as_str().to_owned()).collect();
        let titles: Vec<Option<String>> = rows.iter().map(|row| row.title.clone()).collect();
        let active: Vec<bool> = rows.iter().map(|row| row.is_active).collect();
        let created: Vec<_> = rows.iter().map(|row| row.created_at).collect();
        let updated: Vec<_> = rows.iter().map(|row| row.updated_at).collect();
        let written = sqlx::query_scalar!(
            "INSERT INTO urls (id, user_id, short_code, original_url, title, is_active,
                               created_at, updated_at)
             SELECT row.* FROM UNNEST($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[],
                                      $6::boolean[], $7::timestamptz[], $8::timestamptz[])
               AS row (id, user_id, short_code, original_url, title, is_active, created_at, updated_at)
              WHERE row.user_id IS NULL OR EXISTS (SELECT FROM users WHERE users.id = row.user_id)
             ON CONFLICT DO NOTHING RETURNING id",
            &ids,
            &user_ids as &[Option<i64>],
            &codes,
            &targets,
            &titles as &[Option<String>],
            &active,
            &created,
            &updated
        )
        .fetch_all(&mut *transaction)
        .await?;
        sqlx::query!(
            "SELECT setval('urls_id_seq', $1) FROM urls_id_seq WHERE last_value <= $1",
            written.iter().max().copied().unwrap_or(0)
        )
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(ImportCounts { written })
    }

    /// Makes links of a user and their events, with ids of the database's own; those whose code is
    /// taken are left out. The ids of the others.
    pub async fn add_links(
        &self,
        user_id: i64,
        links: &[(ShortCode, TargetUrl)],
        created_at: DateTime<Utc>,
    ) -> Result<Vec<i64>, StoreError> {
        let codes: Vec<String> = links.iter().map(|(code, _)| code.to_string()).collect();
        let targets: Vec<String> =
            links.iter().map(|(_, target)| target.as_str().to_owned()).collect();
        Ok(sqlx::query_scalar!(
            "WITH made AS (
               INSERT INTO urls (user_id, short_code, original_url, created_at, updated_at)
               SELECT $1, code, target, $4, $4
                 FROM UNNEST($2::text[], $3::text[]) AS row (code, target)
               ON CONFLICT DO NOTHING
               RETURNING id, user_id, short_code, original_url
             ), event AS (
               INSERT INTO events (url_id, user_id, event_type, timestamp, details)
               SELECT id, user_id, 'created', $4,
                      jsonb_build_object('short_code', short_code, 'original_url', original_url)
                 FROM made
             )
             SELECT id FROM made",
            user_id,
            &codes,
            &targets,
            created_at
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Writes events; those whose id is taken or whose link is unknown are left out.
    pub async fn import_events(&self, rows: &[ImportEvent]) -> Result<ImportCounts, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let written = insert_events(&mut transaction, rows).await?;
        sqlx::query!(
            "SELECT setval('events_id_seq', $1) FROM events_id_seq WHERE last_value <= $1",
            written.iter().max().copied().unwrap_or(0)
        )
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(ImportCounts { written })
    }

    /// Which of the ids exist as users, links or events: the reason why a row was left out.
    pub async fn taken_ids(&self, table: ImportTable, ids: &[i64]) -> Result<Vec<i64>, StoreError> {
        let rows = match table {
            ImportTable::Users => {
                sqlx::query_scalar!("SELECT id FROM users WHERE id = ANY($1)", ids)
                    .fetch_all(&self.pool)
                    .await?
            }
            ImportTable::Links => {
                sqlx::query_scalar!("SELECT id FROM urls WHERE id = ANY($1)", ids)
                    .fetch_all(&self.pool)
                    .await?
            }
            ImportTable::Events => {
                sqlx::query_scalar!("SELECT id FROM events WHERE id = ANY($1)", ids)
                    .fetch_all(&self.pool)
                    .await?
            }
        };
        Ok(rows)
    }

    /// Which of the codes are taken.
    pub async fn taken_codes(&self, codes: &[String]) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar!("SELECT short_code FROM urls WHERE short_code = ANY($1)", codes)
            .fetch_all(&self.pool)
            .await?)
    }
}

/// The tables that are imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportTable {
    /// `users`.
    Users,
    /// `urls`.
    Links,
    /// `events`.
    Events,
}

async fn insert_events(
    connection: &mut PgConnection,
    rows: &[ImportEvent],
) -> Result<Vec<i64>, StoreError> {
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let url_ids: Vec<Option<i64>> = rows.iter().map(|row| row.url_id).collect();
    let user_ids: Vec<Option<i64>> = rows.iter().map(|row| row.user_id).collect();
    let types: Vec<String> = rows.iter().map(|row| row.event_type.clone()).collect();
    let times: Vec<_> = rows.iter().map(|row| row.timestamp).collect();
    let details: Vec<serde_json::Value> = rows.iter().map(|row| row.details.clone()).collect();
    Ok(sqlx::query_scalar!(
        "INSERT INTO events (id, url_id, user_id, event_type, timestamp, details)
         SELECT row.* FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::text[],
                                  $5::timestamptz[], $6::jsonb[])
           AS row (id, url_id, user_id, event_type, timestamp, details)
          WHERE row.url_id IS NULL OR EXISTS (SELECT FROM urls WHERE urls.id = row.url_id)
         ON CONFLICT DO NOTHING RETURNING id",
        &ids,
        &url_ids as &[Option<i64>],
        &user_ids as &[Option<i64>],
        &types,
        &times,
        &details
    )
    .fetch_all(connection)
    .await?)
}
