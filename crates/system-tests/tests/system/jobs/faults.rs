//! Stores that go away in the middle of an import, and uploads that break off.

use linnet_system_tests::{Postgres, Signal, Stack, client::Method, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{
    SOON, URLS, arrives, begun, builder, counts, ended, follow, form, half_an_upload, import, job,
    jobs, links, made_once, no_upload_is_left, under_way,
};

async fn flush(stack: &Stack) {
    let url = format!("redis://127.0.0.1:{}/0", stack.redis_port());
    let client = redis::Client::open(url).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL").query_async::<()>(&mut redis).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_emptied_in_the_middle_of_a_job() {
    let stack = builder()
        .env("LINNET__JOBS__CHUNK_ROWS", 50)
        .env("LINNET__JOBS__RUNNING_PER_USER", 1)
        .start()
        .await;
    let client = stack.client();
    let first = import(&client, links("f", 5_000)).await;
    let waiting = import(&client, links("w", 10)).await;
    under_way(&client, first, 200).await;
    flush(&stack).await;
    let later = import(&client, links("l", 10)).await;
    for (id, rows) in [(first, 5_000), (waiting, 10), (later, 10)] {
        let job = ended(&client, id).await;
        assert_eq!((&job["state"], counts(&job)), (&"succeeded".into(), [rows, rows, 0, 0]));
    }
    let mut database = stack.database().await;
    for (prefix, rows) in [("f", 5_000), ("w", 10), ("l", 10)] {
        assert_eq!(made_once(&mut database, prefix).await, rows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_emptied_is_filled_again() {
    let mut stack = builder().start().await;
    let client = stack.client();
    stack.workers[0].stop().await;
    let mut waiting = Vec::new();
    for n in 0..20 {
        waiting.push(import(&client, links(&format!("q{n}-"), 3)).await);
    }
    flush(&stack).await;
    stack.workers[0].start();
    for id in waiting {
        let job = ended(&client, id).await;
        assert_eq!((&job["state"], counts(&job)), (&"succeeded".into(), [3, 3, 0, 0]));
    }
    assert_eq!(made_once(&mut stack.database().await, "q").await, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_dies_in_the_middle_of_a_job_and_uploads_are_taken_without_it() {
    let mut stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 50).start().await;
    let client = stack.client();
    let first = import(&client, links("f", 3_000)).await;
    under_way(&client, first, 200).await;
    stack.redis.kill().await;
    let job = ended(&client, first).await;
    assert_eq!((&job["state"], counts(&job)), (&"succeeded".into(), [3_000, 3_000, 0, 0]));
    // Nobody can be told of it now.
    let second = import(&client, links("s", 10)).await;
    stack.start_redis().await;
    let job = ended(&client, second).await;
    assert_eq!((&job["state"], counts(&job)), (&"succeeded".into(), [10, 10, 0, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_dies_in_the_middle_of_a_job() {
    let mut stack = builder()
        .postgres(Postgres::Own)
        .workers(2)
        .env("LINNET__JOBS__CHUNK_ROWS", 50)
        .start()
        .await;
    let client = stack.client();
    let id = import(&client, links("p", 10_000)).await;
    let follower = tokio::spawn(follow(stack.client(), stack.admin_key.clone(), id, 1_000));
    let mut before = 0;
    for _ in 0..2 {
        before = under_way(&client, id, before + 500).await["rows_read"].as_i64().unwrap();
        stack.kill_postgres().await;
        stack.start_postgres().await;
        let now = eventually(SOON, "an answer", || async {
            let answer = client.get(&format!("/api/v1/jobs/{id}")).try_send().await.ok()?;
            (answer.status == 200).then(|| answer.json()["rows_read"].as_i64())?
        })
        .await;
        assert!(now >= before, "{now} rows are done, and {before} were");
    }
    let job = ended(&client, id).await;
    assert_eq!((&job["state"], counts(&job)), (&"succeeded".into(), [10_000, 10_000, 0, 0]));
    assert_eq!(made_once(&mut stack.database().await, "p").await, 10_000);
    let told = follower.await.unwrap();
    told.is_in_order();
    assert_eq!(told.end["rows_written"], 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_off_imports_nothing() {
    let stack = builder().start().await;
    let (client, key) = (stack.client(), stack.admin_key.clone());
    let csv = links("b", 40_000);
    let (whole, half) = (csv.len(), &csv.as_bytes()[..csv.len() / 2]);
    let (multipart, body) = form("rows.csv", csv.as_bytes());
    let of_form = format!("Content-Type: {multipart}\r\nContent-Length: {}\r\n", body.len());
    let sized = format!("Content-Type: text/csv\r\nContent-Length: {whole}\r\n");
    let chunked = "Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n".to_owned();
    let mut chunk = format!("{:x}\r\n", half.len()).into_bytes();
    chunk.extend_from_slice(half);
    chunk.extend_from_slice(b"\r\n");
    let cases =
        [(of_form, body[..body.len() / 2].to_vec()), (sized, half.to_vec()), (chunked, chunk)];
    for (head, part) in cases {
        // The client goes away: nobody is there to be told.
        let stream = begun(&client, &key, &head, &part).await;
        arrives(&stack, 200_000).await;
        drop(stream);
        no_upload_is_left(&stack).await;
        // The client says that no more comes, and listens.
        let mut stream = begun(&client, &key, &head, &part).await;
        arrives(&stack, 200_000).await;
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await;
        read.expect("an end of the answer").unwrap();
        let is_refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(is_refused, "{head}: {answer}");
        no_upload_is_left(&stack).await;
    }
    // Whole as HTTP, but the form in it is not.
    let (multipart, mut body) = form("rows.csv", csv.as_bytes());
    body.truncate(body.len() / 2);
    let request = client.request(Method::POST, URLS);
    request.body(&multipart, body).send().await.problem(400);
    no_upload_is_left(&stack).await;
    assert_eq!(jobs(&stack).await, 0);
    assert_eq!(made_once(&mut stack.database().await, "b").await, 0);
    // And the next one is as any other.
    let id = import(&client, links("n", 10)).await;
    assert_eq!(ended(&client, id).await["rows_written"], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_pass_all_proxies_as_they_come() {
    let stack = builder().start().await;
    let (client, key) = (stack.client(), stack.admin_key.clone());
    // Above nginx's limit for other requests.
    let csv = links("u", 120_000);
    assert!(csv.len() > 3 * 1024 * 1024);
    let head =
        format!("Content-Type: text/csv\r\nContent-Length: {}\r\nConnection: close\r\n", csv.len());
    let (first, rest) = csv.as_bytes().split_at(csv.len() / 2);
    let mut stream = begun(&client, &key, &head, first).await;
    // The shortener has it before the client has sent it all. Its own buffer is smaller than this.
    arrives(&stack, first.len() as u64 - 700_000).await;
    assert_eq!(jobs(&stack).await, 0);
    stream.write_all(rest).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await;
    read.expect("an end of the answer").unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let list = client.get("/api/v1/jobs").send().await.json();
    let id = list[0]["id"].as_i64().unwrap();
    assert_eq!(list[0]["bytes"], csv.len(), "{list}");
    under_way(&client, id, 1).await;
    client.delete(&format!("/api/v1/jobs/{id}")).send().await;
    no_upload_is_left(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_falls_silent_keeps_no_worker_from_stopping() {
    let mut stack = builder().start().await;
    let client = stack.client();
    let stream = half_an_upload(&stack).await;
    // Its requests are given up at the end of the grace.
    assert!(stack.shorteners[0].stop().await.code().is_some());
    drop(stream);
    no_upload_is_left(&stack).await;
    stack.shorteners[0].start();
    within(SOON, "the shortener is back", || async {
        client.get("/api/v1/jobs").try_send().await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    assert_eq!(jobs(&stack).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_hangs_is_followed_and_writes_nothing_when_it_is_back() {
    let mut stack = builder().workers(2).env("LINNET__JOBS__CHUNK_ROWS", 50).start().await;
    let client = stack.client();
    // The one that takes the job is the one that runs.
    stack.workers[1].stop().await;
    let id = import(&client, links("h", 5_000)).await;
    under_way(&client, id, 200).await;
    stack.workers[0].signal(Signal::STOP);
    stack.workers[1].start();
    let ended = ended(&client, id).await;
    assert_eq!((&ended["state"], counts(&ended)), (&"succeeded".into(), [5_000, 5_000, 0, 0]));
    stack.workers[0].signal(Signal::CONT);
    let next = import(&client, links("n", 10)).await;
    stack.workers[1].stop().await;
    // It is well again, and knows that the job is not its own any more.
    assert_eq!(super::support::ended(&client, next).await["rows_written"], 10);
    assert_eq!(job(&client, id).await, ended);
    assert_eq!(made_once(&mut stack.database().await, "h").await, 5_000);
}
