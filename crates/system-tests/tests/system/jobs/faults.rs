//! Outages of Redis and PostgreSQL during an import, aborted uploads and hung workers.

use linnet_system_tests::{
    Postgres, Signal, Stack,
    client::{Method, read_head},
    eventually, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{
    JOB_TIMEOUT, URLS, begin_stalled_upload, begin_upload, builder, count_jobs,
    count_links_created_once, follow_events, get_job, import, links_csv, multipart_form,
    row_counts, wait_for_job_end, wait_for_rows_read, wait_for_upload_bytes, wait_until_no_uploads,
};

async fn flush_redis(stack: &Stack) {
    let url = format!("redis://127.0.0.1:{}/0", stack.redis_port());
    let client = redis::Client::open(url).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL").query_async::<()>(&mut redis).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_finish_when_redis_is_flushed() {
    let stack = builder()
        .env("LINNET__JOBS__CHUNK_ROWS", 50)
        .env("LINNET__JOBS__RUNNING_PER_USER", 1)
        .start()
        .await;
    let client = stack.client();
    let first = import(&client, links_csv("f", 5_000)).await;
    let waiting = import(&client, links_csv("w", 10)).await;
    wait_for_rows_read(&client, first, 200).await;
    flush_redis(&stack).await;
    let later = import(&client, links_csv("l", 10)).await;
    for (id, rows) in [(first, 5_000), (waiting, 10), (later, 10)] {
        let job = wait_for_job_end(&client, id).await;
        assert_eq!((&job["state"], row_counts(&job)), (&"succeeded".into(), [rows, rows, 0, 0]));
    }
    let mut database = stack.database().await;
    for (prefix, rows) in [("f", 5_000), ("w", 10), ("l", 10)] {
        assert_eq!(count_links_created_once(&mut database, prefix).await, rows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_queue_is_filled_again() {
    let mut stack = builder().start().await;
    let client = stack.client();
    stack.workers[0].stop().await;
    let mut waiting = Vec::new();
    for n in 0..20 {
        waiting.push(import(&client, links_csv(&format!("q{n}-"), 3)).await);
    }
    flush_redis(&stack).await;
    stack.workers[0].start();
    for id in waiting {
        let job = wait_for_job_end(&client, id).await;
        assert_eq!((&job["state"], row_counts(&job)), (&"succeeded".into(), [3, 3, 0, 0]));
    }
    assert_eq!(count_links_created_once(&mut stack.database().await, "q").await, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_finishes_and_uploads_are_accepted_while_redis_is_down() {
    let mut stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 50).start().await;
    let client = stack.client();
    let first = import(&client, links_csv("f", 3_000)).await;
    wait_for_rows_read(&client, first, 200).await;
    stack.redis.kill().await;
    let job = wait_for_job_end(&client, first).await;
    assert_eq!((&job["state"], row_counts(&job)), (&"succeeded".into(), [3_000, 3_000, 0, 0]));
    // The job cannot be announced in Redis now.
    let second = import(&client, links_csv("s", 10)).await;
    stack.start_redis().await;
    let job = wait_for_job_end(&client, second).await;
    assert_eq!((&job["state"], row_counts(&job)), (&"succeeded".into(), [10, 10, 0, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_finishes_after_postgresql_crashes() {
    let mut stack = builder()
        .postgres(Postgres::Own)
        .workers(2)
        .env("LINNET__JOBS__CHUNK_ROWS", 50)
        .start()
        .await;
    let client = stack.client();
    let id = import(&client, links_csv("p", 10_000)).await;
    let follower = tokio::spawn(follow_events(stack.client(), stack.admin_key.clone(), id, 1_000));
    let mut before = 0;
    for _ in 0..2 {
        before = wait_for_rows_read(&client, id, before + 500).await["rows_read"].as_i64().unwrap();
        stack.kill_postgres().await;
        stack.start_postgres().await;
        let now = eventually(JOB_TIMEOUT, "a response", || async {
            let response = client.get(&format!("/api/v1/jobs/{id}")).try_send().await.ok()?;
            (response.status == 200).then(|| response.json()["rows_read"].as_i64())?
        })
        .await;
        assert!(now >= before, "{now} rows read, {before} before the crash");
    }
    let job = wait_for_job_end(&client, id).await;
    assert_eq!((&job["state"], row_counts(&job)), (&"succeeded".into(), [10_000, 10_000, 0, 0]));
    assert_eq!(count_links_created_once(&mut stack.database().await, "p").await, 10_000);
    let received = follower.await.unwrap();
    received.assert_in_order();
    assert_eq!(received.end["rows_written"], 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_whose_key_cannot_be_verified_gets_503_and_its_key_stays_valid() {
    let mut stack = builder().postgres(Postgres::Own).start().await;
    let mut upload = begin_stalled_upload(&stack).await;
    // Without Redis, the gateway verifies the key again and again, and without PostgreSQL every lookup of it fails.
    stack.redis.kill().await;
    stack.kill_postgres().await;
    let head = read_head(&mut upload).await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
    let refused = stack.client().get("/api/v1/urls").send().await;
    assert_eq!(refused.problem(503)["code"], "unavailable");
    stack.start_postgres().await;
    within(JOB_TIMEOUT, "a response to the same key", || async {
        let response = stack.client().get("/api/v1/urls").send().await;
        assert!(matches!(response.status, 200 | 503), "{}", response.text());
        response.status == 200
    })
    .await;
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_upload_imports_nothing() {
    let stack = builder().start().await;
    let (client, key) = (stack.client(), stack.admin_key.clone());
    let csv = links_csv("b", 40_000);
    let (whole, half) = (csv.len(), &csv.as_bytes()[..csv.len() / 2]);
    let (multipart, body) = multipart_form("rows.csv", csv.as_bytes());
    let form_head = format!("Content-Type: {multipart}\r\nContent-Length: {}\r\n", body.len());
    let sized = format!("Content-Type: text/csv\r\nContent-Length: {whole}\r\n");
    let chunked = "Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n".to_owned();
    let mut chunk = format!("{:x}\r\n", half.len()).into_bytes();
    chunk.extend_from_slice(half);
    chunk.extend_from_slice(b"\r\n");
    let cases =
        [(form_head, body[..body.len() / 2].to_vec()), (sized, half.to_vec()), (chunked, chunk)];
    for (head, part) in cases {
        // The client closes the connection and reads no response.
        let stream = begin_upload(&client, &key, &head, &part).await;
        wait_for_upload_bytes(&stack, 200_000).await;
        drop(stream);
        wait_until_no_uploads(&stack).await;
        // The client closes only its sending half and reads the response.
        let mut stream = begin_upload(&client, &key, &head, &part).await;
        wait_for_upload_bytes(&stack, 200_000).await;
        stream.shutdown().await.unwrap();
        let mut response = String::new();
        let read = tokio::time::timeout(JOB_TIMEOUT, stream.read_to_string(&mut response)).await;
        read.expect("an end of the response").unwrap();
        let is_rejected = response.is_empty() || response.starts_with("HTTP/1.1 4");
        assert!(is_rejected, "{head}: {response}");
        wait_until_no_uploads(&stack).await;
    }
    // The HTTP request is complete, but the form in it is not.
    let (multipart, mut body) = multipart_form("rows.csv", csv.as_bytes());
    body.truncate(body.len() / 2);
    let request = client.request(Method::POST, URLS);
    request.body(&multipart, body).send().await.problem(400);
    wait_until_no_uploads(&stack).await;
    assert_eq!(count_jobs(&stack).await, 0);
    assert_eq!(count_links_created_once(&mut stack.database().await, "b").await, 0);
    // The next upload is processed normally.
    let id = import(&client, links_csv("n", 10)).await;
    assert_eq!(wait_for_job_end(&client, id).await["rows_written"], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_are_streamed_through_all_proxies() {
    let stack = builder().start().await;
    let (client, key) = (stack.client(), stack.admin_key.clone());
    // The file is larger than nginx allows for other requests.
    let csv = links_csv("u", 120_000);
    assert!(csv.len() > 3 * 1024 * 1024);
    let head =
        format!("Content-Type: text/csv\r\nContent-Length: {}\r\nConnection: close\r\n", csv.len());
    let (first, rest) = csv.as_bytes().split_at(csv.len() / 2);
    let mut stream = begin_upload(&client, &key, &head, first).await;
    // The shortener writes the first half before the client has sent the rest. Buffers hold less than
    // 700,000 bytes.
    wait_for_upload_bytes(&stack, first.len() as u64 - 700_000).await;
    assert_eq!(count_jobs(&stack).await, 0);
    stream.write_all(rest).await.unwrap();
    let mut response = String::new();
    let read = tokio::time::timeout(JOB_TIMEOUT, stream.read_to_string(&mut response)).await;
    read.expect("an end of the response").unwrap();
    assert!(response.starts_with("HTTP/1.1 202"), "{response}");
    let list = client.get("/api/v1/jobs").send().await.json();
    let id = list[0]["id"].as_i64().unwrap();
    assert_eq!(list[0]["bytes"], csv.len(), "{list}");
    wait_for_rows_read(&client, id, 1).await;
    client.delete(&format!("/api/v1/jobs/{id}")).send().await;
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_upload_does_not_prevent_shutdown() {
    let mut stack = builder().start().await;
    let client = stack.client();
    let stream = begin_stalled_upload(&stack).await;
    // The shortener aborts the upload at the end of the grace period.
    assert!(stack.shorteners[0].stop().await.code().is_some());
    drop(stream);
    wait_until_no_uploads(&stack).await;
    stack.shorteners[0].start();
    within(JOB_TIMEOUT, "a response after the restart", || async {
        client.get("/api/v1/jobs").try_send().await.is_ok_and(|response| response.status == 200)
    })
    .await;
    assert_eq!(count_jobs(&stack).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_worker_loses_its_job_and_writes_nothing_when_it_resumes() {
    let mut stack = builder().workers(2).env("LINNET__JOBS__CHUNK_ROWS", 50).start().await;
    let client = stack.client();
    // Worker 0 is the only one that can take the job.
    stack.workers[1].stop().await;
    let id = import(&client, links_csv("h", 5_000)).await;
    wait_for_rows_read(&client, id, 200).await;
    stack.workers[0].signal(Signal::STOP);
    stack.workers[1].start();
    let ended = wait_for_job_end(&client, id).await;
    assert_eq!((&ended["state"], row_counts(&ended)), (&"succeeded".into(), [5_000, 5_000, 0, 0]));
    stack.workers[0].signal(Signal::CONT);
    let next = import(&client, links_csv("n", 10)).await;
    stack.workers[1].stop().await;
    // Worker 0 runs another job and leaves the one that it lost unchanged.
    assert_eq!(super::support::wait_for_job_end(&client, next).await["rows_written"], 10);
    assert_eq!(get_job(&client, id).await, ended);
    assert_eq!(count_links_created_once(&mut stack.database().await, "h").await, 5_000);
}
