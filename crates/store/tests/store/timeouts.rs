use linnet_store::{StoreError, register_timeouts};
use linnet_telemetry::testing;
use sqlx::{AssertSqlSafe, PgPool};

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
    let (telemetry, reader) = testing::telemetry();
    register_timeouts(&telemetry.meter());
    let counts = || {
        let value = |kind| reader.value("linnet_db_timeouts_total", &[("kind", kind)]);
        (value("statement"), value("lock"), value("connection"))
    };
    let of = |statement, lock, connection| (Some(statement), Some(lock), Some(connection));
    assert_eq!(counts(), of(0.0, 0.0, 0.0));

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
