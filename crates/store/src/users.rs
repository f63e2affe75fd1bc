//! Users.

use crate::observe::observe_query;
use sqlx::PgConnection;

use linnet_domain::{Email, NewUser, Page, User, UserId, UserPatch, Visibility};

use super::{
    Constraint, Store, StoreError, keys::revoke_below, links::delete_links_statement,
    stored_responses::delete_responses_of, uploads::mark_uploads_removed_of,
};

/// Deleting a user with many links takes longer than other statements, and waits for the chunk that a cancelled import
/// is writing. The wait for a lock ends before the gateway's `upstream.response_timeout_ms`, so that the client gets the
/// 409 of a lock instead of a 504.
const DELETE_USER_TIMEOUTS: &str =
    "SELECT set_config('statement_timeout', '30s', true), set_config('lock_timeout', '3s', true)";

/// Attempts to find a free id. An import moves the sequence past its ids before it inserts them, so more than one attempt
/// is rare.
const MAX_ID_ATTEMPTS: usize = 5;

/// The lowest id of users that are created on the command line.
const OPERATOR_IDS: i64 = 1_000_000_000;

/// `query_as!` for a [`User`]: the query before the columns, the query after them, and the arguments.
macro_rules! user_query {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            User,
            $before + r#" id AS "id: UserId", username, email, created_at "# + $after,
            $($argument),*
        )
    };
}

impl Store {
    /// Creates a user.
    pub async fn create_user(&self, new: &NewUser) -> Result<User, StoreError> {
        let mut connection = self.pool.acquire().await?;
        create_user_on(&mut connection, new).await
    }

    /// Creates a user with an id of at least [`OPERATOR_IDS`]. The user can then exist before the import of a data set
    /// without taking an id of it. The sequence is moved to that id, because all new ids come from it.
    pub async fn create_operator(&self, new: &NewUser) -> Result<User, StoreError> {
        let mut transaction = self.begin().await?;
        // Of two concurrent calls, the second one must see the sequence of the first.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtext('users_id_seq'))")
            .execute(&mut *transaction)
            .await?;
        let query = user_query!(
            "WITH next AS MATERIALIZED (SELECT nextval('users_id_seq') AS id), new AS MATERIALIZED (
               SELECT CASE WHEN id >= $3 THEN id
                      ELSE setval('users_id_seq',
                          GREATEST($3, (SELECT max(users.id) + 1 FROM users))) END AS id
                 FROM next
             )
             INSERT INTO users (id, username, email) SELECT id, $1, $2 FROM new
             ON CONFLICT (lower(email)) DO NOTHING RETURNING",
            "",
            new.username,
            new.email.as_str(),
            OPERATOR_IDS
        );
        let user =
            observe_query("create_operator", query.fetch_optional(&mut *transaction)).await?;
        transaction.commit().await?;
        user.ok_or(StoreError::Conflict(Constraint::EmailTaken))
    }

    /// The user with this id, if visible.
    pub async fn find_user(
        &self,
        id: UserId,
        visible_to: Visibility,
    ) -> Result<Option<User>, StoreError> {
        let query = user_query!(
            "SELECT",
            "FROM users
              WHERE id = $1 AND ($2::bigint IS NULL OR id = $2)",
            id.get(),
            visible_to.owner_filter()
        );
        Ok(observe_query("find_user", query.fetch_optional(&self.pool)).await?)
    }

    /// The user with this e-mail address, in any case.
    pub async fn find_user_by_email(&self, email: &str) -> Result<Option<User>, StoreError> {
        let query = user_query!("SELECT", "FROM users WHERE lower(email) = lower($1)", email);
        Ok(observe_query("find_user_by_email", query.fetch_optional(&self.pool)).await?)
    }

    /// One page of the visible users, by id.
    pub async fn list_users(
        &self,
        visible_to: Visibility,
        page: Page,
    ) -> Result<Vec<User>, StoreError> {
        let query = user_query!(
            "SELECT",
            "FROM users
              WHERE id > $1 AND ($2::bigint IS NULL OR id = $2)
              ORDER BY id LIMIT $3 OFFSET $4",
            page.after(),
            visible_to.owner_filter(),
            page.size,
            page.offset()
        );
        Ok(observe_query("list_users", query.fetch_all(&self.pool)).await?)
    }

    /// Changes a user, if visible.
    pub async fn update_user(
        &self,
        id: UserId,
        visible_to: Visibility,
        patch: &UserPatch,
    ) -> Result<Option<User>, StoreError> {
        let query = user_query!(
            "UPDATE users SET username = COALESCE($3, username), email = COALESCE($4, email)
              WHERE id = $1 AND ($2::bigint IS NULL OR id = $2)
              RETURNING",
            "",
            id.get(),
            visible_to.owner_filter(),
            patch.username,
            patch.email.as_ref().map(Email::as_str)
        );
        Ok(observe_query("update_user", query.fetch_optional(&self.pool)).await?)
    }

    /// Cancels the user's jobs in a separate transaction. Running imports then stop after their chunk and release the
    /// user's row.
    async fn cancel_jobs_of(&self, id: UserId, visible_to: Visibility) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(DELETE_USER_TIMEOUTS).execute(&mut *transaction).await?;
        sqlx::query!(
            "UPDATE jobs SET state = 'cancelled', finished_at = now(), last_event = last_event + 1,
                    worker = NULL, lease_until = NULL
              WHERE user_id = $1 AND ($2::bigint IS NULL OR user_id = $2)
                AND state IN ('queued', 'running')",
            id.get(),
            visible_to.owner_filter()
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Deletes a user with its links, keys and stored responses, if visible. The relay publishes the invalidations. Returns whether the
    /// user existed.
    pub async fn delete_user(
        &self,
        id: UserId,
        visible_to: Visibility,
        actor: Option<UserId>,
    ) -> Result<bool, StoreError> {
        self.cancel_jobs_of(id, visible_to).await?;
        let mut transaction = self.begin().await?;
        sqlx::query(DELETE_USER_TIMEOUTS).execute(&mut *transaction).await?;
        // The lock prevents new links and keys of this user until the commit.
        let found = sqlx::query_scalar!(
            "SELECT id FROM users WHERE id = $1 AND ($2::bigint IS NULL OR id = $2) FOR UPDATE",
            id.get(),
            visible_to.owner_filter()
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if found.is_none() {
            return Ok(false);
        }
        // Before the links, from which some responses are known.
        delete_responses_of(&mut transaction, id).await?;
        let links = delete_links_statement!(
            sqlx::query_scalar,
            "SELECT id FROM urls WHERE user_id = $1",
            "$2::bigint",
            "",
            r#"SELECT count(*) AS "count!" FROM deleted"#,
            id.get(),
            actor.map(UserId::get)
        );
        links.fetch_one(&mut *transaction).await?;
        // Waits for concurrent creates with the user's keys, so that new keys of other users are found and revoked.
        let own_keys = sqlx::query_scalar!(
            "SELECT id FROM api_keys WHERE user_id = $1 ORDER BY id FOR UPDATE",
            id.get()
        )
        .fetch_all(&mut *transaction)
        .await?;
        revoke_below(&mut transaction, &own_keys).await?;
        sqlx::query!(
            "WITH deleted AS (DELETE FROM api_keys WHERE user_id = $1 RETURNING id)
             INSERT INTO cache_invalidations (kind, subject) SELECT 'key', id FROM deleted",
            id.get()
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!("DELETE FROM users WHERE id = $1", id.get())
            .execute(&mut *transaction)
            .await?;
        // They may be gigabytes, so the maintenance task `uploads` deletes them.
        mark_uploads_removed_of(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// [`Store::create_user`] on a given connection.
pub(super) async fn create_user_on(
    connection: &mut PgConnection,
    new: &NewUser,
) -> Result<User, StoreError> {
    for _ in 0..MAX_ID_ATTEMPTS {
        // PostgreSQL would log the address in the error of a violated constraint.
        let query = user_query!(
            "INSERT INTO users (username, email) VALUES ($1, $2)
             ON CONFLICT DO NOTHING RETURNING",
            "",
            new.username,
            new.email.as_str()
        );
        let created = observe_query("create_user", query.fetch_optional(&mut *connection)).await?;
        if let Some(user) = created {
            return Ok(user);
        }
        let is_email_taken = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM users WHERE lower(email) = lower($1)) AS "exists!""#,
            new.email.as_str()
        );
        if is_email_taken.fetch_one(&mut *connection).await? {
            return Err(StoreError::Conflict(Constraint::EmailTaken));
        }
        // Otherwise an imported row has the next id of the sequence.
    }
    Err(StoreError::Conflict(Constraint::IdTaken))
}
