//! Batches of which one shard is recorded before the other.

use linnet_clicks::{FIELD, STREAM};
use linnet_domain::{LinkId, Subject};
use linnet_store::{SHARDS, shard_of};
use linnet_system_tests::{expected::metric, within};
use serde_json::json;
use sqlx::PgConnection;
use tokio::sync::Mutex;

use super::support::{
    DRAIN_TIMEOUT, add_to_stream, assert_clicks_exactly, builder, connect_redis, create_link,
    now_ms, recorded_clicks, sum_of_workers, test_batch, test_click, wait_for_clicks,
    wait_until_drained,
};

/// Clicks per link. There is one link in each shard, and enough clicks that shards are written separately.
const EACH: usize = 1_000;

/// Locks the roll-ups of a shard until the connection closes.
async fn lock_shard(connection: &mut PgConnection, shard: i16) {
    sqlx::query("SELECT pg_advisory_lock(hashtextextended('linnet.click_roll_ups', $1))")
        .bind(i64::from(shard))
        .execute(connection)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shard_that_a_killed_worker_left_is_recorded_later() {
    let mut stack = builder().env("LINNET__WORKER__CLAIM_AFTER_MS", 100).start().await;
    let client = stack.client();
    let target = json!({"original_url": "https://example.com/"});
    let mut ids = [None; 2];
    while ids.contains(&None) {
        let id = create_link(&client, &target).await.0;
        let shard = shard_of(Subject::Link(LinkId::new(id).unwrap()));
        ids[usize::from(shard == SHARDS[1])] = Some(id);
    }
    let mut redis = connect_redis(&stack).await;
    for (number, shard) in SHARDS.into_iter().enumerate() {
        let number = u64::try_from(number).unwrap();
        let before = recorded_clicks(&mut stack.database().await).await;
        let mut blocker = stack.database().await;
        lock_shard(&mut blocker, shard).await;
        let clicks = ids.map(|id| vec![test_click(id.unwrap(), now_ms()); EACH]).concat();
        // By its entry id the batch is years old. Workers write the shards of late batches concurrently.
        let _: String = redis::cmd("XADD")
            .arg(STREAM)
            .arg(format!("{shard}-1"))
            .arg(FIELD)
            .arg(test_batch(number, clicks).pack())
            .query_async(&mut redis)
            .await
            .unwrap();
        let half = before + i64::try_from(EACH).unwrap();
        wait_for_clicks(&stack, half).await;
        stack.workers[0].kill().await;
        assert_eq!(
            recorded_clicks(&mut stack.database().await).await,
            half,
            "clicks of the locked shard"
        );
        drop(blocker);
        stack.workers[0].start();
        assert_clicks_exactly(&stack, before + 2 * i64::try_from(EACH).unwrap()).await;
    }
    assert_eq!(sum_of_workers(&stack, metric::CLICKS_DEAD_LETTERS).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_recorded_by_an_earlier_release_is_a_duplicate() {
    let stack = builder().shorteners(1).start().await;
    let (id, _) =
        create_link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    let known = test_batch(1, vec![test_click(id, now_ms()); 10]);
    sqlx::query("INSERT INTO click_batches (id) VALUES ($1)")
        .bind(known.id.to_vec())
        .execute(&mut stack.database().await)
        .await
        .unwrap();
    let mut redis = connect_redis(&stack).await;
    add_to_stream(&mut redis, &known.pack()).await;
    wait_until_drained(&stack).await;
    assert_eq!(sum_of_workers(&stack, metric::CLICKS_DUPLICATE_BATCHES).await, 1);
    assert_eq!(recorded_clicks(&mut stack.database().await).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roll_ups_wait_for_the_lock_of_an_earlier_release() {
    let stack = builder().shorteners(1).start().await;
    let (id, _) =
        create_link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    let mut blocker = stack.database().await;
    lock_shard(&mut blocker, 0).await;
    add_to_stream(
        &mut connect_redis(&stack).await,
        &test_batch(1, vec![test_click(id, now_ms()); 10]).pack(),
    )
    .await;
    let looking = Mutex::new(stack.database().await);
    within(DRAIN_TIMEOUT, "a worker waiting for the lock", || async {
        sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'advisory'
                AND datname = current_database() AND query LIKE '%click_roll_ups%')",
        )
        .fetch_one(&mut *looking.lock().await)
        .await
        .unwrap()
    })
    .await;
    drop(blocker);
    assert_clicks_exactly(&stack, 10).await;
}
