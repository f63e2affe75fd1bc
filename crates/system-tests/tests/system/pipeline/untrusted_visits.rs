//! Hostile headers in visits: what is recorded, and which address counts.

use linnet_system_tests::{Client, Stack, client::BROWSER, expected::metric, raw};
use serde_json::{Value, json};

use super::support::{assert_clicks_exactly, builder, create_link};

/// Visits a link with these bytes as headers. Returns whether the visit was redirected.
async fn visit(client: &Client, code: &str, headers: &[(&str, &[u8])]) -> bool {
    let mut request = format!("GET /{code} HTTP/1.1\r\nHost: lnt.test\r\n").into_bytes();
    if !headers.iter().any(|(name, _)| *name == "User-Agent") {
        request.extend_from_slice(format!("User-Agent: {BROWSER}\r\n").as_bytes());
    }
    for (name, value) in headers {
        request.extend_from_slice(format!("{name}: ").as_bytes());
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"Connection: close\r\n\r\n");
    let status = raw::exchange(client.address(), &request).await.status.unwrap_or(400);
    assert!(status == 302 || (400..500).contains(&status), "{status} for {headers:?}");
    status == 302
}

async fn get_json(stack: &Stack, path: &str) -> Value {
    let response = stack.client().get(path).send().await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// Header values that are hostile or oversized.
fn hostile_values() -> Vec<Vec<u8>> {
    let long = |length: usize| vec![b'x'; length];
    vec![
        b"<script>alert(1)</script>".to_vec(),
        b"=cmd|' /C calc'!A0".to_vec(),
        b"@SUM(1)".to_vec(),
        b"\xff\xfe\x80\xc3".to_vec(),
        b"\xc2\x80\xe2\x80\xae\xf0\x9f\xa6\x8a".to_vec(),
        b"a\x01\x1b[31m\x7fb".to_vec(),
        b"a\tb".to_vec(),
        b"' OR 1=1; --".to_vec(),
        b"{a,b,\"c\"}\\".to_vec(),
        long(7_000),
        long(8 * 1024),
        long(64 * 1024),
        Vec::new(),
    ]
}

/// [`hostile_values`] and hostile hosts.
fn hostile_referrers() -> Vec<Vec<u8>> {
    let host = |length: usize| [b"https://".as_slice(), &vec![b'x'; length], b".example/"].concat();
    let mut referrers = hostile_values();
    referrers.extend([
        b"https://<script>alert(1)</script>/".to_vec(),
        b"https://=cmd()/".to_vec(),
        b"https://-1+1.example/".to_vec(),
        b"https://a\x1fb.example/".to_vec(),
        b"https://\xff\xfe.example/".to_vec(),
        b"https://%00.example/".to_vec(),
        "https://b\u{fc}cher.example/".as_bytes().to_vec(),
        host(63),
        host(300),
        host(6_000),
    ]);
    referrers
}

/// Asserts that stored values are short and contain no control characters.
async fn assert_stored_values_are_harmless(stack: &Stack) {
    let values: Vec<(i16, Vec<String>)> = sqlx::query_as("SELECT kind, parts FROM click_values")
        .fetch_all(&mut stack.database().await)
        .await
        .unwrap();
    for (kind, parts) in &values {
        for part in parts {
            assert!(part.chars().count() <= 253 && !part.chars().any(char::is_control), "{part:?}");
            // The link's owner chooses the campaign (kind 4). Values of other kinds are names.
            assert!(*kind == 4 || !part.contains(['<', '>', '"', '\'', '\\', ' ']), "{part:?}");
        }
    }
    let has = |kind: i16, part: &str| {
        values.iter().any(|(k, parts)| *k == kind && parts.iter().any(|p| p == part))
    };
    assert!(has(3, "xn--bcher-kva.example"), "{values:?}");
    assert!(!has(3, "=cmd()"), "not a host name: {values:?}");
    assert!(has(4, "<script>") && has(4, "=cmd()") && has(4, "ab"), "{values:?}");
}

/// Asserts that CSV files are downloads without formulas.
async fn assert_files_contain_no_formula(client: &Client, link: i64) {
    for path in [
        "/api/v1/events?event_type=click&limit=200&format=csv".to_owned(),
        format!("/api/v1/urls/{link}/stats?format=csv&dimension=referrer&top=100"),
        format!("/api/v1/urls/{link}/stats?format=csv&dimension=utm_medium&top=100"),
        format!("/api/v1/urls/{link}/stats?format=csv&dimension=utm_source&top=100"),
    ] {
        let file = client.get(&path).send().await;
        assert_eq!(file.status, 200, "{}", file.text());
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        assert!(file.header("content-disposition").unwrap().starts_with("attachment"));
        let text = file.text();
        for line in text.lines() {
            let first = line.trim_start_matches('"').chars().next().unwrap_or('x');
            assert!(!"=+-@\t".contains(first), "a formula: {line}");
            assert!(!line.contains(",=") && !line.contains(",\"="), "a formula: {line}");
        }
        if path.contains("utm_medium") {
            assert!(text.contains("'=cmd()"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_09_must_10_must_23_hostile_headers_are_stored_harmlessly_or_not_at_all() {
    let stack = builder().start().await;
    let client = stack.client();
    let target =
        "https://example.com/?utm_source=%3Cscript%3E&utm_medium=%3Dcmd()&utm_campaign=a%00%1Fb";
    let (id, code) = create_link(&client, &json!({"original_url": target})).await;
    let (odd, referrers) = (hostile_values(), hostile_referrers());
    let mut redirected = 0;
    for (name, values) in [
        ("User-Agent", &odd),
        ("Referer", &referrers),
        ("Accept-Language", &odd),
        ("Sec-GPC", &odd),
        ("Sec-Purpose", &odd),
    ] {
        for value in values {
            redirected += i64::from(visit(&client, &code, &[(name, value)]).await);
        }
    }
    assert!(redirected > 40, "{redirected} visits were redirected");
    assert!(
        !visit(&client, &code, &[("Referer", &vec![b'x'; 64 * 1024])]).await,
        "nginx rejects it"
    );
    assert_clicks_exactly(&stack, redirected).await;
    let dead = stack.workers[0].metrics().await.sum(metric::CLICKS_DEAD_LETTERS, &[]);
    assert_eq!(dead, 0.0, "PostgreSQL rejected a value");

    assert_stored_values_are_harmless(&stack).await;

    // Responses are valid JSON, and no CSV cell is a formula.
    let events = get_json(&stack, "/api/v1/events?event_type=click&limit=200").await;
    assert_eq!(i64::try_from(events.as_array().unwrap().len()).unwrap(), redirected.min(200));
    let stats = get_json(&stack, &format!("/api/v1/urls/{id}/stats?top=100")).await;
    let top = stats["top"]["referrer"].to_string();
    assert!(!top.contains("cmd()") && top.contains("\"xn--bcher-kva.example\""), "{top}");
    assert_files_contain_no_formula(&client, id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_14_visitors_are_not_counted_by_forged_addresses() {
    let stack = builder().start().await;
    let client = stack.client();
    let (id, code) = create_link(&client, &json!({"original_url": "https://example.com/"})).await;
    let forged: [&[(&str, &[u8])]; 8] = [
        &[],
        &[("X-Forwarded-For", b"192.0.2.1")],
        &[("X-Forwarded-For", b"192.0.2.2, 198.51.100.7")],
        &[("X-Forwarded-For", b"192.0.2.3"), ("X-Forwarded-For", b"192.0.2.4")],
        &[("X-Real-IP", b"192.0.2.5")],
        &[("Forwarded", b"for=192.0.2.6")],
        &[
            ("X-Linnet-Client", b"192.0.2.7"),
            ("CF-Connecting-IP", b"192.0.2.7"),
            ("True-Client-IP", b"192.0.2.7"),
        ],
        &[("X-Forwarded-For", b"\xff, <script>")],
    ];
    for headers in forged {
        assert!(visit(&client, &code, headers).await);
    }
    assert_clicks_exactly(&stack, i64::try_from(forged.len()).unwrap()).await;
    let hashes: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT visitor) FROM all_clicks WHERE visitor IS NOT NULL",
    )
    .fetch_one(&mut stack.database().await)
    .await
    .unwrap();
    assert_eq!(hashes, 1);
    let stats = get_json(&stack, &format!("/api/v1/urls/{id}/stats")).await;
    assert_eq!(stats["totals"]["unique_visitors"], 1);
}
