//! Counts of unique visitors, also after Redis has lost its data.

use linnet_clicks::PackedClick;
use linnet_system_tests::Stack;
use serde_json::json;

use super::support::{
    add_to_stream, assert_clicks_exactly, builder, connect_redis, create_link, now_ms, test_batch,
    test_click,
};

async fn visitors(stack: &Stack, subject: i64) -> i64 {
    sqlx::query_scalar("SELECT sum(visitors)::bigint FROM click_totals_by_day WHERE subject = $1")
        .bind(subject)
        .fetch_one(&mut stack.database().await)
        .await
        .unwrap()
}

async fn flush_redis(stack: &Stack) {
    let _: () = redis::cmd("FLUSHALL").query_async(&mut connect_redis(stack).await).await.unwrap();
}

/// A hash that is distributed like a visitor's and is the same in each run.
fn visitor_hash(number: u64) -> u64 {
    let mut hash = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seven_hundred_unique_visitors_are_exact_even_after_redis_was_flushed() {
    let stack = builder().start().await;
    let (id, code) =
        create_link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    let (other, other_code) =
        create_link(&stack.client(), &json!({"original_url": "https://example.com/2"})).await;
    let visit = async |code: &str, from: usize, to: usize| {
        let client = stack.client().anonymous();
        let visits = (from..to).map(|n| {
            let agent = format!("{} Tester/{n}", linnet_system_tests::client::BROWSER);
            client.get(&format!("/{code}")).user_agent(&agent).send()
        });
        let responses = futures::future::join_all(visits).await;
        assert!(responses.iter().all(|response| response.status == 302));
    };
    visit(&code, 0, 700).await;
    // Visitors return, and visit another link.
    visit(&code, 0, 300).await;
    visit(&other_code, 600, 800).await;
    assert_clicks_exactly(&stack, 1_200).await;
    let counts = async || {
        [
            visitors(&stack, id).await,
            visitors(&stack, other).await,
            visitors(&stack, 0).await,
            visitors(&stack, -stack.admin_id).await,
        ]
    };
    assert_eq!(counts().await, [700, 200, 800, 800]);

    flush_redis(&stack).await;
    // Fifty of these visitors are known, and ten are new.
    visit(&code, 650, 710).await;
    assert_clicks_exactly(&stack, 1_260).await;
    assert_eq!(counts().await, [710, 200, 800, 800]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_unique_visitors_are_counted_within_two_percent() {
    const VISITORS: i64 = 20_000;
    let stack = builder().shorteners(1).start().await;
    let (id, _) =
        create_link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    let mut redis = connect_redis(&stack).await;
    let click_by = |number: u64| PackedClick {
        visitor: Some(visitor_hash(number)),
        ..test_click(id, now_ms())
    };
    for number in 0..20 {
        let clicks = (0..1_000).map(|n| click_by(number * 1_000 + n)).collect();
        add_to_stream(&mut redis, &test_batch(number, clicks).pack()).await;
    }
    assert_clicks_exactly(&stack, VISITORS).await;
    let assert_close = async |wanted: i64| {
        for subject in [id, 0, -stack.admin_id] {
            let counted = visitors(&stack, subject).await;
            assert!((counted - wanted).abs() * 50 <= wanted, "{counted} of {wanted}");
        }
    };
    assert_close(VISITORS).await;

    flush_redis(&stack).await;
    let clicks = (0..1_000).map(|n| click_by(20_000 + n)).collect();
    add_to_stream(&mut redis, &test_batch(99, clicks).pack()).await;
    assert_clicks_exactly(&stack, VISITORS + 1_000).await;
    assert_close(VISITORS + 1_000).await;
}
