//! Batches of which only a part was written.

use linnet_clicks::{FIELD, STREAM};
use linnet_store::{SHARDS, shard_of};
use linnet_system_tests::within;
use serde_json::json;
use sqlx::PgConnection;
use tokio::sync::Mutex;

use super::support::{
    DRAIN, add, batch, builder, click, drained, link, now_ms, of_workers, recorded,
    recorded_at_least, recorded_exactly, redis,
};

/// As many for each of two links, of which one is even and one is odd; enough to be written by shard.
const EACH: usize = 1_000;

/// Keeps everybody from the roll-ups of the shard until the connection ends.
async fn lock(connection: &mut PgConnection, shard: i16) {
    sqlx::query("SELECT pg_advisory_lock(hashtextextended('linnet.click_roll_ups', $1))")
        .bind(i64::from(shard))
        .execute(connection)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_between_two_shards_leaves_the_other_one_to_be_written() {
    let mut stack = builder().env("LINNET__WORKER__CLAIM_AFTER_MS", 100).start().await;
    let client = stack.client();
    let target = json!({"original_url": "https://example.com/"});
    let mut ids = [None; 2];
    while ids.contains(&None) {
        let id = link(&client, &target).await.0;
        ids[usize::from(shard_of(id) == SHARDS[1])] = Some(id);
    }
    let mut redis = redis(&stack).await;
    for (number, shard) in SHARDS.into_iter().enumerate() {
        let number = u64::try_from(number).unwrap();
        let before = recorded(&mut stack.database().await).await;
        let mut blocker = stack.database().await;
        lock(&mut blocker, shard).await;
        let clicks = ids.map(|id| vec![click(id.unwrap(), now_ms()); EACH]).concat();
        // By its id it has waited for years, so the shards are written side by side.
        let _: String = redis::cmd("XADD")
            .arg(STREAM)
            .arg(format!("{shard}-1"))
            .arg(FIELD)
            .arg(batch(number, clicks).pack())
            .query_async(&mut redis)
            .await
            .unwrap();
        let half = before + i64::try_from(EACH).unwrap();
        recorded_at_least(&stack, half).await;
        stack.workers[0].kill().await;
        assert_eq!(recorded(&mut stack.database().await).await, half, "the shard was locked");
        drop(blocker);
        stack.workers[0].start();
        recorded_exactly(&stack, before + 2 * i64::try_from(EACH).unwrap()).await;
    }
    assert_eq!(of_workers(&stack, "linnet_clicks_dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_release_has_written_is_written() {
    let stack = builder().shorteners(1).start().await;
    let (id, _) = link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    let known = batch(1, vec![click(id, now_ms()); 10]);
    sqlx::query("INSERT INTO click_batches (id) VALUES ($1)")
        .bind(known.id.to_vec())
        .execute(&mut stack.database().await)
        .await
        .unwrap();
    let mut redis = redis(&stack).await;
    add(&mut redis, &known.pack()).await;
    drained(&stack).await;
    assert_eq!(of_workers(&stack, "linnet_clicks_duplicate_batches").await, 1);
    assert_eq!(recorded(&mut stack.database().await).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roll_ups_wait_for_a_worker_of_an_earlier_release() {
    let stack = builder().shorteners(1).start().await;
    let (id, _) = link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    let mut blocker = stack.database().await;
    lock(&mut blocker, 0).await;
    add(&mut redis(&stack).await, &batch(1, vec![click(id, now_ms()); 10]).pack()).await;
    let looking = Mutex::new(stack.database().await);
    within(DRAIN, "a worker waits", || async {
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
    recorded_exactly(&stack, 10).await;
}
