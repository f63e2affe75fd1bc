//! What tests of jobs have in common.

use std::{io::Write, time::Duration};

use flate2::{Compression, write::GzEncoder};
use linnet_system_tests::{
    Answer, Builder, Client, Event, EventStream, Stack,
    client::{Method, Request},
    eventually,
    stack::BASE_URL,
    within,
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// Longest wait for a job that must come to its end.
pub(super) const SOON: Duration = Duration::from_secs(60);
pub(super) const URLS: &str = "/api/v1/urls/bulk";
pub(super) const USERS: &str = "/api/v1/users/bulk";
/// What one who imports links of their own may do.
pub(super) const IMPORTER: [&str; 3] = ["urls:read", "urls:write", "jobs:write"];

/// A worker that writes few rows at a time, and whose jobs are soon another's.
pub(super) fn builder() -> Builder {
    Stack::builder()
        .workers(1)
        .env("LINNET__JOBS__LEASE_MS", 1_000)
        .env("LINNET__JOBS__RETRY_MS", 50)
        .env("LINNET__JOBS__FREE_BYTES", 0)
}

/// A form with a file.
pub(super) fn form(name: &str, content: &[u8]) -> (String, Vec<u8>) {
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
    let (content_type, body) = form("rows.csv", content.as_ref());
    client.request(Method::POST, path).body(&content_type, body).patience(SOON)
}

/// A job that was accepted.
pub(super) fn job_of(answer: &Answer) -> i64 {
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["job"]["id"].as_i64().unwrap()
}

/// Uploads links as CSV; the job's number.
pub(super) async fn import(client: &Client, csv: impl AsRef<[u8]>) -> i64 {
    job_of(&upload(client, URLS, csv).send().await)
}

/// A CSV file of so many links, whose codes are the prefix and a number.
pub(super) fn links(prefix: &str, count: usize) -> String {
    let mut csv = "short_code,original_url\n".to_owned();
    for n in 0..count {
        csv.push_str(&format!("{prefix}{n:06},https://example.com/{n}\n"));
    }
    csv
}

/// What `GET /jobs/{id}` answers.
pub(super) async fn job(client: &Client, id: i64) -> Value {
    let answer = client.get(&format!("/api/v1/jobs/{id}")).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The job, once it is as wanted.
pub(super) async fn once(
    client: &Client,
    id: i64,
    what: &str,
    is_wanted: impl Fn(&Value) -> bool,
) -> Value {
    eventually(SOON, &format!("job {id}: {what}"), || async {
        let answer = client.get(&format!("/api/v1/jobs/{id}")).try_send().await.ok()?;
        let job = (answer.status == 200).then(|| answer.json())?;
        is_wanted(&job).then_some(job)
    })
    .await
}

/// The job, once it has come to its end.
pub(super) async fn ended(client: &Client, id: i64) -> Value {
    once(client, id, "its end", |job| job["state"] != "queued" && job["state"] != "running").await
}

/// The job, once at least so many rows are done; it may not have come to its end.
pub(super) async fn under_way(client: &Client, id: i64, rows: i64) -> Value {
    let job = once(client, id, "so many rows", |job| job["rows_read"].as_i64() >= Some(rows)).await;
    assert_eq!(job["state"], "running", "{job}");
    job
}

/// Rows read, written, skipped and bad.
pub(super) fn counts(job: &Value) -> [i64; 4] {
    ["rows_read", "rows_written", "rows_skipped", "rows_failed"]
        .map(|name| job[name].as_i64().unwrap_or_else(|| panic!("{name}: {job}")))
}

/// All bad rows of a job, page by page: line, column and code of the first problem of each.
pub(super) async fn bad_rows(client: &Client, id: i64) -> Vec<(i64, String, String)> {
    let mut found = Vec::new();
    let mut path = format!("/api/v1/jobs/{id}/errors?limit=200");
    loop {
        let answer = client.get(&path).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        for report in answer.json().as_array().unwrap() {
            let text = |name: &str| report["errors"][0][name].as_str().unwrap().to_owned();
            found.push((report["line"].as_i64().unwrap(), text("column"), text("code")));
        }
        let Some(link) = answer.header("link") else { return found };
        let (next, _) = link.strip_prefix('<').and_then(|link| link.split_once('>')).unwrap();
        let next = url::Url::parse(next).map_or(next.to_owned(), |next| {
            format!("{}?{}", next.path(), next.query().unwrap_or_default())
        });
        path = next;
    }
}

/// What a query counts.
pub(super) async fn count(database: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(database).await.unwrap()
}

/// How many jobs there are, whatever their state.
pub(super) async fn jobs(stack: &Stack) -> i64 {
    count(&mut stack.database().await, "SELECT count(*) FROM jobs").await
}

/// The files in the upload area.
pub(super) fn uploads(stack: &Stack) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(stack.folder().join("uploads")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Waits until the upload area is empty.
pub(super) async fn no_upload_is_left(stack: &Stack) {
    eventually(SOON, "an empty upload area", || async { uploads(stack).is_empty().then_some(()) })
        .await;
}

/// Every code of a prefix stands for one link, which was made once; how many there are.
pub(super) async fn made_once(database: &mut PgConnection, prefix: &str) -> i64 {
    let (links, events): (i64, i64) = sqlx::query_as(
        "SELECT count(DISTINCT urls.id), count(events.id)
           FROM urls LEFT JOIN events ON url_id = urls.id AND event_type = 'created'
          WHERE starts_with(short_code, $1)",
    )
    .bind(prefix)
    .fetch_one(database)
    .await
    .unwrap();
    assert_eq!(links, events, "a link's history begins once");
    links
}

/// Makes whoever writes a link of this code wait, until the transaction ends.
pub(super) async fn hold_code(database: &mut PgConnection, code: &str) {
    sqlx::raw_sql("BEGIN").execute(&mut *database).await.unwrap();
    sqlx::query("INSERT INTO urls (short_code, original_url) VALUES ($1, 'https://example.com/')")
        .bind(code)
        .execute(database)
        .await
        .unwrap();
}

/// Lets them go on, as if the code had never been held.
pub(super) async fn let_go(database: &mut PgConnection) {
    sqlx::raw_sql("ROLLBACK").execute(database).await.unwrap();
}

pub(super) fn gzip(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content.as_ref()).unwrap();
    encoder.finish().unwrap()
}

/// What one who watches a job was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The ids of all events.
    pub(super) ids: Vec<i64>,
    /// The lines of bad rows.
    pub(super) lines: Vec<i64>,
    /// `rows_read` of each step.
    pub(super) read: Vec<i64>,
    /// The job at its end.
    pub(super) end: Value,
    /// How often the stream was opened.
    pub(super) streams: usize,
}

impl Told {
    fn note(&mut self, event: Event) -> bool {
        let Some(id) = event.id else {
            assert_eq!(event.name, "reconnect", "{event:?}");
            return false;
        };
        self.ids.push(id.parse().unwrap());
        match event.name.as_str() {
            "row_error" => self.lines.push(event.data["line"].as_i64().unwrap()),
            "progress" => self.read.push(event.data["rows_read"].as_i64().unwrap()),
            "done" => self.end = event.data,
            other => panic!("an event of a kind that is not documented: {other}"),
        }
        !self.end.is_null()
    }

    /// Each event once, in order, and no step back.
    pub(super) fn is_in_order(&self) {
        assert!(self.ids.is_sorted_by(|a, b| a < b), "ids: {:?}", self.ids);
        assert!(self.read.is_sorted(), "rows that are done: {:?}", self.read);
    }
}

/// Watches a job to its end. The client goes away after so many events, and comes back with the id of
/// the last one, also when the stream breaks off or is refused.
pub(super) async fn follow(client: Client, key: String, id: i64, events_each: usize) -> Told {
    let path = format!("/api/v1/jobs/{id}/events");
    let mut told = Told::default();
    let followed = async {
        loop {
            let last = told.ids.last().map(ToString::to_string);
            let Ok(mut stream) = EventStream::try_open(&client, &key, &path, last.as_deref()).await
            else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            told.streams += 1;
            for _ in 0..events_each {
                let Some(event) = stream.try_event().await else { break };
                if told.note(event) {
                    return;
                }
            }
        }
    };
    let followed = tokio::time::timeout(SOON * 2, followed).await;
    assert!(followed.is_ok(), "the job's end is not told: {told:?}");
    told
}

/// A connection on which a request was begun: the head and a part of the body.
pub(super) async fn begun(client: &Client, key: &str, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(client.address()).await.unwrap();
    let host = BASE_URL.trim_start_matches("http://");
    let head = format!(
        "POST {URLS} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n{head}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

/// Waits until bytes of an upload are on the disk.
pub(super) async fn arrives(stack: &Stack, bytes: u64) {
    within(SOON, "an upload that is on its way", || async {
        let files = uploads(stack);
        let sizes = files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len());
        sizes.sum::<u64>() >= bytes && !files.is_empty()
    })
    .await;
}

/// An upload that does not go on.
pub(super) async fn half_an_upload(stack: &Stack) -> TcpStream {
    let head = "Content-Type: text/csv\r\nContent-Length: 10000000\r\n";
    let rows = links("x", 20_000);
    let stream = begun(&stack.client(), &stack.admin_key, head, rows.as_bytes()).await;
    arrives(stack, 200_000).await;
    stream
}

/// Rows of JSON.
pub(super) fn objects(codes: &[&str]) -> Vec<Value> {
    let object = |code: &&str| json!({"short_code": code, "original_url": "https://example.com/"});
    codes.iter().map(object).collect()
}
