//! Outages of Redis and PostgreSQL while links are visited.

use std::time::Duration;

use linnet_clicks::STREAM;
use linnet_system_tests::{Stack, expected::metric, stack::Postgres, within};
use redis::streams::StreamRangeReply;

use super::support::{
    DRAIN_TIMEOUT, assert_clicks_exactly, assert_roll_ups_match, builder, connect_redis,
    create_links, lost_clicks, recorded_clicks, redirected, start_visits, sum_of_shorteners,
    sum_of_workers, unpack_batches, wait_for_clicks, wait_until_drained,
};

/// Reads the whole stream and runs `command` in the same transaction.
async fn stream_before(stack: &Stack, command: &[&str]) -> StreamRangeReply {
    let mut next = redis::cmd(command[0]);
    next.arg(&command[1..]);
    let mut redis = connect_redis(stack).await;
    let (entries,): (StreamRangeReply,) = redis::pipe()
        .atomic()
        .cmd("XRANGE")
        .arg(STREAM)
        .arg("-")
        .arg("+")
        .add_command(next)
        .ignore()
        .query_async(&mut redis)
        .await
        .unwrap();
    entries
}

/// Asserts that every served click is recorded, except those in the lost stream entries.
async fn assert_only_stream_lost(stack: &Stack, served: i64, entries: &StreamRangeReply) {
    wait_until_drained(stack).await;
    let mut database = stack.database().await;
    let lost = lost_clicks(&mut database, &unpack_batches(entries)).await;
    assert_eq!(recorded_clicks(&mut database).await + lost, served);
    assert_roll_ups_match(&mut database).await;
    assert_eq!(sum_of_shorteners(stack, metric::CLICKS_ACCEPTED).await, served);
    assert_eq!(sum_of_shorteners(stack, metric::CLICKS_PUBLISHED).await, served);
    assert_eq!(sum_of_shorteners(stack, metric::CLICKS_DROPPED).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_redis_crash_loses_only_the_clicks_in_the_stream() {
    let mut stack = builder().start().await;
    let codes = create_links(&stack, 20).await;
    let load = start_visits(&stack, &codes);
    wait_for_clicks(&stack, 100).await;
    // The pause prevents changes between the read and the crash.
    let lost_entries = stream_before(&stack, &["CLIENT", "PAUSE", "60000", "ALL"]).await;
    stack.redis.kill().await;
    load.wait_for_requests(4_000).await;
    within(DRAIN_TIMEOUT, "clicks are spooled", || async {
        sum_of_shorteners(&stack, metric::CLICKS_SPOOLED).await > 2_000
    })
    .await;
    stack.start_redis().await;
    load.wait_for_requests(500).await;
    let served = redirected(&load.finish().await);
    assert_only_stream_lost(&stack, served, &lost_entries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_flushed_redis_loses_only_the_clicks_in_the_stream() {
    let mut stack = builder().start().await;
    let codes = create_links(&stack, 20).await;
    let load = start_visits(&stack, &codes);
    wait_for_clicks(&stack, 100).await;
    // Redis is flushed once while a worker reads the stream, and once without a worker.
    let first = stream_before(&stack, &["FLUSHALL"]).await;
    wait_for_clicks(&stack, 500).await;
    stack.workers[0].kill().await;
    load.wait_for_requests(1_000).await;
    within(DRAIN_TIMEOUT, "batches are in the stream", || async {
        let connection = connect_redis(&stack).await;
        let mut connection = connection;
        redis::cmd("XLEN").arg(STREAM).query_async::<u64>(&mut connection).await.unwrap() > 2
    })
    .await;
    let mut lost_entries = stream_before(&stack, &["FLUSHALL"]).await;
    stack.workers[0].start();
    load.wait_for_requests(500).await;
    let served = redirected(&load.finish().await);
    lost_entries.ids.extend(first.ids);
    assert_only_stream_lost(&stack, served, &lost_entries).await;
    assert!(
        lost_clicks(&mut stack.database().await, &unpack_batches(&lost_entries)).await > 0,
        "the stream was empty"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_postgresql_crash_loses_no_click() {
    let mut stack = builder().postgres(Postgres::Own).start().await;
    let codes = create_links(&stack, 20).await;
    for shortener in 0..2 {
        for code in &codes {
            assert_eq!(stack.resolve_at(shortener, code).await.0, 302);
        }
    }
    let warmup_visits = 2 * i64::try_from(codes.len()).unwrap();
    let load = start_visits(&stack, &codes);
    for _ in 0..3 {
        let goal = recorded_clicks(&mut stack.database().await).await + 200;
        wait_for_clicks(&stack, goal).await;
        stack.kill_postgres().await;
        load.wait_for_requests(1_000).await;
        stack.start_postgres().await;
    }
    let served = redirected(&load.finish().await);
    assert_clicks_exactly(&stack, served + warmup_visits).await;
    assert_eq!(sum_of_workers(&stack, metric::CLICKS_DEAD_LETTERS).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_database_that_rejects_statements_creates_no_dead_letters() {
    let stack = builder().start().await;
    let codes = create_links(&stack, 20).await;
    let load = start_visits(&stack, &codes);
    wait_for_clicks(&stack, 100).await;
    let mut database = stack.database().await;
    for (break_schema, repair_schema) in [
        // An operator could make and undo these changes.
        ("ALTER TABLE click_hours RENAME TO away", "ALTER TABLE away RENAME TO click_hours"),
        (
            "ALTER TABLE click_link_days RENAME TO away",
            "ALTER TABLE away RENAME TO click_link_days",
        ),
        (
            "ALTER TABLE click_days RENAME COLUMN bots TO away",
            "ALTER TABLE click_days RENAME COLUMN away TO bots",
        ),
    ] {
        let retries = sum_of_workers(&stack, metric::CLICKS_INGEST_RETRIES).await;
        sqlx::raw_sql(break_schema).execute(&mut database).await.unwrap();
        within(Duration::from_secs(20), "the worker retries", || async {
            sum_of_workers(&stack, metric::CLICKS_INGEST_RETRIES).await > retries + 1
                || sum_of_workers(&stack, metric::CLICKS_DEAD_LETTERS).await > 0
        })
        .await;
        sqlx::raw_sql(repair_schema).execute(&mut database).await.unwrap();
    }
    let served = redirected(&load.finish().await);
    assert_clicks_exactly(&stack, served).await;
    assert_eq!(sum_of_workers(&stack, metric::CLICKS_DEAD_LETTERS).await, 0);
}
