//! `Idempotency-Key`: the first answer is stored in the transaction that did the work, so either
//! both exist or neither.
//!
//! Two requests with one key meet at the primary key: the second waits for the first to commit, then
//! finds its answer.

use std::time::Duration;

use sqlx::{PgConnection, Postgres, Transaction};

use linnet_domain::{Event, Job, NewEvent, NewJob, NewLink, NewUser, User, Visibility};

use super::{JobLimits, Store, StoreError, events, jobs, links, links::LinkCreation, users};

/// How long an answer is kept.
pub(super) const KEEP: Duration = Duration::from_hours(24);

/// An answer as it was first given.
#[derive(Debug, Clone)]
pub struct StoredResponse {
    /// The status code.
    pub status: i16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

/// What became of a request with a key.
#[derive(Debug)]
pub enum IdempotencyClaim {
    /// The key is new and held by this transaction: do the work, then [`IdempotentTransaction::finish`].
    New(IdempotentTransaction),
    /// The same request was answered before.
    Replay(StoredResponse),
    /// Another request used the key.
    Mismatch,
}

/// A transaction that holds an idempotency key. Dropping it rolls everything back.
#[derive(Debug)]
pub struct IdempotentTransaction {
    transaction: Transaction<'static, Postgres>,
    owner: String,
    key: String,
}

impl Store {
    /// Claims `key` of `owner` for a request with this hash.
    pub async fn begin_idempotent(
        &self,
        owner: &str,
        key: &str,
        request_hash: &[u8],
    ) -> Result<IdempotencyClaim, StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "DELETE FROM idempotency_keys
              WHERE owner = $1 AND key = $2 AND created_at < now() - make_interval(secs => $3)",
            owner,
            key,
            KEEP.as_secs_f64()
        )
        .execute(&mut *transaction)
        .await?;
        let claimed = sqlx::query!(
            "INSERT INTO idempotency_keys (owner, key, request_hash, status, body)
             VALUES ($1, $2, $3, 0, '') ON CONFLICT DO NOTHING",
            owner,
            key,
            request_hash
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if claimed == 1 {
            let (owner, key) = (owner.to_owned(), key.to_owned());
            return Ok(IdempotencyClaim::New(IdempotentTransaction { transaction, owner, key }));
        }
        let row = sqlx::query!(
            "SELECT request_hash, status, location, body FROM idempotency_keys
              WHERE owner = $1 AND key = $2",
            owner,
            key
        )
        .fetch_one(&mut *transaction)
        .await?;
        if row.request_hash != request_hash {
            return Ok(IdempotencyClaim::Mismatch);
        }
        let (status, location, body) = (row.status, row.location, row.body);
        Ok(IdempotencyClaim::Replay(StoredResponse { status, location, body }))
    }

    /// Forgets up to 10,000 answers that are older than [`KEEP`]; how many.
    pub async fn delete_expired_idempotency_keys(&self) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "DELETE FROM idempotency_keys WHERE ctid IN (
               SELECT ctid FROM idempotency_keys
                WHERE created_at < now() - make_interval(secs => $1) LIMIT 10000)",
            KEEP.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}

impl IdempotentTransaction {
    fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// [`Store::create_link`] or [`Store::create_or_reuse_link`] within this transaction.
    pub async fn create_link(
        &mut self,
        new: &NewLink,
        reuse: bool,
    ) -> Result<LinkCreation, StoreError> {
        if reuse {
            links::create_or_reuse_link_on(self.connection(), new).await
        } else {
            links::create_link_on(self.connection(), new).await
        }
    }

    /// [`Store::create_user`] within this transaction.
    pub async fn create_user(&mut self, new: &NewUser) -> Result<User, StoreError> {
        users::create_user_on(self.connection(), new).await
    }

    /// [`Store::create_job`] within this transaction.
    pub async fn create_job(
        &mut self,
        new: &NewJob,
        limits: JobLimits,
    ) -> Result<Option<Job>, StoreError> {
        jobs::create_job_on(self.connection(), new, limits).await
    }

    /// [`Store::create_event`] within this transaction.
    pub async fn create_event(
        &mut self,
        new: &NewEvent,
        visible_to: Visibility,
    ) -> Result<Option<Event>, StoreError> {
        events::create_event_on(self.connection(), new, visible_to).await
    }

    /// Stores the answer and commits.
    pub async fn finish(mut self, answer: &StoredResponse) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE idempotency_keys SET status = $3, location = $4, body = $5
              WHERE owner = $1 AND key = $2",
            self.owner,
            self.key,
            answer.status,
            answer.location,
            answer.body
        )
        .execute(&mut *self.transaction)
        .await?;
        self.transaction.commit().await?;
        Ok(())
    }
}
