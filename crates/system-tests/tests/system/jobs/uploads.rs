//! Formats, media types, sizes, idempotency and concurrency of uploads.

use linnet_system_tests::{
    client::{Method, read_head},
    within,
};
use serde_json::{Value, json};

use super::support::{
    JOB_TIMEOUT, URLS, accepted_job_id, begin_request, begin_upload, builder, count_jobs,
    count_links_created_once, gzip, json_rows, links_csv, multipart_form, row_counts, upload,
    wait_for_job_end, wait_for_rows, wait_until_no_uploads,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_are_accepted_in_every_format_with_and_without_gzip() {
    let stack = builder().start().await;
    let client = stack.client();
    let csv = |prefix: &str| links_csv(prefix, 3).into_bytes();
    let codes = |prefix: &str| ["1", "2", "3"].map(|n| format!("{prefix}{n}"));
    let array = |prefix: &str| {
        let codes = codes(prefix);
        Value::from(json_rows(&codes.each_ref().map(String::as_str))).to_string().into_bytes()
    };
    let lines = |prefix: &str| {
        let codes = codes(prefix);
        let objects = json_rows(&codes.each_ref().map(String::as_str));
        let lines: Vec<String> = objects.iter().map(ToString::to_string).collect();
        lines.join("\n").into_bytes()
    };
    let (multipart, whole_form) = multipart_form("rows.csv.gz", &gzip(csv("f9-")));
    let cases = [
        ("f1-", "text/csv", "csv", csv("f1-")),
        ("f2-", "text/csv; charset=utf-8", "csv", gzip(csv("f2-"))),
        ("f3-", "application/json", "json", array("f3-")),
        ("f4-", "application/json", "json", gzip(array("f4-"))),
        ("f5-", "application/x-ndjson", "ndjson", lines("f5-")),
        ("f6-", "application/jsonl", "ndjson", gzip(lines("f6-"))),
        ("f9-", multipart.as_str(), "csv", whole_form),
        // A gzip file may have several members.
        ("f10-", "text/csv", "csv", [gzip("short_code,orig"), gzip(&csv("f10-")[15..])].concat()),
    ];
    for (prefix, content_type, format, body) in cases {
        let request = client.request(Method::POST, URLS).body(content_type, body);
        let id = accepted_job_id(&request.header("prefer", "wait=0").send().await);
        let job = wait_for_job_end(&client, id).await;
        assert_eq!((&job["state"], &job["format"]), (&json!("succeeded"), &json!(format)), "{job}");
        assert_eq!(row_counts(&job), [3, 3, 0, 0], "{prefix}");
        assert_eq!(
            count_links_created_once(&mut stack.database().await, prefix).await,
            3,
            "{prefix}"
        );
    }
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsupported_media_types_are_rejected() {
    let stack = builder().start().await;
    let client = stack.client();
    let types = ["", "text/plain", "application/zip", "application/xml", "csv"];
    for content_type in types {
        let request = client.request(Method::POST, URLS).body(content_type, links_csv("t", 1));
        let response = request.send().await;
        assert_eq!(response.problem(415)["code"], "unsupported_media_type", "{content_type}");
        assert_eq!(response.problem_fields(), ["body"]);
    }
    // The form is malformed.
    for content_type in ["multipart/form-data", "multipart/form-data; boundary=absent"] {
        let response =
            client.request(Method::POST, URLS).body(content_type, links_csv("t", 1)).send().await;
        assert!((400..500).contains(&response.status), "{content_type}: {}", response.status);
        assert_eq!(response.problem_fields(), ["body"], "{content_type}");
    }
    assert_eq!(count_jobs(&stack).await, 0);
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_large_uploads_are_rejected_compressed_and_uncompressed() {
    let stack = builder().env("LINNET__JOBS__UPLOAD_BYTES", 300_000).start().await;
    let client = stack.client();
    let fits = links_csv("f", 8_000);
    assert!((200_000..300_000).contains(&fits.len()), "{}", fits.len());
    let large = links_csv("x", 100_000);
    for body in [large.clone().into_bytes(), gzip(&large), gzip(links_csv("x", 12_000))] {
        for content_type in ["text/csv", "multipart/form-data"] {
            let (content_type, body) = match content_type {
                "text/csv" => (content_type.to_owned(), body.clone()),
                _ => multipart_form("rows.csv", &body),
            };
            let request = client.request(Method::POST, URLS).body(&content_type, body);
            let response = request.send().await;
            assert_eq!(response.problem(413)["code"], "too_large", "{content_type}");
            wait_until_no_uploads(&stack).await;
        }
    }
    assert_eq!(count_jobs(&stack).await, 0);
    for body in [fits.clone().into_bytes(), gzip(fits.replace('f', "g"))] {
        let request = client.request(Method::POST, URLS).body("text/csv", body);
        accepted_job_id(&request.send().await);
    }
}

/// The rest of the body would be read as the next request, so no client may reuse the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_before_the_end_of_a_request_closes_the_connection() {
    let stack = builder().env("LINNET__JOBS__UPLOAD_BYTES", 300_000).start().await;
    let rows = links_csv("x", 20_000);
    let cases = [
        (413, URLS, "Content-Type: text/csv\r\nContent-Length: 10000000\r\n"),
        (413, URLS, "Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n"),
        (415, URLS, "Content-Type: text/plain\r\nContent-Length: 10000000\r\n"),
        (413, "/api/v1/urls", "Content-Type: application/json\r\nContent-Length: 1900000\r\n"),
    ];
    for (status, path, head) in cases {
        let chunk = format!("{:x}\r\n{rows}\r\n", rows.len());
        let body = if head.contains("chunked") { &chunk } else { &rows };
        let key = &stack.admin_key;
        let mut stream = begin_request(&stack.client(), path, key, head, body.as_bytes()).await;
        let response = read_head(&mut stream).await.to_ascii_lowercase();
        assert!(response.starts_with(&format!("http/1.1 {status} ")), "{response}");
        assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_with_one_idempotency_key_create_one_job() {
    let stack = builder().env("LINNET__JOBS__UPLOADS_PER_USER", 5).start().await;
    let client = stack.client();
    let send = async |csv: String, path: &str, key: &str| {
        upload(&client, path, csv).header("idempotency-key", key).send().await
    };
    let first = send(links_csv("i", 5), URLS, "one").await;
    let id = accepted_job_id(&first);
    wait_for_job_end(&client, id).await;
    let again = send(links_csv("i", 5), URLS, "one").await;
    assert_eq!((again.status, &again.body), (202, &first.body), "a replayed response");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.header("location"), first.header("location"));
    let other = send(links_csv("o", 5), URLS, "one").await;
    assert_eq!(other.problem(422)["errors"][0]["field"], "Idempotency-Key");
    // The same file with other parameters is another request.
    let other = send(links_csv("i", 5), "/api/v1/urls/bulk?dry_run=true", "one").await;
    assert_eq!(other.problem(422)["errors"][0]["field"], "Idempotency-Key");
    assert_eq!(count_jobs(&stack).await, 1);
    wait_until_no_uploads(&stack).await;
    assert_eq!(count_links_created_once(&mut stack.database().await, "i").await, 5);
    // Concurrent uploads have the same key.
    let concurrent: Vec<_> = (0..5)
        .map(|_| {
            let request = upload(&client, URLS, links_csv("p", 5)).header("idempotency-key", "two");
            tokio::spawn(async move { request.send().await })
        })
        .collect();
    let mut ids = Vec::new();
    for request in concurrent {
        ids.push(accepted_job_id(&request.await.unwrap()));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(row_counts(&wait_for_job_end(&client, ids[0]).await), [5, 5, 0, 0]);
    assert_eq!(count_jobs(&stack).await, 2);
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_beyond_the_concurrency_limit_are_rejected_with_retry_after() {
    let stack = builder().env("LINNET__JOBS__UPLOADS", 1).start().await;
    let client = stack.client();
    let stalled = super::support::begin_stalled_upload(&stack).await;
    let response = upload(&client, URLS, links_csv("u", 1)).send().await;
    response.problem(503);
    assert!(response.header("retry-after").is_some());
    drop(stalled);
    let id = linnet_system_tests::eventually(JOB_TIMEOUT, "an accepted upload", || async {
        let response = upload(&client, URLS, links_csv("u", 1)).send().await;
        (response.status == 202).then(|| accepted_job_id(&response))
    })
    .await;
    assert_eq!(wait_for_job_end(&client, id).await["rows_written"], 1);
}

/// A server drops the handler of a client that disconnects, here while PostgreSQL creates the job.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_of_a_client_that_disconnected_has_its_file() {
    let stack = builder().env("LINNET__POSTGRES__LOCK_TIMEOUT_MS", 30_000).start().await;
    let active =
        || async { stack.shortener_metrics(0).await.sum("http_server_active_requests", &[]) };
    let before = active().await;
    let (mut blocker, mut database) = (stack.database().await, stack.database().await);
    // The job exists once COMMIT has been sent, whether or not a client waits for its result.
    let lock = "CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS
                  'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END';
                CREATE CONSTRAINT TRIGGER wait_for_test AFTER INSERT ON jobs
                  INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_for_test();
                SELECT pg_advisory_lock(1)";
    sqlx::raw_sql(lock).execute(&mut blocker).await.unwrap();
    let body = links_csv("gone", 3);
    let head = format!("content-type: text/csv\r\ncontent-length: {}\r\n", body.len());
    let client = stack.client();
    let connection = begin_upload(&client, &stack.admin_key, &head, body.as_bytes()).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                    AND datname = current_database() AND query = 'COMMIT'";
    wait_for_rows(&mut database, waits).await;
    drop(connection);
    within(JOB_TIMEOUT, "the handler to be dropped", || async { active().await <= before }).await;
    sqlx::raw_sql("SELECT pg_advisory_unlock(1)").execute(&mut blocker).await.unwrap();
    let succeeded = "SELECT count(*) FROM jobs WHERE state = 'succeeded' AND rows_written = 3";
    wait_for_rows(&mut database, succeeded).await;
    wait_until_no_uploads(&stack).await;
}
