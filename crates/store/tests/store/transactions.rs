//! Transactions whose callers are dropped.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use linnet_store::Store;
use sqlx::{PgPool, postgres::PgPoolOptions};

/// More polls than a transaction needs to begin.
const POLLS: usize = 8;

/// Polls a future at most `polls` times, with time for the response of PostgreSQL between them, and drops it.
async fn poll_and_drop(polls: usize, future: impl Future) {
    let mut future = pin!(future);
    for _ in 0..polls {
        if poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await.is_ready() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn statements_after_a_dropped_begin_are_committed(pool: PgPool) {
    let options = (*pool.connect_options()).clone();
    let one = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let store = Store::new(one.clone());
    sqlx::raw_sql("CREATE TABLE numbers (n integer)").execute(&pool).await.unwrap();
    for polls in 1..=POLLS {
        poll_and_drop(polls, store.begin()).await;
        let n = i32::try_from(polls).unwrap();
        sqlx::query("INSERT INTO numbers VALUES ($1)").bind(n).execute(&one).await.unwrap();
        let seen: i64 =
            sqlx::query_scalar("SELECT count(*) FROM numbers").fetch_one(&pool).await.unwrap();
        assert_eq!(seen, i64::from(n), "dropped after {polls} polls");
    }
}
