//! What tests of jobs have in common.

use std::time::Duration;

use linnet_system_tests::{Answer, Client, client::Request, eventually};
use serde_json::Value;

/// Longest wait for a job that must come to its end.
pub(super) const SOON: Duration = Duration::from_secs(60);

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
    client.request(linnet_system_tests::client::Method::POST, path).body(&content_type, body)
}

/// A job that was accepted.
pub(super) fn job_of(answer: &Answer) -> i64 {
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["job"]["id"].as_i64().unwrap()
}

/// The job, once it has come to its end.
pub(super) async fn ended(client: &Client, id: i64) -> Value {
    eventually(SOON, "the job's end", || async {
        let answer = client.get(&format!("/api/v1/jobs/{id}")).try_send().await.ok()?;
        let job = (answer.status == 200).then(|| answer.json())?;
        let is_over = !["queued", "running"].contains(&job["state"].as_str()?);
        is_over.then_some(job)
    })
    .await
}
