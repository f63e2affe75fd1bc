//! Jobs that are watched.

use linnet_system_tests::EventStream;
use serde_json::json;

use super::support::{
    IMPORTER, builder, counts, ended, follow, hold_code, import, let_go, links, once, under_way,
    upload,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_everything_once_while_gateways_and_shorteners_restart() {
    let mut stack = builder()
        .shorteners(2)
        .gateways(2)
        .env("LINNET__JOBS__CHUNK_ROWS", 20)
        .env("LINNET__POSTGRES__LOCK_TIMEOUT_MS", 60_000)
        .start()
        .await;
    let client = stack.client();
    let mut csv = links("w", 0);
    let mut bad = Vec::new();
    for n in 0..6_000_i64 {
        if n % 40 == 7 {
            csv.push_str(&format!("w{n},ftp://example.com/{n}\n"));
            bad.push(n + 2);
        } else {
            csv.push_str(&format!("w{n:05},https://example.com/{n}\n"));
        }
    }
    // The job waits for each restart, so that it is not over before they are.
    let mut stops = Vec::new();
    for row in (1..=8).map(|part| part * 600) {
        let mut database = stack.database().await;
        hold_code(&mut database, &format!("w{row:05}")).await;
        stops.push((row, database));
    }
    let id = import(&client, csv).await;
    let patient = tokio::spawn(follow(stack.client(), stack.admin_key.clone(), id, usize::MAX));
    let restless = tokio::spawn(follow(stack.client(), stack.admin_key.clone(), id, 3));
    for (number, (row, mut database)) in stops.into_iter().enumerate() {
        under_way(&client, id, row).await;
        let_go(&mut database).await;
        match number % 4 {
            0 => {
                assert!(stack.gateways[0].stop().await.success());
                stack.gateways[0].start();
            }
            1 => {
                stack.gateways[1].kill().await;
                stack.gateways[1].start();
            }
            2 => {
                assert!(stack.shorteners[0].stop().await.success());
                stack.shorteners[0].start();
            }
            _ => {
                stack.shorteners[1].kill().await;
                stack.shorteners[1].start();
                stack.ready().await;
            }
        }
    }
    let job = ended(&client, id).await;
    assert_eq!((&job["state"], &job["rows_read"]), (&json!("succeeded"), &json!(6_000)), "{job}");
    for told in [patient.await.unwrap(), restless.await.unwrap()] {
        told.is_in_order();
        assert_eq!(told.lines, bad, "over {} streams", told.streams);
        assert_eq!(told.end, job);
        assert!(told.streams > 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_late_is_told_the_whole_and_who_knows_it_nothing() {
    let stack = builder().start().await;
    let (client, key) = (stack.client(), stack.admin_key.clone());
    let id = import(&client, "original_url\nhttps://example.com/\nx\ny\n").await;
    let job = ended(&client, id).await;
    assert_eq!(counts(&job), [3, 1, 0, 2]);
    let told = follow(client.clone(), key.clone(), id, usize::MAX).await;
    told.is_in_order();
    assert_eq!((told.lines.as_slice(), &told.end), (&[3, 4][..], &job));
    let path = format!("/api/v1/jobs/{id}/events");
    // In the middle of the bad rows.
    let from = told.ids[0].to_string();
    let mut rest = EventStream::open(&client, &key, &path, Some(&from)).await;
    let event = rest.event().await;
    assert_eq!((event.name.as_str(), &event.data["line"]), ("row_error", &json!(4)), "{event:?}");
    assert_eq!(rest.event().await.name, "done");
    assert!(rest.try_event().await.is_none(), "the stream ends");
    let last = told.ids.last().unwrap().to_string();
    let nothing = client.get(&path).header("last-event-id", &last).send().await;
    assert_eq!(nothing.status, 204);
    // Nobody was told of an event to come.
    let ahead = client.get(&path).header("last-event-id", "999999").send().await;
    assert_eq!(ahead.status, 204);
    for odd in ["x", "-1", "1.5"] {
        let refused = client.get(&path).header("last-event-id", odd).send().await;
        assert_eq!(refused.problem(422)["errors"][0]["field"], "Last-Event-ID");
    }
    client.get("/api/v1/jobs/999999/events").send().await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_is_told_of_the_cancelling_and_of_the_discarding() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 10).start().await;
    let (client, key) = (stack.client(), stack.admin_key.clone());
    let id = import(&client, links("c", 50_000)).await;
    let watcher = tokio::spawn(follow(client.clone(), key.clone(), id, usize::MAX));
    under_way(&client, id, 50).await;
    assert_eq!(
        client
            .request(http::Method::POST, &format!("/api/v1/jobs/{id}/cancel"))
            .send()
            .await
            .status,
        200
    );
    let told = watcher.await.unwrap();
    told.is_in_order();
    assert_eq!(told.end["state"], "cancelled");

    let id = import(&client, links("g", 50_000)).await;
    under_way(&client, id, 50).await;
    let mut events =
        EventStream::open(&client, &key, &format!("/api/v1/jobs/{id}/events"), None).await;
    assert_eq!(events.event().await.name, "progress");
    assert_eq!(client.delete(&format!("/api/v1/jobs/{id}")).send().await.status, 204);
    let mut last = events.event().await;
    while last.name == "progress" {
        last = events.event().await;
    }
    // Whether it is seen between its cancelling and its end is chance.
    assert!(["gone", "done"].contains(&last.name.as_str()), "{last:?}");
    assert!(events.try_event().await.is_none(), "the stream ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_prefers_to_wait_is_answered_at_the_deadline() {
    let stack = builder().start().await;
    let client = stack.client();
    let mut database = stack.database().await;
    hold_code(&mut database, "p000001").await;
    let waited = upload(&client, super::support::URLS, links("p", 3));
    let waited = waited.header("prefer", "respond-async, wait=1").send().await;
    let id = super::support::job_of(&waited);
    assert_eq!(waited.header("location"), Some(format!("/api/v1/jobs/{id}").as_str()));
    assert_eq!(waited.header("preference-applied"), None);
    assert_eq!(waited.json()["count"], 0);
    let_go(&mut database).await;
    assert_eq!(ended(&client, id).await["rows_written"], 3);
    let done = upload(&client, super::support::URLS, links("d", 3));
    let done = done.header("prefer", "wait=40").send().await;
    assert_eq!((done.status, done.header("preference-applied")), (200, Some("wait=40")));
    assert_eq!(
        (&done.json()["count"], &done.json()["job"]["state"]),
        (&json!(3), &json!("succeeded"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_16_a_strangers_events_are_not_there() {
    let stack = builder().start().await;
    let (_, stranger) = stack.user("stranger", &IMPORTER).await;
    let (_, owner) = stack.user("owner", &IMPORTER).await;
    let id = import(&owner, links("o", 3)).await;
    once(&owner, id, "its end", |job| job["state"] == "succeeded").await;
    for path in ["", "/events", "/errors"] {
        stranger.get(&format!("/api/v1/jobs/{id}{path}")).send().await.problem(404);
    }
}
