use std::time::Duration;

use linnet_domain::Visibility;
use linnet_store::{Store, StoreError, register_timeouts};
use linnet_telemetry::testing;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::{sync::Mutex, time::timeout};

use crate::support::create_user;

/// The counters belong to the process, which may run these tests at the same time.
static COUNTERS: Mutex<()> = Mutex::const_new(());

/// Runs statements in one session and returns the error of the last one.
async fn error_of(pool: &PgPool, statements: &[&str]) -> StoreError {
    let mut session = pool.acquire().await.unwrap();
    let mut last = Ok(());
    for statement in statements {
        last = sqlx::raw_sql(AssertSqlSafe((*statement).to_owned()))
            .execute(&mut *session)
            .await
            .map(drop);
    }
    last.unwrap_err().into()
}

#[sqlx::test(migrations = "../../migrations")]
async fn statements_that_end_at_a_timeout_are_counted_by_kind(pool: PgPool) {
    let _guard = COUNTERS.lock().await;
    let (telemetry, reader) = testing::telemetry();
    register_timeouts(&telemetry.meter());
    let counts = || {
        let value = |kind| reader.value("linnet_db_timeouts_total", &[("kind", kind)]);
        (value("statement"), value("lock"), value("connection"))
    };
    let (statements, locks, connections) = counts();
    let of = |statement, lock, connection| {
        let sum = |before: Option<f64>, more: f64| before.map(|before| before + more);
        (sum(statements, statement), sum(locks, lock), sum(connections, connection))
    };
    assert!(statements.is_some() && locks.is_some() && connections.is_some());

    let error = error_of(&pool, &["SET statement_timeout = '50ms'", "SELECT pg_sleep(30)"]).await;
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert_eq!(counts(), of(1.0, 0.0, 0.0));

    let mut owner = pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE urls").execute(&mut *owner).await.unwrap();
    let blocked = ["SET statement_timeout = 0", "SET lock_timeout = '50ms'", "SELECT FROM urls"];
    let error = error_of(&pool, &blocked).await;
    assert!(matches!(error, StoreError::Locked(_)), "{error:?}");
    // This code is that of a lock timeout, but nothing waited.
    let error = error_of(&pool, &["BEGIN", "LOCK TABLE urls NOWAIT"]).await;
    assert!(matches!(error, StoreError::Locked(_)), "{error:?}");
    drop(owner);
    assert_eq!(counts(), of(1.0, 1.0, 0.0));

    let _ = StoreError::from(sqlx::Error::PoolTimedOut);
    assert_eq!(counts(), of(1.0, 1.0, 1.0));
}

/// The gateway's default `upstream.response_timeout_ms`, after which a client gets a 504 that names no cause.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

#[sqlx::test(migrations = "../../migrations")]
async fn long_statements_report_a_lock_before_the_gateway_ends_the_request(pool: PgPool) {
    let _guard = COUNTERS.lock().await;
    let store = Store::new(pool.clone());
    let user = create_user(&store, "locked").await;
    let ban = store.ban_host("banned.example", None, None).await.unwrap();
    let mut owner = pool.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM users FOR UPDATE; LOCK TABLE urls IN ROW EXCLUSIVE MODE")
        .execute(&mut *owner)
        .await
        .unwrap();
    let (deleted, taken_down) = tokio::join!(
        timeout(RESPONSE_TIMEOUT, store.delete_user(user.id, Visibility::All, None)),
        timeout(RESPONSE_TIMEOUT, store.take_down_links_to(&ban, None)),
    );
    assert!(matches!(deleted, Ok(Err(StoreError::Locked(_)))), "{deleted:?}");
    assert!(matches!(taken_down, Ok(Err(StoreError::Locked(_)))), "{taken_down:?}");
    drop(owner);
    assert!(store.delete_user(user.id, Visibility::All, None).await.unwrap());
}
