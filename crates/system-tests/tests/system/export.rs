//! All links as one file.

use std::time::Duration;

use linnet_system_tests::{Answer, Stack, stack::Postgres, within};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SCOPES: &[&str] = &["urls:read", "urls:write"];
const PATH: &str = "/api/v1/urls/export";
const NAMES: &str = "id,user_id,short_code,original_url,title,is_active,redirect_status,expires_at,\
                     max_clicks,clicks,created_at,updated_at";
const LONGEST_WAIT: Duration = Duration::from_secs(30);

fn lines(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let lines = text.strip_suffix("\r\n").expect("an end of line at the end");
    lines.split("\r\n").map(ToOwned::to_owned).collect()
}

fn objects(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(answer: &Answer) -> Vec<i64> {
    objects(answer).iter().map(|link| link["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn must_10_links_are_exported_as_a_file() {
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
    // The API writes no more digits of a second than there are.
    let time = |link: &Value, field: &str| {
        let time: chrono::DateTime<chrono::Utc> = link[field].as_str().unwrap().parse().unwrap();
        time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
    };

    for path in [PATH.to_owned(), format!("{PATH}?format=csv")] {
        let csv = client.get(&path).send().await;
        assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
        assert_eq!(csv.header("content-disposition"), Some("attachment; filename=\"urls.csv\""));
        assert_eq!(csv.header("x-content-type-options"), Some("nosniff"));
        let wanted = [
            NAMES.to_owned(),
            format!(
                "{},{},'-code,\"https://example.com/?a=1,2\",\"'=\"\"1\"\"\",true,308,\
                 2027-01-31T11:00:00.000000Z,3,0,{},{}",
                full["id"],
                stack.admin_id,
                time(&full, "created_at"),
                time(&full, "updated_at")
            ),
            format!(
                "{},{},{},https://example.com/,''+1,false,302,,,0,{},{}",
                plain["id"],
                stack.admin_id,
                plain["short_code"].as_str().unwrap(),
                time(&plain, "created_at"),
                time(&plain, "updated_at")
            ),
        ];
        assert_eq!(lines(&csv), wanted);
    }

    let ndjson = client.get(&format!("{PATH}?format=ndjson")).send().await;
    assert_eq!(ndjson.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(ndjson.header("content-disposition"), Some("attachment; filename=\"urls.ndjson\""));
    for (object, link) in objects(&ndjson).into_iter().zip([&full, &plain]) {
        let mut wanted = link.clone();
        wanted.as_object_mut().unwrap().remove("short_url");
        for field in ["expires_at", "created_at", "updated_at"] {
            if !wanted[field].is_null() {
                wanted[field] = json!(time(link, field));
            }
        }
        assert_eq!(object, wanted);
        let keys: Vec<_> = NAMES.split(',').collect();
        assert!(keys.iter().all(|key| object.get(key).is_some()));
    }

    let head = client.head(PATH).send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    let (_, nobody) = stack.user("nobody", SCOPES).await;
    assert_eq!(lines(&nobody.get(PATH).send().await), [NAMES], "no link is a file, too");
    assert_eq!(nobody.get(&format!("{PATH}?format=ndjson")).send().await.text(), "");
    for (query, field) in [
        ("format=json", "format"),
        ("limit=1", "limit"),
        ("search=ab", "search"),
        ("user_id=0", "user_id"),
    ] {
        let answer = client.get(&format!("{PATH}?{query}")).send().await;
        answer.problem(422);
        assert_eq!(answer.problem_fields(), [field], "{query}");
    }
    client.anonymous().get(PATH).send().await.problem(401);
    let (_, writer) = stack.user("writer", &["urls:write"]).await;
    writer.get(PATH).send().await.problem(403);
}

#[tokio::test]
async fn must_16_an_export_is_the_callers_list() {
    let stack = Stack::start().await;
    let admin = stack.client();
    let (one, first) = stack.user("one", SCOPES).await;
    let (_, second) = stack.user("two", SCOPES).await;
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
        let answer = client.get(&format!("{PATH}?format=ndjson{query}")).send().await;
        assert_eq!(ids(&answer), wanted, "{query}");
    }
}

/// So many links of the administrator's, with targets of so many bytes.
async fn fill(stack: &Stack, count: i32, bytes: i32) {
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
async fn many_links_come_whole_and_in_order() {
    let stack = Stack::start().await;
    fill(&stack, 20_000, 40).await;
    let client = stack.client();
    let ndjson = client.get(&format!("{PATH}?format=ndjson")).send().await;
    let found = ids(&ndjson);
    assert_eq!(found.len(), 20_000);
    assert!(found.is_sorted());
    let csv = lines(&client.get(PATH).send().await);
    assert_eq!(csv.len(), 20_001);
    for (line, id) in csv[1..].iter().zip(found) {
        assert!(line.starts_with(&format!("{id},{},fill", stack.admin_id)), "{line}");
        assert_eq!(line.split(',').count(), 12, "{line}");
    }
}

/// Asks for an export and reads no more than the head, if `GET` gives one.
async fn begin(stack: &Stack) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(stack.client().address()).await.unwrap();
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {}\r\nConnection: close\r\n\r\n",
        stack.admin_key
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(LONGEST_WAIT, stream.read_u8()).await;
        head.push(byte.expect("a head in time").expect("a head"));
    }
    (stream, String::from_utf8(head).unwrap())
}

#[tokio::test]
async fn exports_are_few_and_one_that_fails_breaks_off() {
    let mut stack = Stack::builder().postgres(Postgres::Own).start().await;
    // Far more than all buffers on the way hold.
    fill(&stack, 10_000, 8_000).await;
    let (mut first, head) = begin(&stack).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (second, head) = begin(&stack).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let refused = stack.client().get(PATH).send().await;
    refused.problem(503);
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(stack.client().head(PATH).send().await.status, 200, "which costs nothing");
    drop(second);
    within(LONGEST_WAIT, "the second export's end", || async {
        begin(&stack).await.1.starts_with("HTTP/1.1 200")
    })
    .await;

    stack.kill_postgres().await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(LONGEST_WAIT, first.read_to_end(&mut rest)).await;
    // Closed or reset, but over.
    let _ = read.expect("the end in time");
    assert!(rest.len() < 10_000 * 8_000, "{} bytes", rest.len());
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a body that ends so looks whole");
    stack.client().get(PATH).send().await.problem(503);
    stack.start_postgres().await;
    within(LONGEST_WAIT, "exports again", || async {
        let (mut stream, head) = begin(&stack).await;
        if !head.starts_with("HTTP/1.1 200") {
            return false;
        }
        let mut rest = Vec::new();
        let read = tokio::time::timeout(LONGEST_WAIT, stream.read_to_end(&mut rest)).await;
        read.is_ok() && rest.len() > 10_000 * 8_000 && rest.ends_with(b"0\r\n\r\n")
    })
    .await;
}
