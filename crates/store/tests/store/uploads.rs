//! Uploads in the database: their pieces, their limits, and what a job requires of them.

use linnet_domain::{NewJob, UploadId, UploadName, UserId, Visibility};
use linnet_store::{JobRefusal, NewPiece, PieceRefusal, Store, UploadLimits};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    jobs::{LIMITS, new_job},
    support::{count, create_user, run},
};

const WIDE: UploadLimits = UploadLimits { all: i64::MAX, per_user: i64::MAX };
const UPLOADS: &str = "SELECT count(*) FROM uploads";
const PIECES: &str = "SELECT count(*) FROM upload_pieces";

/// Adds a piece whose content is ten times as long as `stored`.
async fn add(
    store: &Store,
    id: UploadId,
    starts_at: i64,
    stored: &[u8],
    limits: UploadLimits,
) -> Result<(), PieceRefusal> {
    let content_bytes = i64::try_from(stored.len()).unwrap() * 10;
    let piece = NewPiece { starts_at, content_bytes, stored };
    store.add_upload_piece(id, piece, Some(limits)).await.unwrap()
}

async fn upload(store: &Store, owner: Option<UserId>, pieces: i64) -> UploadId {
    let id = store.create_upload(owner).await.unwrap();
    for n in 0..pieces {
        add(store, id, n * 40, format!("{n:04}").as_bytes(), WIDE).await.unwrap();
    }
    id
}

fn job_of(id: UploadId, upload_bytes: i64, user_id: Option<UserId>) -> NewJob {
    NewJob { upload: UploadName::Pieces(id), upload_bytes, ..new_job(user_id) }
}

#[sqlx::test(migrations = "../../migrations")]
async fn pieces_are_found_by_the_bytes_before_them(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (empty, id) = (upload(&store, None, 0).await, upload(&store, None, 300).await);
    assert_eq!(store.upload_bytes(id).await.unwrap(), Some(12_000));
    assert_eq!(store.upload_bytes(empty).await.unwrap(), Some(0));
    assert!(store.upload_piece(empty, 0).await.unwrap().is_none());
    for (offset, starts_at, stored) in
        [(0, 0, b"0000"), (39, 0, b"0000"), (40, 40, b"0001"), (11_999, 11_960, b"0299")]
    {
        let piece = store.upload_piece(id, offset).await.unwrap().unwrap();
        assert_eq!((piece.starts_at, piece.stored.as_slice()), (starts_at, stored.as_slice()));
    }
    store.delete_upload(id).await.unwrap();
    store.delete_upload(id).await.unwrap();
    assert_eq!(store.upload_bytes(id).await.unwrap(), None);
    assert_eq!((count(&pool, UPLOADS).await, count(&pool, PIECES).await), (1, 0));
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_stored_bytes_are_bounded_for_a_user_and_for_all(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (ada, bob) = (create_user(&store, "ada").await.id, create_user(&store, "bob").await.id);
    let first = upload(&store, Some(ada), 2).await;
    let second = store.create_upload(Some(ada)).await.unwrap();
    let own = UploadLimits { per_user: 100, ..WIDE };
    assert_eq!(add(&store, second, 0, b"abc", own).await, Err(PieceRefusal::UserFull));
    assert_eq!(add(&store, second, 0, b"ab", own).await, Ok(()), "100 bytes of content");
    let other = store.create_upload(Some(bob)).await.unwrap();
    assert_eq!(add(&store, other, 0, b"abc", own).await, Ok(()), "another user's share");
    let unowned = store.create_upload(None).await.unwrap();
    let all = UploadLimits { all: 15, ..WIDE };
    assert_eq!(add(&store, unowned, 0, b"abc", all).await, Err(PieceRefusal::Full));
    assert_eq!(add(&store, unowned, 0, b"ab", all).await, Ok(()), "15 bytes are stored");
    store.delete_upload(first).await.unwrap();
    assert_eq!(add(&store, unowned, 20, b"abc", all).await, Ok(()));
    assert_eq!(count(&pool, PIECES).await, 4, "a refused piece is not stored");
}

#[sqlx::test(migrations = "../../migrations")]
async fn job_is_created_only_with_every_piece_of_its_upload(pool: PgPool) {
    let store = Store::new(pool.clone());
    let create = async |new: NewJob| {
        store.create_job(&new, LIMITS).await.unwrap().map(|created| created.job.bytes)
    };
    let id = upload(&store, None, 3).await;
    assert_eq!(create(job_of(id, 120, None)).await, Ok(120));
    // A failover to a standby that did not have the last piece.
    let lost = upload(&store, None, 3).await;
    sqlx::query("DELETE FROM upload_pieces WHERE upload_id = $1 AND starts_at = 80")
        .bind(lost.get())
        .execute(&pool)
        .await
        .unwrap();
    sqlx::query("UPDATE uploads SET content_bytes = 80 WHERE id = $1")
        .bind(lost.get())
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(create(job_of(lost, 120, None)).await, Err(JobRefusal::UploadLost));
    let behind = add(&store, lost, 120, b"0003", WIDE).await;
    assert_eq!(behind, Err(PieceRefusal::Lost), "no piece follows a missing one");
    // A failover to a standby that did not have the upload.
    store.delete_upload(lost).await.unwrap();
    assert_eq!(create(job_of(lost, 120, None)).await, Err(JobRefusal::UploadLost));
    assert_eq!(add(&store, lost, 0, b"0000", WIDE).await, Err(PieceRefusal::Lost));
}

/// The commit of a piece waits for nothing, but that of the job, which is acknowledged, does.
#[sqlx::test(migrations = "../../migrations")]
async fn only_pieces_are_committed_without_a_sync(pool: PgPool) {
    let one = PgPoolOptions::new().max_connections(1);
    let one = one.connect_with((*pool.connect_options()).clone()).await.unwrap();
    run(&one, "SET synchronous_commit = on").await;
    // Rows of `settings` are the value at the commit of the transaction that inserts a piece or a job.
    run(
        &one,
        "CREATE TABLE settings (name text, value text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO settings VALUES (TG_TABLE_NAME, current_setting('synchronous_commit'));
           RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER note AFTER INSERT ON upload_pieces
           INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
         CREATE CONSTRAINT TRIGGER note AFTER INSERT ON jobs
           INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();",
    )
    .await;
    let store = Store::new(one.clone());
    let id = upload(&store, None, 1).await;
    store.create_job(&job_of(id, 40, None), LIMITS).await.unwrap().unwrap();
    let noted: Vec<(String, String)> =
        sqlx::query_as("SELECT name, value FROM settings").fetch_all(&one).await.unwrap();
    let expected = [("upload_pieces", "off"), ("jobs", "on")];
    assert_eq!(noted, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[sqlx::test(migrations = "../../migrations")]
async fn upload_of_a_dead_process_does_not_count_against_its_owner(pool: PgPool) {
    let store = Store::new(pool.clone());
    let ada = create_user(&store, "ada").await.id;
    let limits = UploadLimits { all: 12, per_user: 100 };
    let dead = upload(&store, Some(ada), 2).await;
    let next = store.create_upload(Some(ada)).await.unwrap();
    assert_eq!(add(&store, next, 0, b"abc", limits).await, Err(PieceRefusal::UserFull));
    let age =
        "UPDATE uploads SET changed_at = now() - interval '6 minutes' WHERE state = 'receiving'";
    run(&pool, age).await;
    assert_eq!(add(&store, next, 0, b"0123456789", limits).await, Ok(()), "100 bytes, 10 stored");
    // One that a job needs counts however old it is.
    run(&pool, age).await;
    store.create_job(&job_of(next, 100, None), LIMITS).await.unwrap().unwrap();
    run(&pool, "UPDATE uploads SET changed_at = now() - interval '1 day'").await;
    let last = store.create_upload(Some(ada)).await.unwrap();
    assert_eq!(add(&store, last, 0, b"a", limits).await, Err(PieceRefusal::UserFull));
    let bob = store.create_upload(None).await.unwrap();
    assert_eq!(add(&store, bob, 0, b"abc", limits).await, Err(PieceRefusal::Full));
    // Nothing is added to a removed upload, and no job is created with it.
    store.mark_upload_removed(dead).await.unwrap();
    assert_eq!(add(&store, dead, 80, b"0002", WIDE).await, Err(PieceRefusal::Lost));
    let created = store.create_job(&job_of(dead, 80, None), LIMITS).await.unwrap();
    assert_eq!(created.unwrap_err(), JobRefusal::UploadLost);
}

/// The space of deleted pieces is not free before a vacuum, which an old snapshot prevents.
#[sqlx::test(migrations = "../../migrations")]
async fn must_26_deleted_bytes_are_bounded_for_a_user_and_for_all(pool: PgPool) {
    const KIB: usize = 1_024;
    let store = Store::new(pool.clone());
    let (ada, bob) = (create_user(&store, "ada").await.id, create_user(&store, "bob").await.id);
    // At most 64 KiB of a user and 256 KiB of all at a time, and with deleted ones 256 KiB and 1 MiB.
    let limits = UploadLimits { all: 256 << 10, per_user: 10 * (64 << 10) };
    let own = UploadLimits { per_user: 64 << 10, ..limits };
    let noise: Vec<u8> = (0..16 * KIB).map(|n| u8::try_from(n * n % 251).unwrap()).collect();
    let upload_and_remove = async |owner, limits| {
        let id = store.create_upload(Some(owner)).await.unwrap();
        let piece = NewPiece { starts_at: 0, content_bytes: 16_384, stored: &noise };
        let added = store.add_upload_piece(id, piece, Some(limits)).await.unwrap();
        store.delete_upload(id).await.unwrap();
        added
    };
    let mut snapshot = pool.begin().await.unwrap();
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM users")
        .execute(&mut *snapshot)
        .await
        .unwrap();
    for n in 0..16 {
        assert_eq!(upload_and_remove(ada, own).await, Ok(()), "{n}");
    }
    assert_eq!(upload_and_remove(ada, own).await, Err(PieceRefusal::UserDiskFull));
    // A user has at most half of what all have.
    for n in 16..32 {
        assert_eq!(upload_and_remove(ada, limits).await, Ok(()), "{n}");
    }
    assert_eq!(upload_and_remove(ada, limits).await, Err(PieceRefusal::UserDiskFull));
    for n in 32..64 {
        assert_eq!(upload_and_remove(bob, limits).await, Ok(()), "{n}");
    }
    let anyone = store.create_upload(None).await.unwrap();
    assert_eq!(add(&store, anyone, 0, b"a", limits).await, Err(PieceRefusal::DiskFull));
    run(&pool, "VACUUM upload_pieces").await;
    let size = "SELECT pg_total_relation_size('upload_pieces')";
    let bytes = count(&pool, size).await;
    assert!((1 << 20..3 << 19).contains(&bytes), "{bytes} bytes, and nothing was freed");
    snapshot.commit().await.unwrap();

    // After two hours a vacuum has freed them.
    let age = "UPDATE removed_upload_bytes SET since = since - interval '130 minutes'";
    run(&pool, age).await;
    assert_eq!(add(&store, anyone, 0, b"a", limits).await, Ok(()));
    assert_eq!(upload_and_remove(ada, own).await, Ok(()));
    store.forget_removed_upload_bytes().await.unwrap();
    assert_eq!(count(&pool, "SELECT count(*) FROM removed_upload_bytes").await, 1);
}

/// The check of the limits reads every upload.
#[sqlx::test(migrations = "../../migrations")]
async fn piece_whose_limits_are_not_checked_reads_no_other_upload(pool: PgPool) {
    let one = PgPoolOptions::new().max_connections(1);
    let one = one.connect_with((*pool.connect_options()).clone()).await.unwrap();
    let store = Store::new(one.clone());
    run(
        &one,
        "INSERT INTO uploads (state) SELECT 'kept' FROM generate_series(1, 2000); ANALYZE uploads",
    )
    .await;
    let id = store.create_upload(None).await.unwrap();
    let rows_read = async || {
        run(&one, "SELECT pg_stat_force_next_flush()").await;
        count(&one, "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'uploads'").await
    };
    let mut starts_at = 0;
    let mut add = async |limits| {
        let piece = NewPiece { starts_at, content_bytes: 40, stored: b"abcd" };
        store.add_upload_piece(id, piece, limits).await.unwrap().unwrap();
        starts_at += 40;
    };
    let before = rows_read().await;
    for _ in 0..10 {
        add(None).await;
    }
    let unchecked = rows_read().await;
    assert_eq!(unchecked - before, 0);
    add(Some(WIDE)).await;
    assert!(rows_read().await - unchecked >= 2_000, "the check does");
}

#[sqlx::test(migrations = "../../migrations")]
async fn unneeded_uploads_are_listed_and_those_of_an_erased_user_deleted(pool: PgPool) {
    let store = Store::new(pool.clone());
    let ada = create_user(&store, "ada").await.id;
    let first = upload(&store, Some(ada), 1).await;
    let (second, third) = (upload(&store, None, 1).await, upload(&store, None, 1).await);
    let kept = upload(&store, None, 1).await;
    store.create_job(&job_of(kept, 40, None), LIMITS).await.unwrap().unwrap();
    assert!(store.unneeded_uploads(None).await.unwrap().is_empty());
    run(&pool, "UPDATE uploads SET changed_at = now() - interval '6 minutes'").await;
    assert_eq!(store.unneeded_uploads(None).await.unwrap(), [first, second, third]);
    assert_eq!(store.unneeded_uploads(Some(second)).await.unwrap(), [third]);
    add(&store, third, 40, b"new", WIDE).await.unwrap();
    assert_eq!(store.unneeded_uploads(None).await.unwrap(), [first, second]);
    run(
        &pool,
        "UPDATE uploads SET changed_at = now() - interval '61 minutes' WHERE state = 'kept'",
    )
    .await;
    assert_eq!(store.unneeded_uploads(Some(second)).await.unwrap(), [kept]);

    assert!(store.delete_user(ada, Visibility::All, None).await.unwrap());
    run(&pool, "UPDATE uploads SET changed_at = now()").await;
    assert_eq!(store.unneeded_uploads(None).await.unwrap(), [first]);
    assert!(store.delete_unneeded_upload(first).await.unwrap());
    assert_eq!(count(&pool, UPLOADS).await, 3);
    upload(&store, Some(ada), 1).await;
    store.erase_user_history(ada).await.unwrap();
    assert_eq!((count(&pool, UPLOADS).await, count(&pool, PIECES).await), (3, 4));
}

/// The task finds an upload without a job, and a request creates the job before the task deletes the upload.
#[sqlx::test(migrations = "../../migrations")]
async fn upload_whose_job_is_created_meanwhile_is_not_deleted(pool: PgPool) {
    let store = Store::new(pool.clone());
    let id = upload(&store, None, 1).await;
    run(&pool, "UPDATE uploads SET changed_at = now() - interval '6 minutes'").await;
    assert_eq!(store.unneeded_uploads(None).await.unwrap(), [id]);
    store.create_job(&job_of(id, 40, None), LIMITS).await.unwrap().unwrap();
    assert!(!store.delete_unneeded_upload(id).await.unwrap());
    assert_eq!(count(&pool, PIECES).await, 1);
}
