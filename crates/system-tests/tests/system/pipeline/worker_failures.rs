//! Workers that are killed or hang, and workers that share the stream.

use std::time::Duration;

use linnet_clicks::{GROUP, STREAM};
use linnet_system_tests::{Process, Signal, expected::metric, within};
use sqlx::Connection;

use super::support::{
    DRAIN_TIMEOUT, assert_clicks_exactly, builder, connect_redis, create_links, recorded_clicks,
    redirected, start_visits, sum_of_workers, wait_for_clicks, wait_until_drained,
};

const KILLS: usize = 20;

async fn ingested_clicks(worker: &Process) -> f64 {
    match worker.admin_get("/metrics").await {
        Some(response) => {
            linnet_system_tests::Metrics::parse(&response.text()).sum(metric::CLICKS_INGESTED, &[])
        }
        None => 0.0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_workers_that_are_killed_repeatedly_count_each_click_once() {
    let mut stack = builder()
        .workers(2)
        .env("LINNET__WORKER__CLAIM_AFTER_MS", 100)
        .env("LINNET__CLICKS__FLUSH_MS", 20)
        .env("LINNET__WORKER__GROUP_BATCHES", 4)
        .start()
        .await;
    let codes = create_links(&stack, 20).await;
    let load = start_visits(&stack, &codes);
    let mut kills_with_pending = 0;
    let mut redis = connect_redis(&stack).await;
    for _ in 0..KILLS / stack.workers.len() {
        within(DRAIN_TIMEOUT, "both workers record clicks", || async {
            ingested_clicks(&stack.workers[0]).await > 0.0
                && ingested_clicks(&stack.workers[1]).await > 0.0
        })
        .await;
        for worker in &mut stack.workers {
            worker.kill().await;
        }
        let pending: redis::streams::StreamPendingReply =
            redis::cmd("XPENDING").arg(STREAM).arg(GROUP).query_async(&mut redis).await.unwrap();
        kills_with_pending += usize::from(pending.count() > 0);
        for worker in &mut stack.workers {
            worker.start();
        }
    }
    assert!(kills_with_pending > 0, "no kill left a batch unacknowledged");
    let served = redirected(&load.finish().await);
    assert_clicks_exactly(&stack, served).await;
    assert_eq!(sum_of_workers(&stack, metric::CLICKS_DEAD_LETTERS).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_group_takes_over_batches_of_a_hung_consumer() {
    let mut stack = builder()
        .workers(2)
        .env("LINNET__WORKER__CLAIM_AFTER_MS", 300)
        .env("LINNET__WORKER__GROUP_BATCHES", 1)
        .env("LINNET__CLICKS__FLUSH_MS", 20)
        .start()
        .await;
    let codes = create_links(&stack, 10).await;
    let load = start_visits(&stack, &codes);
    for worker in 0..2 {
        within(DRAIN_TIMEOUT, "each worker records clicks", || async {
            ingested_clicks(&stack.workers[worker]).await > 0.0
        })
        .await;
    }
    // The lock makes both workers hold batches when one of them is stopped.
    let mut blocker = stack.database().await;
    let mut lock = blocker.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE click_batches IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let observer = tokio::sync::Mutex::new(stack.database().await);
    within(DRAIN_TIMEOUT, "both workers hold batches", || async {
        // Each worker has two consumers. Redis could report fewer, because a consumer may have claimed the
        // others' batches before it waited for the lock.
        sqlx::query_scalar::<_, bool>(
            "SELECT count(*) = 4 FROM pg_stat_activity
              WHERE datname = current_database() AND wait_event_type = 'Lock'
                AND (query LIKE 'SELECT id, shard FROM click_batches%'
                  OR query LIKE 'INSERT INTO click_batches%')",
        )
        .fetch_one(&mut *observer.lock().await)
        .await
        .unwrap()
    })
    .await;
    stack.workers[0].signal(Signal::STOP);
    lock.rollback().await.unwrap();
    load.wait_for_requests(300).await;
    let served = redirected(&load.finish().await);
    assert_clicks_exactly(&stack, served).await;
    assert!(stack.workers[1].metrics().await.sum(metric::CLICKS_CLAIMED_BATCHES, &[]) > 0.0);

    let before = ingested_clicks(&stack.workers[1]).await;
    stack.workers[0].signal(Signal::CONT);
    within(DRAIN_TIMEOUT, "the resumed worker finds its batches recorded", || async {
        stack.workers[0].metrics().await.sum(metric::CLICKS_DUPLICATE_BATCHES, &[]) > 0.0
    })
    .await;
    wait_until_drained(&stack).await;
    assert_eq!(recorded_clicks(&mut stack.database().await).await, served, "clicks counted twice");
    assert_eq!(ingested_clicks(&stack.workers[1]).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_worker_with_row_locks_blocks_the_other_for_a_bounded_time() {
    let mut stack = builder()
        .workers(2)
        .env("LINNET__WORKER__CLAIM_AFTER_MS", 300)
        .env("LINNET__WORKER__GROUP_BATCHES", 1)
        .env("LINNET__CLICKS__FLUSH_MS", 20)
        .env("LINNET__POSTGRES__IDLE_IN_TRANSACTION_TIMEOUT_MS", 2_000)
        .start()
        .await;
    let codes = create_links(&stack, 10).await;
    let load = start_visits(&stack, &codes);
    wait_for_clicks(&stack, 100).await;
    // A transaction locks the links' rows last, so a worker that waits for one holds all its other locks.
    let mut blocker = stack.database().await;
    let mut lock = blocker.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM urls FOR UPDATE").execute(&mut *lock).await.unwrap();
    let observer = tokio::sync::Mutex::new(stack.database().await);
    within(DRAIN_TIMEOUT, "a worker waiting for the links", || async {
        sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'
                 AND query LIKE 'UPDATE urls SET clicks%')",
        )
        .fetch_one(&mut *observer.lock().await)
        .await
        .unwrap()
    })
    .await;
    // Both are stopped while one of them holds its locks. Later only one resumes.
    for worker in &mut stack.workers {
        worker.signal(Signal::STOP);
    }
    lock.rollback().await.unwrap();
    within(Duration::from_secs(10), "an open transaction", || async {
        sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND state = 'idle in transaction'
                 AND query LIKE 'UPDATE urls SET clicks%')",
        )
        .fetch_one(&mut *observer.lock().await)
        .await
        .unwrap()
    })
    .await;
    // Worker 0 or 1 may hold the locks. Worker 1 continues in both cases.
    stack.workers[1].signal(Signal::CONT);
    let served = redirected(&load.finish().await);
    assert_clicks_exactly(&stack, served).await;
    stack.workers[0].signal(Signal::CONT);
    wait_until_drained(&stack).await;
    assert_eq!(recorded_clicks(&mut stack.database().await).await, served, "clicks counted twice");
}
