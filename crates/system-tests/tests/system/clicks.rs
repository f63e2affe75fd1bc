//! Click limits.

use std::time::Duration;

use linnet_system_tests::{Load, Stack, within};
use serde_json::json;

const LIMIT: usize = 50;
const VISITORS: usize = 1_000;

/// A thousand visitors at once; how many were led on, and what the others got.
async fn visit(stack: &Stack, code: &str) -> (usize, usize, Vec<u16>) {
    let (client, path) = (stack.client().anonymous(), format!("/{code}"));
    let visits = (0..VISITORS).map(|_| client.get(&path).send());
    let answers = futures::future::join_all(visits).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    let others =
        answers.iter().map(|a| a.status).filter(|status| ![302, 404].contains(status)).collect();
    (count(302), count(404), others)
}

async fn limited(stack: &Stack, max_clicks: usize) -> (i64, String) {
    let body = json!({"original_url": "https://example.com/", "max_clicks": max_clicks});
    let link = stack.client().shorten(&body).await;
    (link["id"].as_i64().unwrap(), link["short_code"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_05_a_limit_of_50_lets_50_of_1000_through() {
    let stack = Stack::builder().shorteners(2).start().await;
    let (id, code) = limited(&stack, LIMIT).await;
    let (led, refused, others) = visit(&stack, &code).await;
    assert_eq!((led, refused, others), (LIMIT, VISITORS - LIMIT, vec![]));
    let link = stack.client().get(&format!("/api/v1/urls/{id}")).send().await.json();
    assert_eq!(link["clicks"], LIMIT);

    // A higher limit lets the rest through.
    let patch = json!({"max_clicks": LIMIT + 1});
    assert_eq!(
        stack.client().patch(&format!("/api/v1/urls/{id}"), &patch).send().await.status,
        200
    );
    let (led, _, _) = visit(&stack, &code).await;
    assert_eq!(led, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_05_the_limit_holds_when_redis_dies_midway() {
    let mut stack = Stack::builder().shorteners(2).start().await;
    let (_, code) = limited(&stack, 5_000).await;
    let (client, path) = (stack.client().anonymous(), format!("/{code}"));
    let load = Load::start(32, move |_| {
        let visit = client.get(&path).send();
        async move { visit.await.status.to_string() }
    });
    load.more(500).await;
    stack.redis.kill().await;
    load.more(500).await;
    stack.start_redis().await;
    within(Duration::from_secs(60), "the limit", || async {
        stack.client().get(&format!("/{code}")).user_agent("Googlebot/2.1").send().await.status
            == 404
    })
    .await;
    load.more(100).await;
    let tally = load.finish().await;
    assert_eq!(tally.get("302"), Some(&5_000), "{tally:?}");
    assert!(tally.keys().all(|status| ["302", "404"].contains(&status.as_str())), "{tally:?}");
}

#[tokio::test]
async fn must_05_looking_is_no_click() {
    let stack = Stack::builder().shorteners(2).start().await;
    let (id, code) = limited(&stack, 1).await;
    let (client, path) = (stack.client().anonymous(), format!("/{code}"));
    let bots = [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
        "Twitterbot/1.0",
    ];
    for _ in 0..3 {
        assert_eq!(client.head(&path).send().await.status, 302, "HEAD");
        for agent in bots {
            assert_eq!(client.get(&path).user_agent(agent).send().await.status, 302, "{agent}");
        }
    }
    let clicks = || async {
        stack.client().get(&format!("/api/v1/urls/{id}")).send().await.json()["clicks"].clone()
    };
    assert_eq!(clicks().await, 0);
    assert_eq!(client.get(&path).send().await.status, 302);
    assert_eq!(clicks().await, 1);
    assert_eq!(client.get(&path).send().await.status, 404);
    assert_eq!(client.head(&path).send().await.status, 404, "used up for those who look, too");
    assert_eq!(client.get(&path).user_agent(bots[0]).send().await.status, 404);
}
