//! Redis and PostgreSQL away while clicks come.

use std::time::Duration;

use linnet_clicks::STREAM;
use linnet_system_tests::{Stack, stack::Postgres, within};
use redis::streams::StreamRangeReply;

use super::support::{
    DRAIN, adds_up, all_led, batches, builder, drained, links, lost, of_shorteners, of_workers,
    recorded, recorded_at_least, recorded_exactly, redis, visits,
};

/// All that the stream holds, and then at once `command`.
async fn stream_and_then(stack: &Stack, command: &[&str]) -> StreamRangeReply {
    let mut then = redis::cmd(command[0]);
    then.arg(&command[1..]);
    let mut redis = redis(stack).await;
    let (held,): (StreamRangeReply,) = redis::pipe()
        .atomic()
        .cmd("XRANGE")
        .arg(STREAM)
        .arg("-")
        .arg("+")
        .add_command(then)
        .ignore()
        .query_async(&mut redis)
        .await
        .unwrap();
    held
}

/// Everything is accounted for: what was served is recorded, but for what the stream lost.
async fn all_but_the_streams(stack: &Stack, served: i64, held: &StreamRangeReply) {
    drained(stack).await;
    let mut database = stack.database().await;
    let lost = lost(&mut database, &batches(held)).await;
    assert_eq!(recorded(&mut database).await + lost, served);
    adds_up(&mut database).await;
    assert_eq!(of_shorteners(stack, "linnet_clicks_accepted").await, served);
    assert_eq!(of_shorteners(stack, "linnet_clicks_published").await, served);
    assert_eq!(of_shorteners(stack, "linnet_clicks_dropped").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_a_redis_that_dies_takes_what_the_stream_held_and_nothing_else() {
    let mut stack = builder().start().await;
    let codes = links(&stack, 20).await;
    let load = visits(&stack, &codes);
    recorded_at_least(&stack, 100).await;
    // Paused at the moment of the look: nothing comes in between.
    let held = stream_and_then(&stack, &["CLIENT", "PAUSE", "60000", "ALL"]).await;
    stack.redis.kill().await;
    load.more(4_000).await;
    within(DRAIN, "clicks wait in spools", || async {
        of_shorteners(&stack, "linnet_clicks_spooled").await > 2_000
    })
    .await;
    stack.start_redis().await;
    load.more(500).await;
    let served = all_led(&load.finish().await);
    all_but_the_streams(&stack, served, &held).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_a_redis_that_is_emptied_takes_what_the_stream_held_and_nothing_else() {
    let mut stack = builder().start().await;
    let codes = links(&stack, 20).await;
    let load = visits(&stack, &codes);
    recorded_at_least(&stack, 100).await;
    // While a worker waits for more, and while there is none.
    let first = stream_and_then(&stack, &["FLUSHALL"]).await;
    recorded_at_least(&stack, 500).await;
    stack.workers[0].kill().await;
    load.more(1_000).await;
    within(DRAIN, "clicks wait in the stream", || async {
        let connection = redis(&stack).await;
        let mut connection = connection;
        redis::cmd("XLEN").arg(STREAM).query_async::<u64>(&mut connection).await.unwrap() > 2
    })
    .await;
    let mut held = stream_and_then(&stack, &["FLUSHALL"]).await;
    stack.workers[0].start();
    load.more(500).await;
    let served = all_led(&load.finish().await);
    held.ids.extend(first.ids);
    all_but_the_streams(&stack, served, &held).await;
    assert!(lost(&mut stack.database().await, &batches(&held)).await > 0, "nothing was at stake");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_a_postgresql_that_dies_loses_no_click() {
    let mut stack = builder().postgres(Postgres::Own).start().await;
    let codes = links(&stack, 20).await;
    for shortener in 0..2 {
        for code in &codes {
            assert_eq!(stack.resolve_at(shortener, code).await.0, 302);
        }
    }
    let warming = 2 * i64::try_from(codes.len()).unwrap();
    let load = visits(&stack, &codes);
    for _ in 0..3 {
        let goal = recorded(&mut stack.database().await).await + 200;
        recorded_at_least(&stack, goal).await;
        stack.kill_postgres().await;
        load.more(1_000).await;
        stack.start_postgres().await;
    }
    let served = all_led(&load.finish().await);
    recorded_exactly(&stack, served + warming).await;
    assert_eq!(of_workers(&stack, "linnet_clicks_dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_a_database_that_refuses_everybody_makes_no_dead_letters() {
    let stack = builder().start().await;
    let codes = links(&stack, 20).await;
    let load = visits(&stack, &codes);
    recorded_at_least(&stack, 100).await;
    let mut database = stack.database().await;
    for (breaks, mends) in [
        // What an operator may do, and undo when it is noticed.
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
        let retries = of_workers(&stack, "linnet_clicks_ingest_retries").await;
        sqlx::raw_sql(breaks).execute(&mut database).await.unwrap();
        within(Duration::from_secs(20), "the worker tries again", || async {
            of_workers(&stack, "linnet_clicks_ingest_retries").await > retries + 1
                || of_workers(&stack, "linnet_clicks_dead_letters").await > 0
        })
        .await;
        sqlx::raw_sql(mends).execute(&mut database).await.unwrap();
    }
    let served = all_led(&load.finish().await);
    recorded_exactly(&stack, served).await;
    assert_eq!(of_workers(&stack, "linnet_clicks_dead_letters").await, 0);
}
