//! Imported ids, and the report of invalid rows.

use linnet_system_tests::{Stack, expected::message, services::sample_data};
use serde_json::json;

use super::support::{accepted_job_id, upload, wait_for_job_end};

#[tokio::test]
async fn imported_users_keep_their_ids_and_the_next_user_gets_a_higher_id() {
    let stack = Stack::builder().workers(1).start().await;
    let client = stack.client();
    let (csv, count) = match sample_data() {
        Some(sample) => (std::fs::read(sample.join("users.csv")).unwrap(), 400),
        None => (b"id,username,email\n1,same,a@example.com\n400,same,b@example.com\n".to_vec(), 2),
    };
    let response =
        upload(&client, "/api/v1/users/bulk", csv).header("prefer", "wait=30").send().await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["count"], count, "{}", response.text());
    assert_eq!(response.json()["job"]["state"], "succeeded");
    assert_eq!(client.get("/api/v1/users/400").send().await.status, 200);
    let next = json!({"username": "next", "email": "next@example.org"});
    let next = client.post("/api/v1/users", &next).send().await.json();
    assert!(next["id"].as_i64().unwrap() > 400, "{next}");
}

#[tokio::test]
async fn accepted_job_reports_its_invalid_rows() {
    let stack = Stack::builder().workers(1).start().await;
    let client = stack.client();
    let csv = "Title,ORIGINAL_URL,extra\r\n\
               good,https://example.com/1,x\r\n\
               bad,javascript:alert(1),y\r\n\
               \"=cmd()|' /C calc'!A0\",https://example.com/2,\r\n\
               short,https://example.com/3\r\n";
    let response = upload(&client, "/api/v1/urls/bulk", csv).send().await;
    let id = accepted_job_id(&response);
    assert_eq!(response.header("location"), Some(format!("/api/v1/jobs/{id}").as_str()));
    let job = wait_for_job_end(&client, id).await;
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
        format!(
            "error_line,error_column,error_code,error_message,title,original_url,extra\r\n\
             3,original_url,invalid,\"{}\",bad,javascript:alert(1),y\r\n\
             5,,field_count,\"{}\",short,https://example.com/3\r\n",
            message::TARGET_SCHEME,
            message::field_count(2, 3),
        )
    );
}
