//! Clicks as they come.

use std::time::Duration;

use linnet_system_tests::{Client, EventStream, Signal, Stack, within};
use serde_json::json;

async fn referrer(events: &mut EventStream) -> String {
    let event = events.event().await;
    assert_eq!(event.name, "click", "{event:?}");
    event.data["referrer"].as_str().unwrap_or_default().to_owned()
}

async fn visit(client: &Client, code: &str, referrer: &str) {
    let request = client.anonymous().get(&format!("/{code}"));
    let answer = request.header("referer", &format!("https://{referrer}/")).send().await;
    assert_eq!(answer.status, 302);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_watched_live_over_a_restart_and_nothing_is_missed() {
    let mut stack = Stack::builder().shorteners(2).workers(1).start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let other = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let code = link["short_code"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/urls/{}/live", link["id"]);
    let key = stack.admin_key.clone();

    let mut events = EventStream::open(&client, &key, &path, None).await;
    // The reading begins a moment after the first watcher came: clicks are made until one is seen.
    let seen = tokio::select! {
        referrer = referrer(&mut events) => referrer,
        () = async { loop {
            visit(&client, &code, "first.example").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        } } => unreachable!(),
    };
    assert_eq!(seen, "first.example");
    visit(&client, other["short_code"].as_str().unwrap(), "elsewhere.example").await;
    visit(&client, &code, "second.example").await;
    let mut next = referrer(&mut events).await;
    while next == "first.example" {
        next = referrer(&mut events).await;
    }
    assert_eq!(next, "second.example", "and nothing of the other link");
    let last = events.id.clone();
    drop(events);

    // What came while nobody watched is shown to who comes back.
    visit(&client, &code, "third.example").await;
    visit(&client, &code, "fourth.example").await;
    let mut events = EventStream::open(&client, &key, &path, Some(&last)).await;
    let first = referrer(&mut events).await;
    // One of two processes may have published the fourth before the other the third.
    let second = referrer(&mut events).await;
    let mut both = [first, second];
    both.sort();
    assert_eq!(both, ["fourth.example", "third.example"]);

    // A process that stops says so, and the stream ends.
    for shortener in &mut stack.shorteners {
        shortener.signal(Signal::TERM);
    }
    let event = events.event().await;
    assert_eq!(event.name, "reconnect");
}

#[tokio::test]
async fn what_is_too_long_ago_is_a_gap_and_odd_ids_are_refused() {
    let stack = Stack::builder().workers(1).start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let path = format!("/api/v1/urls/{}/live", link["id"]);
    let key = stack.admin_key.clone();
    let mut events = EventStream::open(&client, &key, &path, Some("1000-0.0")).await;
    assert_eq!(events.event().await.name, "gap");
    let odd = client.get(&path).header("last-event-id", "nonsense").send().await;
    assert_eq!(odd.problem(422)["errors"][0]["field"], "Last-Event-ID");
    client.get("/api/v1/urls/999999/live").send().await.problem(404);
    let (_, stranger) = stack.user("stranger", &["urls:read"]).await;
    within(Duration::from_secs(10), "another's link is not there", || async {
        stranger.get(&path).send().await.status == 404
    })
    .await;
}
