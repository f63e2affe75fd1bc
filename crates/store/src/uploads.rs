//! Uploads in the database: compressed pieces of files that wait for their jobs.
//!
//! - Pieces are added in order, each in a transaction of its own that also counts its bytes in the upload's row. A piece is
//!   refused if the count is not where the piece starts, so a database that has lost pieces in a failover is noticed.
//! - The commit of a piece does not wait for the disk or for a standby. The commit of the job does, and it is later in the
//!   write-ahead log, so a job never exists without its pieces.
//! - A job is created only if the database has as many bytes as were uploaded, and keeps the upload from then on.
//! - An upload whose process has died while it received it does not count against its owner, and is deleted later.
//! - Deleted bytes count for two hours. Only then a vacuum has certainly freed their space.

use sqlx::PgConnection;

use linnet_domain::{NewJob, UploadId, UploadName, UserId};

use super::{Store, StoreError, observe::observe_query};

/// The maximum number of pieces that one statement deletes.
const PIECES_PER_DELETION: i64 = 128;
/// The maximum number of uploads in one answer of [`Store::unneeded_uploads`].
const UPLOADS_PER_QUERY: i64 = 1_000;
/// The factor of the limits for stored bytes that include those whose space a vacuum may not have freed yet.
const DISK_FACTOR: i64 = 4;

/// Bounds of the uploads in the database.
#[derive(Debug, Clone, Copy)]
pub struct UploadLimits {
    /// Bytes of all uploads together, as stored. Four times as many may be stored with those that were deleted within the
    /// last two hours.
    pub all: i64,
    /// Bytes of the content of one owner's uploads. Uploads without an owner share one limit. Four times as many stored
    /// bytes may be the owner's with those that were deleted within the last two hours, but at most half of all.
    pub per_user: i64,
}

impl UploadLimits {
    /// The limits of stored bytes with deleted ones: of all, and of one owner.
    const fn on_disk(self) -> (i64, i64) {
        let all = self.all.saturating_mul(DISK_FACTOR);
        let own = self.per_user.saturating_mul(DISK_FACTOR);
        (all, if own < all / 2 { own } else { all / 2 })
    }
}

/// A piece to add.
#[derive(Debug, Clone, Copy)]
pub struct NewPiece<'a> {
    /// Bytes of the content before the piece.
    pub starts_at: i64,
    /// Bytes of the piece's content.
    pub content_bytes: i64,
    /// The compressed content.
    pub stored: &'a [u8],
}

/// A stored piece.
#[derive(Debug)]
pub struct UploadPiece {
    /// Bytes of the content before the piece.
    pub starts_at: i64,
    /// The compressed content.
    pub stored: Vec<u8>,
}

/// Why a piece was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceRefusal {
    /// All uploads together would exceed [`UploadLimits::all`].
    Full,
    /// The owner's uploads would exceed [`UploadLimits::per_user`].
    UserFull,
    /// All uploads with deleted ones, whose space may not be free yet, would exceed their limit.
    DiskFull,
    /// The owner's uploads with deleted ones would exceed their limit.
    UserDiskFull,
    /// The upload, or a piece of it, is not in the database: it was removed, or a failover lost it.
    Lost,
}

impl Store {
    /// Creates an upload without content.
    pub async fn create_upload(&self, owner: Option<UserId>) -> Result<UploadId, StoreError> {
        let query = sqlx::query_scalar!(
            r#"INSERT INTO uploads (user_id) VALUES ($1) RETURNING id AS "id: UploadId""#,
            owner.map(UserId::get)
        );
        Ok(observe_query("create_upload", query.fetch_one(&self.pool)).await?)
    }

    /// Adds a piece to an upload, behind its last one. `limits` is `None` for a piece that they are not checked for, since
    /// the check reads all uploads.
    // Long because one statement checks the limits and adds the piece.
    pub async fn add_upload_piece(
        &self,
        id: UploadId,
        piece: NewPiece<'_>,
        limits: Option<UploadLimits>,
    ) -> Result<Result<(), PieceRefusal>, StoreError> {
        let stored = i64::try_from(piece.stored.len()).unwrap_or(i64::MAX);
        let (all_on_disk, own_on_disk) = limits.map(UploadLimits::on_disk).unzip();
        let query = sqlx::query_scalar!(
            r#"WITH unsynced AS MATERIALIZED (
                 SELECT set_config('synchronous_commit', 'off', true) AS value
               ), sums AS MATERIALIZED (
                 SELECT COALESCE(sum(stored_bytes) FILTER (WHERE is_live), 0)::bigint AS stored,
                        COALESCE(sum(content_bytes) FILTER (WHERE is_live AND is_own), 0)::bigint AS own,
                        COALESCE(sum(stored_bytes), 0)::bigint AS on_disk,
                        COALESCE(sum(stored_bytes) FILTER (WHERE is_own), 0)::bigint AS own_on_disk
                   FROM (SELECT user_id IS NOT DISTINCT FROM
                                  (SELECT user_id FROM uploads WHERE id = $1) AS is_own,
                                state = 'kept'
                                  OR (state = 'receiving' AND changed_at > now() - interval '5 minutes') AS is_live,
                                content_bytes, stored_bytes
                           FROM uploads
                         UNION ALL
                         SELECT user_id IS NOT DISTINCT FROM (SELECT user_id FROM uploads WHERE id = $1),
                                false, 0, stored_bytes
                           FROM removed_upload_bytes
                          WHERE since > now() - interval '2 hours 10 minutes') AS upload
                  WHERE $6::bigint IS NOT NULL
               ), refusal AS MATERIALIZED (
                 SELECT CASE WHEN stored + $4::bigint > $6::bigint THEN 'full'
                             WHEN own + $3::bigint > $7::bigint THEN 'user_full'
                             WHEN on_disk + $4 > $8::bigint THEN 'disk_full'
                             WHEN own_on_disk + $4 > $9::bigint THEN 'user_disk_full' END AS reason
                   FROM sums
               ), counted AS (
                 UPDATE uploads SET content_bytes = content_bytes + $3,
                        stored_bytes = stored_bytes + $4, changed_at = now()
                   FROM refusal, unsynced
                  WHERE id = $1 AND content_bytes = $2::bigint AND state = 'receiving'
                    AND unsynced.value = 'off' AND refusal.reason IS NULL
                 RETURNING id
               ), added AS (
                 INSERT INTO upload_pieces (upload_id, starts_at, content)
                 SELECT id, $2, $5 FROM counted RETURNING upload_id
               )
               SELECT CASE WHEN EXISTS (SELECT FROM added) THEN 'added' ELSE COALESCE(reason, 'lost') END
                        AS "result!" FROM refusal"#,
            id.get(),
            piece.starts_at,
            piece.content_bytes,
            stored,
            piece.stored,
            limits.map(|limits| limits.all),
            limits.map(|limits| limits.per_user),
            all_on_disk,
            own_on_disk
        );
        let result = observe_query("add_upload_piece", query.fetch_one(&self.pool)).await?;
        Ok(match result.as_str() {
            "added" => Ok(()),
            "full" => Err(PieceRefusal::Full),
            "user_full" => Err(PieceRefusal::UserFull),
            "disk_full" => Err(PieceRefusal::DiskFull),
            "user_disk_full" => Err(PieceRefusal::UserDiskFull),
            _ => Err(PieceRefusal::Lost),
        })
    }

    /// The bytes of an upload's content; `None` if the upload does not exist.
    pub async fn upload_bytes(&self, id: UploadId) -> Result<Option<i64>, StoreError> {
        let query =
            sqlx::query_scalar!("SELECT content_bytes FROM uploads WHERE id = $1", id.get());
        Ok(observe_query("upload_bytes", query.fetch_optional(&self.pool)).await?)
    }

    /// The piece with the byte of the content at `offset`, or the last one before it.
    pub async fn upload_piece(
        &self,
        id: UploadId,
        offset: i64,
    ) -> Result<Option<UploadPiece>, StoreError> {
        let query = sqlx::query_as!(
            UploadPiece,
            "SELECT starts_at, content AS stored FROM upload_pieces
              WHERE upload_id = $1 AND starts_at <= $2 ORDER BY starts_at DESC LIMIT 1",
            id.get(),
            offset
        );
        Ok(observe_query("upload_piece", query.fetch_optional(&self.pool)).await?)
    }

    /// Marks an upload as removed, so that nothing is added to it, it counts no longer against its owner, and
    /// [`Self::unneeded_uploads`] lists it.
    pub async fn mark_upload_removed(&self, id: UploadId) -> Result<(), StoreError> {
        let update = sqlx::query!(
            "UPDATE uploads SET state = 'removed' WHERE id = $1 AND state <> 'removed'",
            id.get()
        );
        observe_query("mark_upload_removed", update.execute(&self.pool)).await?;
        Ok(())
    }

    /// Deletes an upload, its pieces in several transactions.
    pub async fn delete_upload(&self, id: UploadId) -> Result<(), StoreError> {
        self.mark_upload_removed(id).await?;
        loop {
            // From the end, so that a reader does not take the rest for the file.
            let deletion = sqlx::query!(
                "DELETE FROM upload_pieces WHERE upload_id = $1 AND starts_at >= (
                   SELECT min(starts_at) FROM (
                     SELECT starts_at FROM upload_pieces WHERE upload_id = $1
                      ORDER BY starts_at DESC LIMIT $2) AS last)",
                id.get(),
                PIECES_PER_DELETION
            );
            let deleted =
                observe_query("delete_upload_pieces", deletion.execute(&self.pool)).await?;
            if deleted.rows_affected() == 0 {
                break;
            }
        }
        let deletion = sqlx::query!(
            "WITH deleted AS (DELETE FROM uploads WHERE id = $1 RETURNING user_id, stored_bytes)
             INSERT INTO removed_upload_bytes AS removed (user_id, since, stored_bytes)
             SELECT user_id, date_bin('10 minutes', now(), timestamptz 'epoch'), stored_bytes
               FROM deleted WHERE stored_bytes > 0
             ON CONFLICT (user_id, since)
             DO UPDATE SET stored_bytes = removed.stored_bytes + EXCLUDED.stored_bytes",
            id.get()
        );
        observe_query("delete_upload", deletion.execute(&self.pool)).await?;
        Ok(())
    }

    /// Deletes the uploads of a user.
    pub async fn delete_uploads_of(&self, user_id: UserId) -> Result<(), StoreError> {
        let query = sqlx::query_scalar!(
            r#"SELECT id AS "id: UploadId" FROM uploads WHERE user_id = $1"#,
            user_id.get()
        );
        for id in observe_query("uploads_of", query.fetch_all(&self.pool)).await? {
            self.delete_upload(id).await?;
        }
        Ok(())
    }

    /// Uploads with ids above `after` that are removed, or that no job needs unless it exists: not received for 5 min, or
    /// kept and not changed for 1 h. In the order of ids, up to 1,000.
    pub async fn unneeded_uploads(
        &self,
        after: Option<UploadId>,
    ) -> Result<Vec<UploadId>, StoreError> {
        let query = sqlx::query_scalar!(
            r#"SELECT id AS "id: UploadId" FROM uploads
                WHERE id > $1
                  AND CASE state WHEN 'receiving' THEN changed_at < now() - interval '5 minutes'
                                 WHEN 'kept' THEN changed_at < now() - interval '1 hour'
                                 ELSE true END
                ORDER BY id LIMIT $2"#,
            after.map_or(0, UploadId::get),
            UPLOADS_PER_QUERY
        );
        Ok(observe_query("unneeded_uploads", query.fetch_all(&self.pool)).await?)
    }

    /// Deletes an upload of [`Self::unneeded_uploads`] that no job needs. Returns whether it was deleted: a request may have
    /// created its job meanwhile.
    pub async fn delete_unneeded_upload(&self, id: UploadId) -> Result<bool, StoreError> {
        let update = sqlx::query!(
            "UPDATE uploads SET state = 'removed'
              WHERE id = $1
                AND CASE state WHEN 'receiving' THEN changed_at < now() - interval '5 minutes'
                               WHEN 'kept' THEN changed_at < now() - interval '1 hour'
                               ELSE true END",
            id.get()
        );
        let marked = observe_query("give_up_upload", update.execute(&self.pool)).await?;
        if marked.rows_affected() == 0 {
            return Ok(false);
        }
        self.delete_upload(id).await?;
        Ok(true)
    }

    /// Forgets the bytes of uploads that were deleted more than two hours ago.
    pub async fn forget_removed_upload_bytes(&self) -> Result<(), StoreError> {
        let deletion = sqlx::query!(
            "DELETE FROM removed_upload_bytes WHERE since <= now() - interval '2 hours 10 minutes'"
        );
        observe_query("forget_removed_upload_bytes", deletion.execute(&self.pool)).await?;
        Ok(())
    }
}

/// Marks a user's uploads as removed.
pub(super) async fn mark_uploads_removed_of(
    connection: &mut PgConnection,
    user_id: UserId,
) -> Result<(), StoreError> {
    sqlx::query!("UPDATE uploads SET state = 'removed' WHERE user_id = $1", user_id.get())
        .execute(connection)
        .await?;
    Ok(())
}

/// Keeps the upload of a new job, if it is in the database. Returns false if it is not complete there. The row stays locked
/// until the end of the transaction, so that a concurrent deletion waits and then finds that the upload has changed.
pub(super) async fn keep_whole_upload(
    connection: &mut PgConnection,
    new: &NewJob,
) -> Result<bool, StoreError> {
    let UploadName::Pieces(id) = new.upload else { return Ok(true) };
    let update = sqlx::query!(
        "UPDATE uploads SET state = 'kept', changed_at = now()
          WHERE id = $1 AND content_bytes = $2 AND state = 'receiving'",
        id.get(),
        new.upload_bytes
    );
    Ok(observe_query("keep_upload", update.execute(connection)).await?.rows_affected() > 0)
}
