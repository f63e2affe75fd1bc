//! Workers that die, hang and share.

use std::time::Duration;

use linnet_clicks::{GROUP, STREAM};
use linnet_system_tests::{Process, Signal, within};
use sqlx::Connection;

use super::support::{
    DRAIN, all_led, builder, drained, links, of_workers, recorded, recorded_at_least,
    recorded_exactly, redis, visits,
};

const KILLS: usize = 20;

async fn ingested(worker: &Process) -> f64 {
    match worker.admin_get("/metrics").await {
        Some(answer) => {
            linnet_system_tests::Metrics::parse(&answer.text()).sum("linnet_clicks_ingested", &[])
        }
        None => 0.0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_a_worker_that_is_killed_again_and_again_counts_each_click_once() {
    let mut stack = builder()
        .workers(2)
        .env("LINNET__WORKER__CLAIM_AFTER_MS", 100)
        .env("LINNET__CLICKS__FLUSH_MS", 20)
        .env("LINNET__WORKER__GROUP_BATCHES", 4)
        .start()
        .await;
    let codes = links(&stack, 20).await;
    let load = visits(&stack, &codes);
    let mut held = 0;
    let mut redis = redis(&stack).await;
    for _ in 0..KILLS / stack.workers.len() {
        // They work, so they are killed in the middle of something.
        within(DRAIN, "the workers write", || async {
            ingested(&stack.workers[0]).await > 0.0 && ingested(&stack.workers[1]).await > 0.0
        })
        .await;
        for worker in &mut stack.workers {
            worker.kill().await;
        }
        let pending: redis::streams::StreamPendingReply =
            redis::cmd("XPENDING").arg(STREAM).arg(GROUP).query_async(&mut redis).await.unwrap();
        held += usize::from(pending.count() > 0);
        for worker in &mut stack.workers {
            worker.start();
        }
    }
    assert!(held > 0, "no kill hit workers that held anything");
    let served = all_led(&load.finish().await);
    recorded_exactly(&stack, served).await;
    assert_eq!(of_workers(&stack, "linnet_clicks_dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_share_and_one_that_hangs_is_replaced() {
    let mut stack = builder()
        .workers(2)
        .env("LINNET__WORKER__CLAIM_AFTER_MS", 300)
        .env("LINNET__WORKER__GROUP_BATCHES", 1)
        .env("LINNET__CLICKS__FLUSH_MS", 20)
        .start()
        .await;
    let codes = links(&stack, 10).await;
    let load = visits(&stack, &codes);
    for worker in 0..2 {
        within(DRAIN, "each worker writes", || async {
            ingested(&stack.workers[worker]).await > 0.0
        })
        .await;
    }
    // Both hold something when one of them stops: nobody can write.
    let mut blocker = stack.database().await;
    let mut held = blocker.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE click_batches IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *held)
        .await
        .unwrap();
    let looking = tokio::sync::Mutex::new(stack.database().await);
    within(DRAIN, "both workers hold batches", || async {
        // Two consumers of each. Redis may say otherwise, for one of them can have claimed what the others
        // hold before it came to wait too.
        sqlx::query_scalar::<_, bool>(
            "SELECT count(*) = 4 FROM pg_stat_activity
              WHERE datname = current_database() AND wait_event_type = 'Lock'
                AND (query LIKE 'SELECT id, shard FROM click_batches%'
                  OR query LIKE 'INSERT INTO click_batches%')",
        )
        .fetch_one(&mut *looking.lock().await)
        .await
        .unwrap()
    })
    .await;
    stack.workers[0].signal(Signal::STOP);
    held.rollback().await.unwrap();
    load.more(300).await;
    let served = all_led(&load.finish().await);
    recorded_exactly(&stack, served).await;
    assert!(stack.workers[1].metrics().await.sum("linnet_clicks_claimed_batches", &[]) > 0.0);

    let before = ingested(&stack.workers[1]).await;
    stack.workers[0].signal(Signal::CONT);
    within(DRAIN, "the worker sees that others did its work", || async {
        stack.workers[0].metrics().await.sum("linnet_clicks_duplicate_batches", &[]) > 0.0
    })
    .await;
    drained(&stack).await;
    assert_eq!(recorded(&mut stack.database().await).await, served, "nothing counts twice");
    assert_eq!(ingested(&stack.workers[1]).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_hangs_with_rows_locked_keeps_the_other_waiting_for_a_bounded_time() {
    let mut stack = builder()
        .workers(2)
        .env("LINNET__WORKER__CLAIM_AFTER_MS", 300)
        .env("LINNET__WORKER__GROUP_BATCHES", 1)
        .env("LINNET__CLICKS__FLUSH_MS", 20)
        .env("LINNET__POSTGRES__IDLE_IN_TRANSACTION_TIMEOUT_MS", 2_000)
        .start()
        .await;
    let codes = links(&stack, 10).await;
    let load = visits(&stack, &codes);
    recorded_at_least(&stack, 100).await;
    // The links' rows come last in a transaction, so whoever waits for one of them holds everything.
    let mut blocker = stack.database().await;
    let mut held = blocker.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM urls FOR UPDATE").execute(&mut *held).await.unwrap();
    let looking = tokio::sync::Mutex::new(stack.database().await);
    within(DRAIN, "a worker waits for the links", || async {
        sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'
                 AND query LIKE 'UPDATE urls SET clicks%')",
        )
        .fetch_one(&mut *looking.lock().await)
        .await
        .unwrap()
    })
    .await;
    // One of them waits with all its locks; both are stopped, and only the other one goes on.
    for worker in &mut stack.workers {
        worker.signal(Signal::STOP);
    }
    held.rollback().await.unwrap();
    within(Duration::from_secs(10), "a transaction is left open", || async {
        sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND state = 'idle in transaction'
                 AND query LIKE 'UPDATE urls SET clicks%')",
        )
        .fetch_one(&mut *looking.lock().await)
        .await
        .unwrap()
    })
    .await;
    // Whichever of them it was: with one going on and the other one hanging, in turn.
    stack.workers[1].signal(Signal::CONT);
    let served = all_led(&load.finish().await);
    recorded_exactly(&stack, served).await;
    stack.workers[0].signal(Signal::CONT);
    drained(&stack).await;
    assert_eq!(recorded(&mut stack.database().await).await, served, "nothing counts twice");
}
