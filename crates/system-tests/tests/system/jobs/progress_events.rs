//! Event streams of jobs, and uploads that wait for the job.

use linnet_system_tests::{EventStream, Stack};
use serde_json::json;

use super::support::{
    IMPORTER, builder, follow_events, import, links_csv, lock_code, row_counts, unlock_code,
    upload, wait_for_job, wait_for_job_end, wait_for_rows_read,
};

/// Stops or kills one of two gateways or shorteners, in turn, and starts it again.
async fn restart_a_process(stack: &mut Stack, number: usize) {
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
            stack.wait_until_ready().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_stream_delivers_each_event_once_while_gateways_and_shorteners_restart() {
    let mut stack = builder()
        .shorteners(2)
        .gateways(2)
        .env("LINNET__JOBS__CHUNK_ROWS", 20)
        .env("LINNET__POSTGRES__LOCK_TIMEOUT_MS", 60_000)
        .start()
        .await;
    let client = stack.client();
    let mut csv = links_csv("w", 0);
    let mut invalid = Vec::new();
    for n in 0..6_000_i64 {
        if n % 40 == 7 {
            csv.push_str(&format!("w{n},ftp://example.com/{n}\n"));
            invalid.push(n + 2);
        } else {
            csv.push_str(&format!("w{n:05},https://example.com/{n}\n"));
        }
    }
    // Locked codes stop the job before each restart, so that it outlasts all of them.
    let mut locks = Vec::new();
    for row in (1..=8).map(|part| part * 600) {
        let mut database = stack.database().await;
        lock_code(&mut database, &format!("w{row:05}")).await;
        locks.push((row, database));
    }
    let id = import(&client, csv).await;
    let one_stream =
        tokio::spawn(follow_events(stack.client(), stack.admin_key.clone(), id, usize::MAX));
    let many_streams = tokio::spawn(follow_events(stack.client(), stack.admin_key.clone(), id, 3));
    for (number, (row, mut database)) in locks.into_iter().enumerate() {
        wait_for_rows_read(&client, id, row).await;
        unlock_code(&mut database).await;
        restart_a_process(&mut stack, number).await;
    }
    let job = wait_for_job_end(&client, id).await;
    assert_eq!((&job["state"], &job["rows_read"]), (&json!("succeeded"), &json!(6_000)), "{job}");
    for received in [one_stream.await.unwrap(), many_streams.await.unwrap()] {
        received.assert_in_order();
        assert_eq!(received.lines, invalid, "over {} streams", received.streams);
        assert_eq!(received.end, job);
        assert!(received.streams > 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_subscriber_gets_all_events_and_a_current_one_none() {
    let stack = builder().start().await;
    let (client, key) = (stack.client(), stack.admin_key.clone());
    let id = import(&client, "original_url\nhttps://example.com/\nx\ny\n").await;
    let job = wait_for_job_end(&client, id).await;
    assert_eq!(row_counts(&job), [3, 1, 0, 2]);
    let received = follow_events(client.clone(), key.clone(), id, usize::MAX).await;
    received.assert_in_order();
    assert_eq!((received.lines.as_slice(), &received.end), (&[3, 4][..], &job));
    let path = format!("/api/v1/jobs/{id}/events");
    // Resumes between the two invalid rows.
    let from = received.ids[0].to_string();
    let mut rest = EventStream::open(&client, &key, &path, Some(&from)).await;
    let event = rest.event().await;
    assert_eq!((event.name.as_str(), &event.data["line"]), ("row_error", &json!(4)), "{event:?}");
    assert_eq!(rest.event().await.name, "done");
    assert!(rest.try_event().await.is_none(), "an event after the last one");
    let last = received.ids.last().unwrap().to_string();
    let nothing = client.get(&path).header("last-event-id", &last).send().await;
    assert_eq!(nothing.status, 204);
    // No event has this id yet.
    let ahead = client.get(&path).header("last-event-id", "999999").send().await;
    assert_eq!(ahead.status, 204);
    for invalid in ["x", "-1", "1.5"] {
        let rejected = client.get(&path).header("last-event-id", invalid).send().await;
        assert_eq!(rejected.problem(422)["errors"][0]["field"], "Last-Event-ID");
    }
    client.get("/api/v1/jobs/999999/events").send().await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_stream_reports_cancellation_and_deletion() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 10).start().await;
    let (client, key) = (stack.client(), stack.admin_key.clone());
    let id = import(&client, links_csv("c", 50_000)).await;
    let follower = tokio::spawn(follow_events(client.clone(), key.clone(), id, usize::MAX));
    wait_for_rows_read(&client, id, 50).await;
    assert_eq!(
        client
            .request(http::Method::POST, &format!("/api/v1/jobs/{id}/cancel"))
            .send()
            .await
            .status,
        200
    );
    let received = follower.await.unwrap();
    received.assert_in_order();
    assert_eq!(received.end["state"], "cancelled");

    let id = import(&client, links_csv("g", 50_000)).await;
    wait_for_rows_read(&client, id, 50).await;
    let mut events =
        EventStream::open(&client, &key, &format!("/api/v1/jobs/{id}/events"), None).await;
    assert_eq!(events.event().await.name, "progress");
    assert_eq!(client.delete(&format!("/api/v1/jobs/{id}")).send().await.status, 204);
    let mut last = events.event().await;
    while last.name == "progress" {
        last = events.event().await;
    }
    // The stream may read the job between its cancellation and its deletion.
    assert!(["gone", "done"].contains(&last.name.as_str()), "{last:?}");
    assert!(events.try_event().await.is_none(), "an event after the last one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_that_prefers_to_wait_responds_at_the_deadline() {
    let stack = builder().start().await;
    let client = stack.client();
    let mut database = stack.database().await;
    lock_code(&mut database, "p000001").await;
    let waited = upload(&client, super::support::URLS, links_csv("p", 3));
    let waited = waited.header("prefer", "respond-async, wait=1").send().await;
    let id = super::support::accepted_job_id(&waited);
    assert_eq!(waited.header("location"), Some(format!("/api/v1/jobs/{id}").as_str()));
    assert_eq!(waited.header("preference-applied"), None);
    assert_eq!(waited.json()["count"], 0);
    unlock_code(&mut database).await;
    assert_eq!(wait_for_job_end(&client, id).await["rows_written"], 3);
    let done = upload(&client, super::support::URLS, links_csv("d", 3));
    let done = done.header("prefer", "wait=40").send().await;
    assert_eq!((done.status, done.header("preference-applied")), (200, Some("wait=40")));
    assert_eq!(
        (&done.json()["count"], &done.json()["job"]["state"]),
        (&json!(3), &json!("succeeded"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_16_job_events_of_another_user_are_not_found() {
    let stack = builder().start().await;
    let (_, stranger) = stack.create_user("stranger", &IMPORTER).await;
    let (_, owner) = stack.create_user("owner", &IMPORTER).await;
    let id = import(&owner, links_csv("o", 3)).await;
    wait_for_job(&owner, id, "to succeed", |job| job["state"] == "succeeded").await;
    for path in ["", "/events", "/errors"] {
        stranger.get(&format!("/api/v1/jobs/{id}{path}")).send().await.problem(404);
    }
}
