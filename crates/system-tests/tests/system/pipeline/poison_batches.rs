//! Unreadable batches, implausible timestamps and duplicate batches.

use linnet_clicks::{Batch, DEAD_LETTERS, FIELD, STREAM};
use linnet_system_tests::{expected::metric, within};
use redis::streams::StreamRangeReply;
use serde_json::json;

use super::support::{
    DRAIN_TIMEOUT, add_to_stream, assert_clicks_exactly, builder, connect_redis, create_link,
    create_links, now_ms, recorded_clicks, sum_of_workers, test_batch, test_click,
    wait_until_drained,
};

/// Stream entries that no worker can record.
fn unreadable_batches(url_id: i64) -> Vec<Vec<u8>> {
    let good = |number| test_batch(number, vec![test_click(url_id, now_ms()); 10]).pack();
    let with_referrer = |number, referrer: String| {
        let mut batch = test_batch(number, vec![test_click(url_id, now_ms()); 10]);
        batch.texts.push(referrer);
        batch.clicks[0].referrer = Some(1);
        batch.pack()
    };
    let cut = good(100);
    let mut other_version = good(101);
    other_version[0] = 99;
    // The declared sizes are gigabytes.
    let mut huge = vec![1; 17];
    huge.extend([0x80, 0x80, 0x80, 0x08, 0x80, 0x80, 0x80, 0x08]);
    vec![
        Vec::new(),
        (0..=255).collect(),
        b"\x01".to_vec(),
        cut[..cut.len() - 5].to_vec(),
        cut[..20].to_vec(),
        other_version,
        huge,
        // Workers can read these batches, but PostgreSQL rejects a NUL and a text that is too long for an index.
        with_referrer(102, "a\0b".into()),
        with_referrer(103, format!("{:?}", (0..5_000).collect::<Vec<_>>())),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_batches_become_dead_letters_and_the_others_are_recorded() {
    let stack = builder().shorteners(1).start().await;
    let (id, _) =
        create_link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    let mut redis = connect_redis(&stack).await;
    let good = |number| test_batch(number, vec![test_click(id, now_ms()); 10]).pack();
    let unreadable = unreadable_batches(id);
    // Good and unreadable batches alternate, so that most groups contain both.
    let mut pipe = redis::pipe();
    pipe.atomic();
    pipe.cmd("XADD").arg(STREAM).arg("*").arg("other").arg("field").ignore();
    for (number, entry) in unreadable.iter().enumerate() {
        pipe.cmd("XADD").arg(STREAM).arg("*").arg(FIELD).arg(entry).ignore();
        let good = good(u64::try_from(number).unwrap());
        pipe.cmd("XADD").arg(STREAM).arg("*").arg(FIELD).arg(good).ignore();
    }
    let _: () = pipe.query_async(&mut redis).await.unwrap();
    let wanted = i64::try_from(unreadable.len()).unwrap();
    assert_clicks_exactly(&stack, wanted * 10).await;
    assert_eq!(sum_of_workers(&stack, metric::CLICKS_DEAD_LETTERS).await, wanted + 1);
    let letters: StreamRangeReply = redis::cmd("XRANGE")
        .arg(DEAD_LETTERS)
        .arg("-")
        .arg("+")
        .query_async(&mut redis)
        .await
        .unwrap();
    let mut kept: Vec<Vec<u8>> =
        letters.ids.iter().map(|letter| letter.get(FIELD).unwrap()).collect();
    let mut sent = unreadable.clone();
    sent.push(Vec::new());
    kept.sort();
    sent.sort();
    assert_eq!(kept, sent, "dead letters keep the bytes");
    for letter in &letters.ids {
        assert!(!letter.get::<String>("reason").unwrap().is_empty());
        assert!(letter.get::<String>("entry").unwrap().contains('-'));
    }
    // Later batches are recorded too.
    add_to_stream(&mut redis, &good(200)).await;
    assert_clicks_exactly(&stack, wanted * 10 + 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clicks_with_any_timestamp_are_recorded() {
    const HOUR: u64 = 3_600_000;
    let stack = builder().shorteners(1).start().await;
    let (id, _) =
        create_link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    let mut redis = connect_redis(&stack).await;
    let now = now_ms();
    let times = [
        // The clock jumps back within a batch and between two batches.
        vec![now, now - HOUR, now - HOUR + 5, now],
        vec![now - HOUR, now - 2 * HOUR],
        // Times slightly and far in the future.
        vec![now + HOUR / 2, now + 24 * HOUR, now + 1_000 * 24 * HOUR, u64::MAX, i64::MAX as u64],
        // Times older than the retention and than the link. Each day gets its own partition.
        (1..20).map(|days| now - (80 + days) * 24 * HOUR).collect(),
        vec![0, 1, 86_400_000],
    ];
    let mut wanted = 0;
    for (number, times) in times.iter().enumerate() {
        wanted += i64::try_from(times.len()).unwrap();
        let clicks = times.iter().map(|at| test_click(id, *at)).collect();
        add_to_stream(&mut redis, &test_batch(u64::try_from(number).unwrap(), clicks).pack()).await;
    }
    assert_clicks_exactly(&stack, wanted).await;
    assert_eq!(sum_of_workers(&stack, metric::CLICKS_DEAD_LETTERS).await, 0);
    let mut database = stack.database().await;
    let latest: bool = sqlx::query_scalar("SELECT max(clicked_at) < now() + '1 h' FROM all_clicks")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert!(latest, "a click is from the far future");

    // Maintenance drops old partitions, which a worker may have cached. Later clicks of such a day are
    // still recorded.
    sqlx::raw_sql("DROP TABLE raw_clicks_19700101").execute(&mut database).await.unwrap();
    let left = recorded_clicks(&mut database).await;
    add_to_stream(&mut redis, &test_batch(50, vec![test_click(id, 2), test_click(id, now)]).pack())
        .await;
    within(DRAIN_TIMEOUT, "the click on a day without a partition", || async {
        let mut database = stack.database().await;
        recorded_clicks(&mut database).await == left + 2
    })
    .await;
    wait_until_drained(&stack).await;
    assert_eq!(sum_of_workers(&stack, metric::CLICKS_DEAD_LETTERS).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicate_batch_counts_once() {
    let stack = builder()
        .shorteners(1)
        .workers(2)
        // The time is longer than the test, because a batch that is taken over would be another duplicate.
        .env("LINNET__WORKER__CLAIM_AFTER_MS", 60_000)
        .start()
        .await;
    create_links(&stack, 1).await;
    let mut redis = connect_redis(&stack).await;
    let packed: Vec<Vec<u8>> =
        (0..50).map(|n| test_batch(n, vec![test_click(1, now_ms()); 20]).pack()).collect();
    for _ in 0..3 {
        for packed in &packed {
            // This loop makes adjacent duplicates, and the outer loop makes distant ones.
            add_to_stream(&mut redis, packed).await;
            add_to_stream(&mut redis, packed).await;
        }
    }
    wait_until_drained(&stack).await;
    assert_eq!(recorded_clicks(&mut stack.database().await).await, 1_000);
    assert_eq!(sum_of_workers(&stack, metric::CLICKS_DUPLICATE_BATCHES).await, 250);
    assert_eq!(Batch::packed_click_count(&packed[0]), 20);
}
