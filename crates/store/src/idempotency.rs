//! Idempotency keys: the response to the first request with a key is stored and replayed.
//!
//! * The response is stored in the transaction that does the work, so either both exist or neither.
//! * A second request with the key waits on the primary key until the first commits, and then reads its response.

use std::time::Duration;

use sqlx::{PgConnection, Postgres, Transaction};

use linnet_domain::{Event, NewEvent, NewJob, NewLink, NewUser, User, Visibility};

use super::{CreatedJob, JobLimits, JobRefusal, LinkCreation, Store, StoreError, events, jobs, links, users};

/// How long a response is kept.
const RETENTION: Duration = Duration::from_hours(24);

/// The response to the first request.
#[derive(Debug, Clone)]
pub struct StoredResponse {
    /// The status code.
    pub status: i16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

/// The result of claiming an idempotency key.
#[derive(Debug)]
pub enum IdempotencyClaim {
    /// The key is new. The caller does the work in this transaction and calls [`IdempotentTransaction::finish`].
    New(IdempotentTransaction),
    /// The same request has this response.
    Replay(StoredResponse),
    /// The key belongs to a request with another hash.
    Mismatch,
    /// The key is new, and its owner is at its quota of keys.
    TooMany,
}

/// A transaction that holds an idempotency key. Dropping it rolls back.
#[derive(Debug)]
pub struct IdempotentTransaction {
    transaction: Transaction<'static, Postgres>,
    owner: String,
    key: String,
}

impl Store {
    /// Claims `key` of `owner` for the request with this hash.
    pub async fn begin_idempotent(
        &self,
        owner: &str,
        key: &str,
        request_hash: &[u8],
    ) -> Result<IdempotencyClaim, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query!(
            "DELETE FROM idempotency_keys
              WHERE owner = $1 AND key = $2 AND created_at < now() - make_interval(secs => $3)",
            owner,
            key,
            RETENTION.as_secs_f64()
        )
        .execute(&mut *transaction)
        .await?;
        let claimed = sqlx::query!(
            "INSERT INTO idempotency_keys (owner, key, request_hash, status, body)
             SELECT $1, $2, $3, 0, '' WHERE NOT is_at_quota($1, 'idempotency_keys')
             ON CONFLICT DO NOTHING",
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
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(IdempotencyClaim::TooMany) };
        if row.request_hash != request_hash {
            return Ok(IdempotencyClaim::Mismatch);
        }
        let (status, location, body) = (row.status, row.location, row.body);
        Ok(IdempotencyClaim::Replay(StoredResponse { status, location, body }))
    }

    /// Deletes up to 10,000 responses that are older than 24 hours. Returns their number.
    pub async fn delete_expired_idempotency_keys(&self) -> Result<u64, StoreError> {
        let deletion = sqlx::query!(
            "DELETE FROM idempotency_keys WHERE ctid IN (
               SELECT ctid FROM idempotency_keys
                WHERE created_at < now() - make_interval(secs => $1) LIMIT 10000)",
            RETENTION.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        Ok(deletion.rows_affected())
    }
}

impl IdempotentTransaction {
    fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// [`Store::create_link`] or [`Store::create_or_reuse_link`] in this transaction.
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

    /// [`Store::create_user`] in this transaction.
    pub async fn create_user(&mut self, new: &NewUser) -> Result<User, StoreError> {
        users::create_user_on(self.connection(), new).await
    }

    /// [`Store::create_job`] in this transaction.
    pub async fn create_job(
        &mut self,
        new: &NewJob,
        limits: JobLimits,
    ) -> Result<Result<CreatedJob, JobRefusal>, StoreError> {
        jobs::create_job_on(self.connection(), new, limits).await
    }

    /// [`Store::create_event`] in this transaction.
    pub async fn create_event(
        &mut self,
        new: &NewEvent,
        visible_to: Visibility,
    ) -> Result<Option<Event>, StoreError> {
        events::create_event_on(self.connection(), new, visible_to).await
    }

    /// Stores the response and commits.
    pub async fn finish(mut self, response: &StoredResponse) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE idempotency_keys SET status = $3, location = $4, body = $5
              WHERE owner = $1 AND key = $2",
            self.owner,
            self.key,
            response.status,
            response.location,
            response.body
        )
        .execute(&mut *self.transaction)
        .await?;
        self.transaction.commit().await?;
        Ok(())
    }
}
