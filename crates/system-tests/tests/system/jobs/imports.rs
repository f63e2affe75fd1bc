//! Imports that go well, and rows that do not.

use linnet_system_tests::{Stack, services::workspace};
use serde_json::json;

use super::support::{ended, job_of, upload};

#[tokio::test]
async fn the_sample_comes_in_with_its_ids_and_the_next_user_is_behind_it() {
    let stack = Stack::builder().workers(1).start().await;
    let client = stack.client();
    let sample = workspace().join("../shared/data/sample/users.csv");
    let (csv, count) = if sample.exists() {
        (std::fs::read(&sample).unwrap(), 400)
    } else {
        (b"id,username,email\n1,same,a@example.com\n400,same,b@example.com\n".to_vec(), 2)
    };
    let answer =
        upload(&client, "/api/v1/users/bulk", csv).header("prefer", "wait=30").send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["count"], count, "{}", answer.text());
    assert_eq!(answer.json()["job"]["state"], "succeeded");
    assert_eq!(client.get("/api/v1/users/400").send().await.status, 200);
    let next = json!({"username": "next", "email": "next@example.org"});
    let next = client.post("/api/v1/users", &next).send().await.json();
    assert!(next["id"].as_i64().unwrap() > 400, "{next}");
}

#[tokio::test]
async fn a_job_is_accepted_and_tells_its_bad_rows() {
    let stack = Stack::builder().workers(1).start().await;
    let client = stack.client();
    let csv = "Title,ORIGINAL_URL,extra\r\n\
               good,https://example.com/1,x\r\n\
               bad,javascript:alert(1),y\r\n\
               \"=cmd()|' /C calc'!A0\",https://example.com/2,\r\n\
               short,https://example.com/3\r\n";
    let answer = upload(&client, "/api/v1/urls/bulk", csv).send().await;
    let id = job_of(&answer);
    assert_eq!(answer.header("location"), Some(format!("/api/v1/jobs/{id}").as_str()));
    let job = ended(&client, id).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!((&job["rows_written"], &job["rows_failed"]), (&json!(2), &json!(2)), "{job}");
    assert_eq!(job["unknown_columns"], json!(["extra"]));
    let errors = client.get(&format!("/api/v1/jobs/{id}/errors")).send().await.json();
    assert_eq!(errors[0]["line"], 3);
    assert_eq!(errors[0]["errors"][0]["column"], "original_url");
    assert_eq!(errors[1]["line"], 5);
    assert_eq!(errors[1]["errors"][0]["code"], "field_count");
    let csv = client.get(&format!("/api/v1/jobs/{id}/errors?format=csv")).send().await;
    assert_eq!(
        csv.text(),
        "error_line,error_column,error_code,error_message,title,original_url,extra\r\n\
         3,original_url,invalid,\"must begin with an allowed scheme, such as https://\",bad,javascript:alert(1),y\r\n\
         5,,field_count,\"has 2 fields, the header 3\",short,https://example.com/3\r\n"
    );
}
