//! Uploads in the database: compressed pieces of files that wait for their jobs.
//!
//! - Pieces are added in order, each in a transaction of its own that also counts its bytes in the upload's row. A piece is
//!   refused if the count is not where the piece starts, so a database that has lost pieces in a failover is noticed.
//! - The commit of a piece does not wait for the disk or for a standby. The commit of the job does, and it is later in the
//!   write-ahead log, so a job never exists without its pieces.
//! - A job is created only if the database has as many bytes as were uploaded.

use std::time::Duration;

use sqlx::PgConnection;

use linnet_domain::{NewJob, UploadId, UploadName, UserId};

use super::{Store, StoreError, observe::observe_query};

/// The maximum number of pieces that one statement deletes.
const PIECES_PER_DELETION: i64 = 128;
/// The maximum number of uploads in one answer of [`Store::old_uploads`].
const UPLOADS_PER_QUERY: i64 = 1_000;

/// Bounds of the uploads in the database.
#[derive(Debug, Clone, Copy)]
pub struct UploadLimits {
    /// Bytes of all uploads together, as stored.
    pub all: i64,
    /// Bytes of the content of one owner's uploads. Uploads without an owner share one limit.
    pub per_user: i64,
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

    /// Adds a piece to an upload, behind its last one.
    pub async fn add_upload_piece(
        &self,
        id: UploadId,
        piece: NewPiece<'_>,
        limits: UploadLimits,
    ) -> Result<Result<(), PieceRefusal>, StoreError> {
        let stored = i64::try_from(piece.stored.len()).unwrap_or(i64::MAX);
        let query = sqlx::query_scalar!(
            r#"WITH unsynced AS MATERIALIZED (
                 SELECT set_config('synchronous_commit', 'off', true) AS value
               ), sums AS MATERIALIZED (
                 SELECT COALESCE(sum(stored_bytes), 0)::bigint AS stored,
                        COALESCE(sum(content_bytes) FILTER (WHERE user_id IS NOT DISTINCT FROM
                          (SELECT user_id FROM uploads WHERE id = $1)), 0)::bigint AS own
                   FROM uploads
               ), counted AS (
                 UPDATE uploads SET content_bytes = content_bytes + $3::bigint,
                        stored_bytes = stored_bytes + $4::bigint, changed_at = now()
                   FROM sums, unsynced
                  WHERE id = $1 AND content_bytes = $2::bigint AND unsynced.value = 'off'
                    AND sums.stored + $4 <= $6::bigint AND sums.own + $3 <= $7::bigint
                 RETURNING id
               ), added AS (
                 INSERT INTO upload_pieces (upload_id, starts_at, content)
                 SELECT id, $2, $5 FROM counted RETURNING upload_id
               )
               SELECT CASE WHEN EXISTS (SELECT FROM added) THEN 'added'
                           WHEN NOT EXISTS (SELECT FROM uploads WHERE id = $1 AND content_bytes = $2)
                           THEN 'lost'
                           WHEN sums.stored + $4 > $6::bigint THEN 'full' ELSE 'user_full' END
                        AS "result!" FROM sums"#,
            id.get(),
            piece.starts_at,
            piece.content_bytes,
            stored,
            piece.stored,
            limits.all,
            limits.per_user
        );
        let result = observe_query("add_upload_piece", query.fetch_one(&self.pool)).await?;
        Ok(match result.as_str() {
            "added" => Ok(()),
            "full" => Err(PieceRefusal::Full),
            "user_full" => Err(PieceRefusal::UserFull),
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

    /// Deletes an upload, its pieces in several transactions.
    pub async fn delete_upload(&self, id: UploadId) -> Result<(), StoreError> {
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
        let deletion = sqlx::query!("DELETE FROM uploads WHERE id = $1", id.get());
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

    /// Uploads with ids above `after` whose last piece was added at least `age` ago, in the order of ids: up to 1,000.
    pub async fn old_uploads(
        &self,
        after: Option<UploadId>,
        age: Duration,
    ) -> Result<Vec<UploadId>, StoreError> {
        let query = sqlx::query_scalar!(
            r#"SELECT id AS "id: UploadId" FROM uploads
                WHERE id > $1 AND changed_at < now() - make_interval(secs => $2)
                ORDER BY id LIMIT $3"#,
            after.map_or(0, UploadId::get),
            age.as_secs_f64(),
            UPLOADS_PER_QUERY
        );
        Ok(observe_query("old_uploads", query.fetch_all(&self.pool)).await?)
    }
}

/// Whether the job's upload is complete, if it is in the database. An upload without a job is deleted only 1 h after its last
/// piece, so it needs no lock.
pub(super) async fn has_whole_upload(
    connection: &mut PgConnection,
    new: &NewJob,
) -> Result<bool, StoreError> {
    let UploadName::Pieces(id) = new.upload else { return Ok(true) };
    let query = sqlx::query_scalar!("SELECT content_bytes FROM uploads WHERE id = $1", id.get());
    let bytes = observe_query("upload_bytes", query.fetch_optional(connection)).await?;
    Ok(bytes == Some(new.upload_bytes))
}
