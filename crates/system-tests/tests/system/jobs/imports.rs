//! Imported ids, and the report of invalid rows.

use linnet_system_tests::{
    Stack,
    expected::message,
    services::{path_text, sample_data},
};
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

/// A form as `curl -F file=@NAME` sends it: the type of the file is unknown.
fn form(name: &str, content: &[u8], fields: &[(&str, &str)]) -> (String, Vec<u8>) {
    let boundary = "----linnet-form-9c2e";
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend_from_slice(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            )
            .as_bytes(),
        );
    }
    body.extend_from_slice(
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .as_bytes(),
    );
    body.extend_from_slice(content);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

#[tokio::test]
async fn format_and_delimiter_of_a_file_are_recognized_by_the_api_and_the_command_line() {
    let stack = Stack::builder().workers(1).start().await;
    let client = stack.client();
    let json = r#"{"original_url":"https://example.com/1","short_code":"CODE"}"#;
    let array = format!("[{json}]");
    let files: [(&str, &[u8]); 10] = [
        ("array", array.as_bytes()),
        ("lines.json", json.as_bytes()),
        ("LINKS.JSONL", json.as_bytes()),
        ("links.json", array.as_bytes()),
        ("links.ndjson", json.as_bytes()),
        ("links", json.as_bytes()),
        ("links.csv", b"original_url;short_code\r\nhttps://example.com/1;CODE\r\n;\r\n;\r\n"),
        ("links.tsv", b"original_url\tshort_code\r\nhttps://example.com/1\tCODE\r\n"),
        (
            "excel.csv",
            b"\xef\xbb\xbfsep=;\r\noriginal_url;short_code\r\nhttps://example.com/1;CODE",
        ),
        ("blank.csv", b"original_url,short_code\r\n,\r\nhttps://example.com/1,CODE\r\n,\r\n"),
    ];
    for (index, (name, content)) in files.into_iter().enumerate() {
        let code = format!("sniffed-{index}");
        let content = String::from_utf8_lossy(content).replace("CODE", &code);
        let (content_type, body) = form(name, content.as_bytes(), &[]);
        let request = client.request(http::Method::POST, "/api/v1/urls/bulk");
        let response = request.body(&content_type, body).header("prefer", "wait=30").send().await;
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        let job = &response.json()["job"];
        assert_eq!((&job["rows_written"], &job["rows_read"]), (&json!(1), &json!(1)), "{job}");
        assert_eq!(client.resolve(&code).await.0, 302, "{name}");

        let file = stack.folder().join(name);
        std::fs::write(&file, content.replace("sniffed", "command")).unwrap();
        let (status, out, error) =
            stack.cli(&["admin", "import", "--urls", &path_text(&file)]).await;
        assert_eq!(status, 0, "{name}: {out}{error}");
        assert_eq!(client.resolve(&format!("command-{index}")).await.0, 302, "{name}");
    }
    for (name, content, word) in [
        ("links.xlsx", &b"PK\x03\x04\x14\x00[Content_Types].xml"[..], "Excel"),
        ("links.zip", b"PK\x03\x04\x14\x00links.csv", "ZIP"),
        ("links.csv", b"\xff\xfeo\0r\0i\0", "UTF-16"),
    ] {
        let (content_type, body) = form(name, content, &[]);
        let request = client.request(http::Method::POST, "/api/v1/urls/bulk");
        let response = request.body(&content_type, body).send().await;
        response.problem(422);
        assert!(response.text().contains(word), "{name}: {}", response.text());
    }
}

#[tokio::test]
async fn update_leaves_empty_cells_and_clears_null() {
    let stack = Stack::builder().workers(1).start().await;
    let client = stack.client();
    let body = json!({"original_url": "https://example.com/", "short_code": "kept", "title": "T",
        "max_clicks": 5});
    let id = client.shorten(&body).await["id"].clone();
    let path = format!("/api/v1/urls/{id}");
    let csv = |title: &str| {
        format!("original_url,short_code,title,max_clicks\nhttps://example.com/,kept,{title},\n")
    };
    for (title, options, expected) in [
        ("", &[("on_conflict", "update")][..], json!("T")),
        ("null", &[("on_conflict", "update")][..], json!("null")),
        ("null", &[("on_conflict", "update"), ("null_columns", "title")][..], json!(null)),
    ] {
        let (content_type, body) = form("links.csv", csv(title).as_bytes(), options);
        let request = client.request(http::Method::POST, "/api/v1/urls/bulk");
        let response = request.body(&content_type, body).header("prefer", "wait=30").send().await;
        assert_eq!(response.status, 200, "{}", response.text());
        let link = client.get(&path).send().await.json();
        assert_eq!((&link["title"], &link["max_clicks"]), (&expected, &json!(5)), "{link}");
    }
    let json = r#"[{"original_url":"https://example.com/","short_code":"kept","max_clicks":null}]"#;
    let (content_type, body) = form("links.json", json.as_bytes(), &[("on_conflict", "update")]);
    let request = client.request(http::Method::POST, "/api/v1/urls/bulk");
    let response = request.body(&content_type, body).header("prefer", "wait=30").send().await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(client.get(&path).send().await.json()["max_clicks"], json!(null));
}

#[tokio::test]
async fn idempotency_key_of_an_upload_covers_its_options_and_format() {
    let stack = Stack::builder().workers(1).start().await;
    let client = stack.client();
    let csv = b"original_url\nhttps://example.com/1\n";
    let post = |name: &str, fields: &[(&str, &str)], query: &str| {
        let (content_type, body) = form(name, csv, fields);
        let request = client.request(http::Method::POST, &format!("/api/v1/urls/bulk{query}"));
        request.body(&content_type, body).header("idempotency-key", "k").send()
    };
    let first = post("a.csv", &[("dry_run", "true")], "").await;
    assert_eq!(first.status, 202, "{}", first.text());
    let again = post("b.csv", &[("dry_run", "true")], "").await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    post("a.csv", &[("dry_run", "false")], "").await.problem(422);
    post("a.csv", &[], "").await.problem(422);
    post("a.csv", &[("dry_run", "true"), ("on_conflict", "skip")], "").await.problem(422);
    post("a.csv", &[("dry_run", "true")], "?on_conflict=skip").await.problem(422);
}
