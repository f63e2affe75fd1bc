//! Exports of links as CSV and NDJSON.

use std::time::Duration;

use linnet_system_tests::{Client, Response, Stack, client::read_head, stack::Postgres, within};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::api::link_fields;

const SCOPES: &[&str] = &["urls:read", "urls:write"];
const PATH: &str = "/api/v1/urls/export";
/// Longest wait for a part of an export.
const TIMEOUT: Duration = Duration::from_secs(30);

fn csv_lines(response: &Response) -> Vec<String> {
    assert_eq!(response.status, 200, "{}", response.text());
    let text = response.text();
    let lines = text.strip_suffix("\r\n").expect("a line break at the end");
    lines.split("\r\n").map(ToOwned::to_owned).collect()
}

fn ndjson_objects(response: &Response) -> Vec<Value> {
    assert_eq!(response.status, 200, "{}", response.text());
    response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ndjson_ids(response: &Response) -> Vec<i64> {
    ndjson_objects(response).iter().map(|link| link["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn must_10_links_are_exported_as_csv_without_formulas_and_as_ndjson() {
    let stack = Stack::start().await;
    let client = stack.client();
    let full = client
        .shorten(&json!({
            "original_url": "https://example.com/?a=1,2", "short_code": "-code", "title": "=\"1\"",
            "redirect_status": 308, "expires_at": "2027-01-31T12:00:00+01:00", "max_clicks": 3,
        }))
        .await;
    let plain = client
        .shorten(
            &json!({"original_url": "https://example.com/", "title": "'+1", "is_active": false}),
        )
        .await;

    for path in [PATH.to_owned(), format!("{PATH}?format=csv")] {
        let csv = client.get(&path).send().await;
        assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
        assert_eq!(csv.header("content-disposition"), Some("attachment; filename=\"urls.csv\""));
        assert_eq!(csv.header("x-content-type-options"), Some("nosniff"));
        let full_cells = [
            ("short_code", "'-code"),
            ("original_url", "\"https://example.com/?a=1,2\""),
            ("title", "\"'=\"\"1\"\"\""),
            ("is_active", "true"),
            ("redirect_status", "308"),
            ("expires_at", "2027-01-31T11:00:00.000000Z"),
            ("max_clicks", "3"),
        ];
        let plain_cells = [
            ("short_code", plain["short_code"].as_str().unwrap()),
            ("original_url", "https://example.com/"),
            ("title", "''+1"),
            ("is_active", "false"),
            ("redirect_status", "302"),
        ];
        let wanted = [
            columns().join(","),
            csv_line(&stack, &full, &full_cells),
            csv_line(&stack, &plain, &plain_cells),
        ];
        assert_eq!(csv_lines(&csv), wanted);
    }

    assert_ndjson(&client, &[full, plain]).await;
    assert_head_and_empty_export(&stack).await;
    assert_invalid_requests_are_rejected(&stack).await;
}

/// The documented fields of a link without `short_url`.
fn columns() -> Vec<String> {
    let mut fields = link_fields();
    fields.retain(|field| field != "short_url");
    fields
}

/// The line of a link with these cells. A field without a cell is null, which is an empty cell.
fn csv_line(stack: &Stack, link: &Value, cells: &[(&str, &str)]) -> String {
    let cell = |name: &String| match name.as_str() {
        "id" => link["id"].to_string(),
        "user_id" => stack.admin_id.to_string(),
        "clicks" => "0".to_owned(),
        "created_at" | "updated_at" => exported_time(link, name),
        name => {
            let cell = cells.iter().find(|(other, _)| *other == name);
            cell.map(|(_, text)| (*text).to_owned()).unwrap_or_default()
        }
    };
    columns().iter().map(cell).collect::<Vec<_>>().join(",")
}

/// A time of the API in the form of exports: the API omits trailing zeros, exports have six digits.
fn exported_time(link: &Value, field: &str) -> String {
    let time: chrono::DateTime<chrono::Utc> = link[field].as_str().unwrap().parse().unwrap();
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

async fn assert_ndjson(client: &Client, links: &[Value]) {
    let ndjson = client.get(&format!("{PATH}?format=ndjson")).send().await;
    assert_eq!(ndjson.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(ndjson.header("content-disposition"), Some("attachment; filename=\"urls.ndjson\""));
    for (object, link) in ndjson_objects(&ndjson).into_iter().zip(links) {
        let mut wanted = link.clone();
        wanted.as_object_mut().unwrap().remove("short_url");
        for field in ["expires_at", "created_at", "updated_at"] {
            if !wanted[field].is_null() {
                wanted[field] = json!(exported_time(link, field));
            }
        }
        assert_eq!(object, wanted);
        assert!(columns().iter().all(|key| object.get(key).is_some()));
    }
}

async fn assert_head_and_empty_export(stack: &Stack) {
    let head = stack.client().head(PATH).send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    let (_, without_links) = stack.create_user("without-links", SCOPES).await;
    assert_eq!(
        csv_lines(&without_links.get(PATH).send().await),
        [columns().join(",")],
        "an export without links"
    );
    assert_eq!(without_links.get(&format!("{PATH}?format=ndjson")).send().await.text(), "");
}

async fn assert_invalid_requests_are_rejected(stack: &Stack) {
    let client = stack.client();
    for (query, field) in [
        ("format=json", "format"),
        ("limit=1", "limit"),
        ("search=a", "search"),
        ("user_id=0", "user_id"),
    ] {
        let response = client.get(&format!("{PATH}?{query}")).send().await;
        response.problem(422);
        assert_eq!(response.problem_fields(), [field], "{query}");
    }
    client.anonymous().get(PATH).send().await.problem(401);
    let (_, writer) = stack.create_user("writer", &["urls:write"]).await;
    writer.get(PATH).send().await.problem(403);
}

#[tokio::test]
async fn must_16_export_contains_only_the_links_in_the_callers_list() {
    let stack = Stack::start().await;
    let admin = stack.client();
    let (one, first) = stack.create_user("one", SCOPES).await;
    let (_, second) = stack.create_user("two", SCOPES).await;
    let mut made = Vec::new();
    for (client, title, is_active) in
        [(&first, "apple", true), (&second, "pear", true), (&first, "Pineapple", false)]
    {
        let body =
            json!({"original_url": "https://example.com/", "title": title, "is_active": is_active});
        made.push(client.shorten(&body).await["id"].as_i64().unwrap());
    }
    for (client, query, wanted) in [
        (&admin, String::new(), vec![made[0], made[1], made[2]]),
        (&first, String::new(), vec![made[0], made[2]]),
        (&second, String::new(), vec![made[1]]),
        (&second, format!("&user_id={one}"), vec![]),
        (&admin, format!("&user_id={one}"), vec![made[0], made[2]]),
        (&admin, "&is_active=false".into(), vec![made[2]]),
        (&first, "&is_active=true".into(), vec![made[0]]),
        (&admin, "&search=APPLE".into(), vec![made[0], made[2]]),
        (&second, "&search=apple".into(), vec![]),
        (&admin, "&search=' OR ''='".into(), vec![]),
    ] {
        let query = query.replace(' ', "%20");
        let response = client.get(&format!("{PATH}?format=ndjson{query}")).send().await;
        assert_eq!(ndjson_ids(&response), wanted, "{query}");
    }
}

/// Inserts `count` links of the administrator with targets of `bytes` bytes.
async fn insert_links(stack: &Stack, count: i32, bytes: i32) {
    sqlx::query(
        "INSERT INTO urls (user_id, short_code, original_url)
         SELECT $1, 'fill' || n, 'https://example.com/' || repeat('x', $3 - 20)
           FROM generate_series(1, $2) AS n",
    )
    .bind(stack.admin_id)
    .bind(count)
    .bind(bytes)
    .execute(&mut stack.database().await)
    .await
    .unwrap();
}

#[tokio::test]
async fn large_export_is_complete_and_ordered() {
    let stack = Stack::start().await;
    insert_links(&stack, 20_000, 40).await;
    let client = stack.client();
    let ndjson = client.get(&format!("{PATH}?format=ndjson")).send().await;
    let found = ndjson_ids(&ndjson);
    assert_eq!(found.len(), 20_000);
    assert!(found.is_sorted());
    let csv = csv_lines(&client.get(PATH).send().await);
    assert_eq!(csv.len(), 20_001);
    let column_count = columns().len();
    for (line, id) in csv[1..].iter().zip(found) {
        assert!(line.starts_with(&format!("{id},{},fill", stack.admin_id)), "{line}");
        assert_eq!(line.split(',').count(), column_count, "{line}");
    }
}

/// Requests an export and reads only the head of the response.
async fn begin_export(stack: &Stack) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(stack.client().address()).await.unwrap();
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {}\r\nConnection: close\r\n\r\n",
        stack.admin_key
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    (stream, head)
}

#[tokio::test]
async fn concurrent_exports_are_limited_and_a_failed_one_is_visibly_incomplete() {
    let builder = Stack::builder().postgres(Postgres::Own);
    let mut stack = builder.env("LINNET__SHORTENER__EXPORTS_PER_USER", 2).start().await;
    // Far larger than all buffers between PostgreSQL and the client.
    insert_links(&stack, 10_000, 8_000).await;
    let (mut first, head) = begin_export(&stack).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (second, head) = begin_export(&stack).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let rejected = stack.client().get(PATH).send().await;
    rejected.problem(503);
    assert_eq!(rejected.header("retry-after"), Some("5"));
    assert_eq!(stack.client().head(PATH).send().await.status, 200, "`HEAD` takes no slot");
    drop(second);
    within(TIMEOUT, "a slot after the second export ended", || async {
        begin_export(&stack).await.1.starts_with("HTTP/1.1 200")
    })
    .await;

    stack.kill_postgres().await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(TIMEOUT, first.read_to_end(&mut rest)).await;
    // The connection may be closed or reset.
    let _ = read.expect("an end in time");
    assert!(rest.len() < 10_000 * 8_000, "{} bytes", rest.len());
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the body looks complete");
    stack.client().get(PATH).send().await.problem(503);
    stack.start_postgres().await;
    within(TIMEOUT, "a complete export after the restart", || async {
        let (mut stream, head) = begin_export(&stack).await;
        if !head.starts_with("HTTP/1.1 200") {
            return false;
        }
        let mut rest = Vec::new();
        let read = tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut rest)).await;
        read.is_ok() && rest.len() > 10_000 * 8_000 && rest.ends_with(b"0\r\n\r\n")
    })
    .await;
}
