//! Uploads in PostgreSQL: what is read is what was uploaded, and a part that is missing is not the end of the file.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{
    io::{self, Read as _, Seek as _, SeekFrom},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use linnet_domain::UploadName;
use linnet_import::RowFile as _;
use linnet_jobs::{
    JobSettings, UploadStore,
    upload::{Upload, UploadArea, UploadError, UploadFile},
};
use linnet_store::{Store, StoreError};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::{Connection as _, PgPool};
use tokio_util::sync::CancellationToken;

const PIECE: usize = 256 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);

fn area(pool: &PgPool) -> UploadArea {
    let settings = JobSettings {
        upload_store: UploadStore::Postgres,
        upload_dir: "/proc/no-directory".into(),
        upload_bytes: 8 * 1024 * 1024,
        ..JobSettings::default()
    };
    UploadArea::new(Arc::new(settings), Store::new(pool.clone()))
}

async fn receive(area: &UploadArea, body: &[u8]) -> Result<Upload, UploadError> {
    let parts: Vec<Result<_, io::Error>> =
        body.chunks(30_011).map(|part| Ok(bytes::Bytes::copy_from_slice(part))).collect();
    area.receive(None, stream::iter(parts)).await
}

/// Reads up to `limit` bytes from an offset on.
async fn read(file: UploadFile, from: u64, limit: u64) -> io::Result<Vec<u8>> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut opened = file.open()?;
        opened.seek(SeekFrom::Start(from))?;
        let mut content = Vec::new();
        opened.take(limit).read_to_end(&mut content)?;
        Ok(content)
    });
    reading.await.unwrap()
}

async fn count(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

async fn wait_until_empty(pool: &PgPool) {
    let query = "SELECT (SELECT count(*) FROM uploads) + (SELECT count(*) FROM upload_pieces)";
    let emptied = async {
        while count(pool, query).await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(TIMEOUT, emptied).await.is_ok(), "the upload is removed");
}

#[sqlx::test(migrations = "../../migrations")]
async fn content_is_read_from_any_byte(pool: PgPool) {
    let area = area(&pool);
    let mut random = StdRng::seed_from_u64(7);
    for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 5 * PIECE + 12_345] {
        // A half of it does not compress.
        let body: Vec<u8> =
            (0..size).map(|n| if n % 2 == 0 { random.random() } else { b'a' }).collect();
        let upload = receive(&area, &body).await.unwrap();
        assert_eq!(upload.bytes, size as u64);
        assert_eq!(read(upload.file(), 0, u64::MAX).await.unwrap(), body, "{size}");
        for _ in 0..10 {
            let from = random.random_range(0..=size);
            let part = read(upload.file(), from as u64, 100).await.unwrap();
            assert_eq!(part, &body[from..size.min(from + 100)], "{size} from {from}");
        }
        assert!(read(upload.file(), size as u64 + 1, 100).await.unwrap().is_empty());
    }
    wait_until_empty(&pool).await;
}

#[sqlx::test(migrations = "../../migrations")]
async fn upload_is_kept_or_removed_with_its_pieces(pool: PgPool) {
    let area = area(&pool);
    let body = vec![b'a'; 2 * PIECE];
    let mut kept = receive(&area, &body).await.unwrap();
    kept.keep(true);
    let name = kept.name.clone();
    drop(kept);
    // It is found by its name, also by a process that stores new uploads in files.
    let files = JobSettings { upload_dir: "/proc/no-directory".into(), ..JobSettings::default() };
    let files = UploadArea::new(Arc::new(files), Store::new(pool.clone()));
    let name = UploadName::of(name.to_string());
    assert_eq!(read(files.file(&name), 0, u64::MAX).await.unwrap(), body);
    files.remove(&name).await;
    wait_until_empty(&pool).await;
    assert_eq!(read(files.file(&name), 0, 1).await.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[sqlx::test(migrations = "../../migrations")]
async fn refused_and_incomplete_uploads_are_removed(pool: PgPool) {
    let area = area(&pool);
    let large = receive(&area, &vec![b'a'; 8 * 1024 * 1024 + 1]).await;
    assert!(matches!(large, Err(UploadError::TooLarge { .. })), "{large:?}");
    wait_until_empty(&pool).await;
    let start = || stream::iter([Ok::<_, io::Error>(bytes::Bytes::from(vec![b'a'; 2 * PIECE]))]);
    let cut = start().chain(stream::iter([Err(io::Error::other("gone"))]));
    let cut = area.receive(None, cut).await;
    assert!(matches!(cut, Err(UploadError::Incomplete)), "{cut:?}");
    wait_until_empty(&pool).await;
    // A request is dropped while a part of it is stored.
    let mut body = start().chain(stream::pending());
    {
        let mut receiving = std::pin::pin!(area.receive(None, &mut body));
        while count(&pool, "SELECT count(*) FROM upload_pieces").await == 0 {
            assert!(futures::poll!(&mut receiving).is_pending());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    wait_until_empty(&pool).await;
}

#[sqlx::test(migrations = "../../migrations")]
async fn lost_piece_ends_the_upload(pool: PgPool) {
    let area = area(&pool);
    let start = stream::iter([Ok::<_, io::Error>(bytes::Bytes::from(vec![b'a'; PIECE]))]);
    let loss = async {
        // A failover to a standby without the first piece, while the client pauses.
        while count(&pool, "SELECT count(*) FROM upload_pieces").await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sqlx::raw_sql("DELETE FROM upload_pieces; UPDATE uploads SET content_bytes = 0")
            .execute(&pool)
            .await
            .unwrap();
        Ok(bytes::Bytes::from(vec![b'b'; PIECE]))
    };
    let body = start.chain(stream::once(Box::pin(loss)));
    let lost = area.receive(None, body).await;
    assert!(matches!(lost, Err(UploadError::Lost)), "{lost:?}");
    wait_until_empty(&pool).await;
}

#[sqlx::test(migrations = "../../migrations")]
async fn missing_or_damaged_piece_is_an_error_and_not_the_end(pool: PgPool) {
    let area = area(&pool);
    let body = vec![b'a'; 3 * PIECE];
    for damage in [
        "DELETE FROM upload_pieces WHERE starts_at > 0",
        "DELETE FROM upload_pieces WHERE starts_at = 262144",
        "UPDATE upload_pieces SET content = overlay(content PLACING 'x' FROM 40) WHERE starts_at > 0",
    ] {
        let upload = receive(&area, &body).await.unwrap();
        sqlx::raw_sql(damage).execute(&pool).await.unwrap();
        let whole = read(upload.file(), 0, u64::MAX).await;
        assert!(whole.is_err(), "{damage}: {:?}", whole.map(|content| content.len()));
        assert_eq!(read(upload.file(), 0, PIECE as u64).await.unwrap(), &body[..PIECE]);
    }
}

/// The pieces of a discarded upload may be a gigabyte.
#[sqlx::test(migrations = "../../migrations")]
async fn discarding_an_upload_does_not_wait_for_the_deletion_of_its_pieces(pool: PgPool) {
    let area = area(&pool);
    let mut upload = receive(&area, &vec![b'a'; 2 * PIECE]).await.unwrap();
    upload.keep(true);
    let mut connection = pool.acquire().await.unwrap();
    let mut lock = connection.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE upload_pieces").execute(&mut *lock).await.unwrap();
    let discarded = tokio::time::timeout(TIMEOUT, area.discard(&upload.name)).await;
    assert!(discarded.is_ok(), "it waits for the pieces");
    let removed = "SELECT count(*) FROM uploads WHERE state = 'removed'";
    assert_eq!(count(&pool, removed).await, 1, "it counts no longer against its owner");
    lock.commit().await.unwrap();
    wait_until_empty(&pool).await;
}

#[sqlx::test(migrations = "../../migrations")]
async fn unavailable_database_and_lost_pieces_are_named_as_such(pool: PgPool) {
    let reason = |read: io::Result<Vec<u8>>| read.unwrap_err().downcast::<UploadError>().unwrap();
    let area = area(&pool);
    let mut upload = receive(&area, b"abc").await.unwrap();
    upload.keep(true);
    sqlx::raw_sql("DELETE FROM upload_pieces").execute(&pool).await.unwrap();
    let lost = reason(read(upload.file(), 0, 1).await);
    assert!(matches!(lost, UploadError::Lost), "{lost:?}");
    pool.close().await;
    let unavailable = reason(read(upload.file(), 0, 1).await);
    assert!(
        matches!(unavailable, UploadError::Store(StoreError::Unavailable(_))),
        "{unavailable:?}"
    );
}

#[sqlx::test(migrations = "../../migrations")]
async fn patient_read_continues_when_the_database_does_and_stops_on_demand(pool: PgPool) {
    let area = area(&pool);
    let upload = receive(&area, b"abc").await.unwrap();
    let patient = |stop| area.patient_file(&upload.name, TIMEOUT, stop);
    // An error of the class 57, as of a server that stops.
    let down = "ALTER TABLE uploads RENAME TO hidden;
                CREATE FUNCTION down() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
                  RAISE 'stopping' USING ERRCODE = '57P01'; END $$;
                CREATE VIEW uploads AS SELECT id, user_id, down() AS content_bytes FROM hidden";
    let up = "DROP VIEW uploads; ALTER TABLE hidden RENAME TO uploads";
    let execute = async |statement: &'static str| {
        sqlx::raw_sql(statement).execute(&pool).await.unwrap();
    };
    execute(down).await;
    assert!(read(upload.file(), 0, 10).await.is_err(), "a file that is not patient");
    let stop = CancellationToken::new();
    let stopped = tokio::spawn(read(patient(stop.clone()), 0, 10));
    let reading = tokio::spawn(read(patient(CancellationToken::new()), 0, 10));
    stop.cancel();
    assert!(stopped.await.unwrap().is_err());
    execute(up).await;
    assert_eq!(reading.await.unwrap().unwrap(), b"abc");
}
