//! Batches that are none, and clicks from other times.

use linnet_clicks::{Batch, DEAD_LETTERS, FIELD, STREAM};
use linnet_system_tests::within;
use redis::streams::StreamRangeReply;
use serde_json::json;

use super::support::{
    DRAIN, add, batch, builder, click, drained, link, links, now_ms, of_workers, recorded,
    recorded_exactly, redis,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_batch_is_a_dead_letter_and_the_rest_goes_on() {
    let stack = builder().shorteners(1).start().await;
    let (id, _) = link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    let mut redis = redis(&stack).await;
    let good = |number| batch(number, vec![click(id, now_ms()); 10]).pack();
    let with_referrer = |number, referrer: String| {
        let mut batch = batch(number, vec![click(id, now_ms()); 10]);
        batch.texts.push(referrer);
        batch.clicks[0].referrer = Some(1);
        batch.pack()
    };
    let cut = good(100);
    let mut other_version = good(101);
    other_version[0] = 99;
    // Sizes that would take gigabytes, if they were believed.
    let mut huge = vec![1; 17];
    huge.extend([0x80, 0x80, 0x80, 0x08, 0x80, 0x80, 0x80, 0x08]);
    let bad = [
        Vec::new(),
        (0..=255).collect(),
        b"\x01".to_vec(),
        cut[..cut.len() - 5].to_vec(),
        cut[..20].to_vec(),
        other_version,
        huge,
        // Read well, and refused by PostgreSQL: a NUL, and a text that no index takes.
        with_referrer(102, "a\0b".into()),
        with_referrer(103, format!("{:?}", (0..5_000).collect::<Vec<_>>())),
    ];
    // Among each other, so that most come in one group.
    let mut pipe = redis::pipe();
    pipe.atomic();
    pipe.cmd("XADD").arg(STREAM).arg("*").arg("other").arg("field").ignore();
    for (number, bad) in bad.iter().enumerate() {
        pipe.cmd("XADD").arg(STREAM).arg("*").arg(FIELD).arg(bad).ignore();
        let good = good(u64::try_from(number).unwrap());
        pipe.cmd("XADD").arg(STREAM).arg("*").arg(FIELD).arg(good).ignore();
    }
    let _: () = pipe.query_async(&mut redis).await.unwrap();
    let wanted = i64::try_from(bad.len()).unwrap();
    recorded_exactly(&stack, wanted * 10).await;
    assert_eq!(of_workers(&stack, "linnet_clicks_dead_letters").await, wanted + 1);
    let letters: StreamRangeReply = redis::cmd("XRANGE")
        .arg(DEAD_LETTERS)
        .arg("-")
        .arg("+")
        .query_async(&mut redis)
        .await
        .unwrap();
    let mut kept: Vec<Vec<u8>> =
        letters.ids.iter().map(|letter| letter.get(FIELD).unwrap()).collect();
    let mut sent = bad.to_vec();
    sent.push(Vec::new());
    kept.sort();
    sent.sort();
    assert_eq!(kept, sent, "each is kept as it came");
    for letter in &letters.ids {
        assert!(!letter.get::<String>("reason").unwrap().is_empty());
        assert!(letter.get::<String>("entry").unwrap().contains('-'));
    }
    // And those that come after it.
    add(&mut redis, &good(200)).await;
    recorded_exactly(&stack, wanted * 10 + 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clicks_from_any_time_are_recorded() {
    const HOUR: u64 = 3_600_000;
    let stack = builder().shorteners(1).start().await;
    let (id, _) = link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    let mut redis = redis(&stack).await;
    let now = now_ms();
    let times = [
        // The clock jumps back, within a batch and between two.
        vec![now, now - HOUR, now - HOUR + 5, now],
        vec![now - HOUR, now - 2 * HOUR],
        // A little and much too far ahead.
        vec![now + HOUR / 2, now + 24 * HOUR, now + 1_000 * 24 * HOUR, u64::MAX, i64::MAX as u64],
        // Beyond retention, and before anything was made; each day has a partition of its own.
        (1..20).map(|days| now - (80 + days) * 24 * HOUR).collect(),
        vec![0, 1, 86_400_000],
    ];
    let mut wanted = 0;
    for (number, times) in times.iter().enumerate() {
        wanted += i64::try_from(times.len()).unwrap();
        let clicks = times.iter().map(|at| click(id, *at)).collect();
        add(&mut redis, &batch(u64::try_from(number).unwrap(), clicks).pack()).await;
    }
    recorded_exactly(&stack, wanted).await;
    assert_eq!(of_workers(&stack, "linnet_clicks_dead_letters").await, 0);
    let mut database = stack.database().await;
    let latest: bool = sqlx::query_scalar("SELECT max(clicked_at) < now() + '1 h' FROM clicks")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert!(latest, "no click is from the far future");

    // The upkeep drops what is too old, also under a worker that has seen the partition; what comes
    // for such a day then is recorded all the same.
    sqlx::raw_sql("DROP TABLE clicks_19700101").execute(&mut database).await.unwrap();
    let left = recorded(&mut database).await;
    add(&mut redis, &batch(50, vec![click(id, 2), click(id, now)]).pack()).await;
    within(DRAIN, "the click of a day without a partition", || async {
        let mut database = stack.database().await;
        recorded(&mut database).await == left + 2
    })
    .await;
    drained(&stack).await;
    assert_eq!(of_workers(&stack, "linnet_clicks_dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_comes_twice_counts_once() {
    let stack = builder()
        .shorteners(1)
        .workers(2)
        // None is taken over, which would be one more duplicate.
        .env("LINNET__WORKER__CLAIM_AFTER_MS", 60_000)
        .start()
        .await;
    links(&stack, 1).await;
    let mut redis = redis(&stack).await;
    let packed: Vec<Vec<u8>> =
        (0..50).map(|n| batch(n, vec![click(1, now_ms()); 20]).pack()).collect();
    for _ in 0..3 {
        for packed in &packed {
            // Next to each other and far from each other.
            add(&mut redis, packed).await;
            add(&mut redis, packed).await;
        }
    }
    drained(&stack).await;
    assert_eq!(recorded(&mut stack.database().await).await, 1_000);
    assert_eq!(of_workers(&stack, "linnet_clicks_duplicate_batches").await, 250);
    assert_eq!(Batch::count_of(&packed[0]), 20);
}
