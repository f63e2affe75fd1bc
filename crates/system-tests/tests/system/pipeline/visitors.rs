//! How many visitors there were.

use linnet_clicks::PackedClick;
use linnet_system_tests::Stack;
use serde_json::json;

use super::support::{add, batch, builder, click, link, now_ms, recorded_exactly, redis};

async fn visitors(stack: &Stack, subject: i64) -> i64 {
    sqlx::query_scalar("SELECT sum(visitors)::bigint FROM click_totals_by_day WHERE subject = $1")
        .bind(subject)
        .fetch_one(&mut stack.database().await)
        .await
        .unwrap()
}

async fn flush(stack: &Stack) {
    let _: () = redis::cmd("FLUSHALL").query_async(&mut redis(stack).await).await.unwrap();
}

/// A visitor's hash: spread like one, and the same in each run.
fn hash(number: u64) -> u64 {
    let mut hash = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seven_hundred_visitors_are_seven_hundred_also_after_redis_lost_them() {
    let stack = builder().start().await;
    let (id, code) = link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    let (other, other_code) =
        link(&stack.client(), &json!({"original_url": "https://example.com/2"})).await;
    let visit = async |code: &str, from: usize, to: usize| {
        let client = stack.client().anonymous();
        let visits = (from..to).map(|n| {
            let agent = format!("{} Tester/{n}", linnet_system_tests::client::BROWSER);
            client.get(&format!("/{code}")).user_agent(&agent).send()
        });
        let answers = futures::future::join_all(visits).await;
        assert!(answers.iter().all(|answer| answer.status == 302));
    };
    visit(&code, 0, 700).await;
    // The same people again, and elsewhere.
    visit(&code, 0, 300).await;
    visit(&other_code, 600, 800).await;
    recorded_exactly(&stack, 1_200).await;
    let all = async || {
        [
            visitors(&stack, id).await,
            visitors(&stack, other).await,
            visitors(&stack, 0).await,
            visitors(&stack, -stack.admin_id).await,
        ]
    };
    assert_eq!(all().await, [700, 200, 800, 800]);

    flush(&stack).await;
    // Some who were here, and ten who were not.
    visit(&code, 650, 710).await;
    recorded_exactly(&stack, 1_260).await;
    assert_eq!(all().await, [710, 200, 800, 800]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_visitors_are_counted_within_two_percent() {
    const VISITORS: i64 = 20_000;
    let stack = builder().shorteners(1).start().await;
    let (id, _) = link(&stack.client(), &json!({"original_url": "https://example.com/"})).await;
    let mut redis = redis(&stack).await;
    let by = |number: u64| PackedClick { visitor: Some(hash(number)), ..click(id, now_ms()) };
    for number in 0..20 {
        let clicks = (0..1_000).map(|n| by(number * 1_000 + n)).collect();
        add(&mut redis, &batch(number, clicks).pack()).await;
    }
    recorded_exactly(&stack, VISITORS).await;
    let close = async |wanted: i64| {
        for subject in [id, 0, -stack.admin_id] {
            let counted = visitors(&stack, subject).await;
            assert!((counted - wanted).abs() * 50 <= wanted, "{counted} of {wanted}");
        }
    };
    close(VISITORS).await;

    flush(&stack).await;
    let clicks = (0..1_000).map(|n| by(20_000 + n)).collect();
    add(&mut redis, &batch(99, clicks).pack()).await;
    recorded_exactly(&stack, VISITORS + 1_000).await;
    close(VISITORS + 1_000).await;
}
