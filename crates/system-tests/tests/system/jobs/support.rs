//! Helpers for the tests of jobs: uploads, waits, database checks and event streams.

use std::{io::Write, time::Duration};

use flate2::{Compression, write::GzEncoder};
use linnet_system_tests::{
    Builder, Client, Event, EventStream, Response, Stack,
    client::{Method, Request},
    eventually,
    stack::BASE_URL,
    within,
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// Longest wait for a job or an upload.
pub(super) const JOB_TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const URLS: &str = "/api/v1/urls/bulk";
pub(super) const USERS: &str = "/api/v1/users/bulk";
/// The scopes of a user who imports links.
pub(super) const IMPORTER: [&str; 3] = ["urls:read", "urls:write", "jobs:write"];

/// A stack with one worker, whose leases and retry delays are short.
pub(super) fn builder() -> Builder {
    Stack::builder()
        .workers(1)
        .env("LINNET__JOBS__LEASE_MS", 1_000)
        .env("LINNET__JOBS__RETRY_MS", 50)
        .env("LINNET__JOBS__FREE_BYTES", 0)
}

/// The content type and body of a form with a CSV file.
pub(super) fn multipart_form(name: &str, content: &[u8]) -> (String, Vec<u8>) {
    let boundary = "----linnet-form-7d1f";
    let mut body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: text/csv\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(content);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

/// A request that uploads a CSV file.
pub(super) fn upload(client: &Client, path: &str, content: impl AsRef<[u8]>) -> Request {
    let (content_type, body) = multipart_form("rows.csv", content.as_ref());
    client.request(Method::POST, path).body(&content_type, body).timeout(JOB_TIMEOUT)
}

/// The id of the job in a 202 response.
pub(super) fn accepted_job_id(response: &Response) -> i64 {
    assert_eq!(response.status, 202, "{}", response.text());
    response.json()["job"]["id"].as_i64().unwrap()
}

/// Uploads links as CSV and returns the job's id.
pub(crate) async fn import(client: &Client, csv: impl AsRef<[u8]>) -> i64 {
    accepted_job_id(&upload(client, URLS, csv).send().await)
}

/// A CSV file of `count` links, whose codes are the prefix and six digits.
pub(crate) fn links_csv(prefix: &str, count: usize) -> String {
    let mut csv = "short_code,original_url\n".to_owned();
    for n in 0..count {
        csv.push_str(&format!("{prefix}{n:06},https://example.com/{n}\n"));
    }
    csv
}

/// The job, as `GET /jobs/{id}` returns it.
pub(super) async fn get_job(client: &Client, id: i64) -> Value {
    let response = client.get(&format!("/api/v1/jobs/{id}")).send().await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// Waits until the job satisfies `condition` and returns it.
pub(super) async fn wait_for_job(
    client: &Client,
    id: i64,
    what: &str,
    condition: impl Fn(&Value) -> bool,
) -> Value {
    eventually(JOB_TIMEOUT, &format!("job {id}: {what}"), || async {
        let response = client.get(&format!("/api/v1/jobs/{id}")).try_send().await.ok()?;
        let job = (response.status == 200).then(|| response.json())?;
        condition(&job).then_some(job)
    })
    .await
}

/// Waits until the job has ended and returns it.
pub(crate) async fn wait_for_job_end(client: &Client, id: i64) -> Value {
    wait_for_job(client, id, "to end", |job| job["state"] != "queued" && job["state"] != "running")
        .await
}

/// Waits until the job has read at least `rows` rows and returns it. Panics if it is not running then.
pub(super) async fn wait_for_rows_read(client: &Client, id: i64, rows: i64) -> Value {
    let job = wait_for_job(client, id, &format!("{rows} rows read"), |job| {
        job["rows_read"].as_i64() >= Some(rows)
    })
    .await;
    assert_eq!(job["state"], "running", "{job}");
    job
}

/// The numbers of rows read, written, skipped and failed.
pub(super) fn row_counts(job: &Value) -> [i64; 4] {
    ["rows_read", "rows_written", "rows_skipped", "rows_failed"]
        .map(|name| job[name].as_i64().unwrap_or_else(|| panic!("{name}: {job}")))
}

/// Line, column and code of the first error of each invalid row, from all pages.
pub(super) async fn invalid_rows(client: &Client, id: i64) -> Vec<(i64, String, String)> {
    let mut found = Vec::new();
    let mut path = format!("/api/v1/jobs/{id}/errors?limit=200");
    loop {
        let response = client.get(&path).send().await;
        assert_eq!(response.status, 200, "{}", response.text());
        for report in response.json().as_array().unwrap() {
            let text = |name: &str| report["errors"][0][name].as_str().unwrap().to_owned();
            found.push((report["line"].as_i64().unwrap(), text("column"), text("code")));
        }
        let Some(link) = response.header("link") else { return found };
        let (next, _) = link.strip_prefix('<').and_then(|link| link.split_once('>')).unwrap();
        let next = url::Url::parse(next).map_or(next.to_owned(), |next| {
            format!("{}?{}", next.path(), next.query().unwrap_or_default())
        });
        path = next;
    }
}

/// The number that a query returns.
pub(super) async fn query_count(database: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(database).await.unwrap()
}

/// The number of jobs in any state.
/// Waits until a query counts rows.
pub(super) async fn wait_for_rows(database: &mut PgConnection, query: &'static str) {
    let end = tokio::time::Instant::now() + JOB_TIMEOUT;
    while query_count(database, query).await == 0 {
        assert!(tokio::time::Instant::now() < end, "no row within {JOB_TIMEOUT:?}: {query}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn count_jobs(stack: &Stack) -> i64 {
    query_count(&mut stack.database().await, "SELECT count(*) FROM jobs").await
}

/// The files in the upload area.
pub(super) fn upload_files(stack: &Stack) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(stack.folder().join("uploads")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// A stack whose uploads wait in PostgreSQL. Its processes share no directory, as on several machines.
pub(super) fn pieces_builder() -> Builder {
    builder().own_upload_dirs().env("LINNET__JOBS__UPLOAD_STORE", "postgres")
}

/// Waits until the upload area is empty, in the directory and in the database.
pub(super) async fn wait_until_no_uploads(stack: &Stack) {
    let query = "SELECT (SELECT count(*) FROM uploads) + (SELECT count(*) FROM upload_pieces)";
    let mut database = stack.database().await;
    let end = tokio::time::Instant::now() + JOB_TIMEOUT;
    while !upload_files(stack).is_empty() || query_count(&mut database, query).await > 0 {
        assert!(tokio::time::Instant::now() < end, "the upload area is not empty");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The number of links whose code has this prefix. Asserts that each was created once.
pub(super) async fn count_links_created_once(database: &mut PgConnection, prefix: &str) -> i64 {
    let (links, events): (i64, i64) = sqlx::query_as(
        "SELECT count(DISTINCT urls.id), count(events.id)
           FROM urls LEFT JOIN events ON url_id = urls.id AND event_type = 'created'
          WHERE starts_with(short_code, $1)",
    )
    .bind(prefix)
    .fetch_one(database)
    .await
    .unwrap();
    assert_eq!(links, events, "links and their `created` events");
    links
}

/// Blocks every other transaction that writes a link with this code, until [`unlock_code`].
pub(super) async fn lock_code(database: &mut PgConnection, code: &str) {
    sqlx::raw_sql("BEGIN").execute(&mut *database).await.unwrap();
    sqlx::query("INSERT INTO urls (short_code, original_url) VALUES ($1, 'https://example.com/')")
        .bind(code)
        .execute(database)
        .await
        .unwrap();
}

/// Releases the code that [`lock_code`] locked, without creating a link.
pub(super) async fn unlock_code(database: &mut PgConnection) {
    sqlx::raw_sql("ROLLBACK").execute(database).await.unwrap();
}

/// Compresses with gzip.
pub(super) fn gzip(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content.as_ref()).unwrap();
    encoder.finish().unwrap()
}

/// The events that a client of a job's event stream received.
#[derive(Debug, Default)]
pub(super) struct ReceivedEvents {
    /// The ids of all events.
    pub(super) ids: Vec<i64>,
    /// The lines of the invalid rows.
    pub(super) lines: Vec<i64>,
    /// `rows_read` of each `progress` event.
    pub(super) rows_read: Vec<i64>,
    /// The data of the `done` event.
    pub(super) end: Value,
    /// The number of streams that were opened.
    pub(super) streams: usize,
}

impl ReceivedEvents {
    /// Records an event and returns whether it was the last.
    fn record(&mut self, event: Event) -> bool {
        let Some(id) = event.id else {
            assert_eq!(event.name, "reconnect", "{event:?}");
            return false;
        };
        self.ids.push(id.parse().unwrap());
        match event.name.as_str() {
            "row_error" => self.lines.push(event.data["line"].as_i64().unwrap()),
            "progress" => self.rows_read.push(event.data["rows_read"].as_i64().unwrap()),
            "done" => self.end = event.data,
            other => panic!("an undocumented event type: {other}"),
        }
        !self.end.is_null()
    }

    /// Asserts that ids increase strictly and that progress never decreases.
    pub(super) fn assert_in_order(&self) {
        assert!(self.ids.is_sorted_by(|a, b| a < b), "ids: {:?}", self.ids);
        assert!(self.rows_read.is_sorted(), "rows read: {:?}", self.rows_read);
    }
}

/// Follows a job's events to its end. The client disconnects after `events_each` events and resumes after
/// the last one. It also resumes after a failed or broken connection.
pub(super) async fn follow_events(
    client: Client,
    key: String,
    id: i64,
    events_each: usize,
) -> ReceivedEvents {
    let path = format!("/api/v1/jobs/{id}/events");
    let mut received = ReceivedEvents::default();
    let followed = async {
        loop {
            let last = received.ids.last().map(ToString::to_string);
            let Ok(mut stream) = EventStream::try_open(&client, &key, &path, last.as_deref()).await
            else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            received.streams += 1;
            for _ in 0..events_each {
                let Some(event) = stream.try_event().await else { break };
                if received.record(event) {
                    return;
                }
            }
        }
    };
    let followed = tokio::time::timeout(JOB_TIMEOUT * 2, followed).await;
    assert!(followed.is_ok(), "no `done` event: {received:?}");
    received
}

/// Opens a connection and sends the head and a part of the body of an upload.
pub(super) async fn begin_upload(client: &Client, key: &str, head: &str, body: &[u8]) -> TcpStream {
    begin_request(client, URLS, key, head, body).await
}

/// Opens a connection and sends the head and a part of the body of a `POST`.
pub(super) async fn begin_request(
    client: &Client,
    path: &str,
    key: &str,
    head: &str,
    body: &[u8],
) -> TcpStream {
    let mut stream = TcpStream::connect(client.address()).await.unwrap();
    let host = BASE_URL.trim_start_matches("http://");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n{head}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

/// Waits until the upload area contains at least `bytes` bytes, in files or in pieces.
pub(super) async fn wait_for_upload_bytes(stack: &Stack, bytes: u64) {
    within(JOB_TIMEOUT, "bytes of an upload in progress", || async {
        let files = upload_files(stack);
        let sizes = files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len());
        let query = "SELECT COALESCE(sum(content_bytes), 0)::bigint FROM uploads";
        let pieces = query_count(&mut stack.database().await, query).await;
        sizes.sum::<u64>() + u64::try_from(pieces).unwrap() >= bytes
    })
    .await;
}

/// Begins an upload and sends no more of it.
pub(super) async fn begin_stalled_upload(stack: &Stack) -> TcpStream {
    let head = "Content-Type: text/csv\r\nContent-Length: 10000000\r\n";
    let rows = links_csv("x", 20_000);
    let stream = begin_upload(&stack.client(), &stack.admin_key, head, rows.as_bytes()).await;
    wait_for_upload_bytes(stack, 200_000).await;
    stream
}

/// Links as JSON objects.
pub(super) fn json_rows(codes: &[&str]) -> Vec<Value> {
    let object = |code: &&str| json!({"short_code": code, "original_url": "https://example.com/"});
    codes.iter().map(object).collect()
}
