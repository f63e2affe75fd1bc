//! Malformed requests, internal paths, and the number of metric series.

use futures::{StreamExt, stream};
use linnet_system_tests::{Stack, raw};
use serde_json::json;

const MALFORMED_PATHS: [&[u8]; 50] = [
    b"/\xff\xfe",
    b"/%ff%fe",
    b"/\xc3\x28",
    b"/%c3%28",
    b"/caf\xc3\xa9",
    "/аbc".as_bytes(),
    "/cafe\u{301}".as_bytes(),
    "/ａｂｃ".as_bytes(),
    b"/abc%00",
    b"/%00",
    b"/abc\x00",
    b"/abc\x01",
    b"/abc\x7f",
    b"//",
    b"//abc",
    b"/abc//",
    b"/abc//",
    b"/../",
    b"/../abc",
    b"/..%2fabc",
    b"/abc/../../etc/passwd",
    b"/%2e%2e/%2e%2e/etc/passwd",
    b"/./x",
    b"/abc;x",
    b"/abc%",
    b"/abc%zz",
    b"/%u0061bc",
    b"/a%20b",
    b"/a b",
    b"/<script>alert(1)</script>",
    b"/${jndi:ldap://x}",
    b"/'%20OR%201=1",
    b"*",
    b"abc",
    b"http://",
    b"/api/v1/urls/%00",
    b"/api/v1/urls/\xff",
    b"/api/v1/urls/%ff",
    b"/api/v1/urls?search=%00",
    b"/api/v1/urls?search=%ff",
    b"/api/v1/urls?%00=%00",
    b"/api//v1/urls",
    b"/api/v1/../../internal/v1/health",
    b"/api/v1/%2e%2e/%2e%2e/internal/v1/health",
    b"/api/v1/urls/..",
    b"/api/v1/nothing",
    b"/api",
    b"/docs/../api",
    b"/docs/%2e%2e%2f%2e%2e%2fetc/passwd",
    b"/_linnet/page",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_23_malformed_paths_get_4xx_and_never_5xx() {
    let stack = Stack::start().await;
    let address = stack.client().address();
    stack
        .client()
        .shorten(&json!({"original_url": "https://example.com/", "short_code": "abc"}))
        .await;
    let long = |n: usize| [b"/".as_slice(), &vec![b'a'; n]].concat();
    let mut paths: Vec<Vec<u8>> = MALFORMED_PATHS.into_iter().map(<[u8]>::to_vec).collect();
    paths.extend([65, 1_000, 4_000, 8_000, 9_000, 40_000, 70_000].map(long));
    let key = format!("X-Api-Key: {}", stack.admin_key);
    for path in &paths {
        let response = raw::get(address, path, &[&key]).await;
        let shown: String = String::from_utf8_lossy(path).chars().take(60).collect();
        let status = response.status.unwrap_or_else(|| panic!("{shown:?}: no response"));
        let is_client_error = (400..500).contains(&status);
        assert!(
            is_client_error,
            "{shown:?}: {}",
            response.text.chars().take(300).collect::<String>()
        );
        assert!(!response.text.contains("nginx/"), "{shown:?} reveals nginx's version");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_23_malformed_requests_get_4xx_and_never_5xx() {
    let stack = Stack::start().await;
    let address = stack.client().address();
    let big = format!("X-Big: {}", "x".repeat(64 * 1024));
    let many: Vec<String> = (0..2_000).map(|n| format!("X-H{n}: {n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let half: Vec<String> = (0..150).map(|n| format!("X-H{n}: {n}")).collect();
    let half: Vec<&str> = half.iter().map(String::as_str).collect();
    for path in [b"/abc".as_slice(), b"/api/v1/urls", b"/health"] {
        for headers in [vec![big.as_str()], many.clone(), vec!["Cookie: \u{1}"], vec!["X:\0"]] {
            let response = raw::get(address, path, &headers).await;
            let name: String = headers[0].chars().take(10).collect();
            let status = response.status.unwrap_or_else(|| panic!("{name}: no response"));
            let shown = String::from_utf8_lossy(path);
            assert!(status < 500, "{shown} {name}: {}", response.text);
        }
        let status = raw::get(address, path, &half).await.status.unwrap();
        assert!(status < 500, "150 headers: {status}");
    }
    for request in [
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03".as_slice(),
        b"GET\r\n\r\n",
        b"GET /abc\r\n\r\n",
        b"GET /abc HTTP/9.9\r\nHost: x\r\n\r\n",
        b"BREW /abc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"TRACE /abc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /abc HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
        b"POST /api/v1/urls HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/urls HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST /api/v1/urls HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/v1/urls HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"DELETE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"PUT /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ] {
        let response = raw::exchange(address, request).await;
        let shown = String::from_utf8_lossy(request).into_owned();
        // A request other than HTTP/1 may get a response without a status line, or none.
        let status = response.status.unwrap_or(400);
        assert!((400..500).contains(&status), "{shown:?}: {}", response.text);
    }
    assert_eq!(stack.client().get("/health").send().await.status, 200, "healthy afterwards");
}

#[tokio::test]
async fn must_24_internal_paths_are_unreachable_from_outside() {
    let stack = Stack::start().await;
    let address = stack.client().address();
    let key = format!("X-Api-Key: {}", stack.admin_key);
    let token = "x-linnet-service-token: system-tests-0123456789abcdef0123456789";
    for path in [
        "/metrics",
        "/metrics/",
        "/METRICS",
        "/Metrics",
        "//metrics",
        "/./metrics",
        "/%6detrics",
        "/%6D%65trics",
        "/metrics%00",
        "/metrics?x",
        "/metrics;x",
        "/docs/../metrics",
        "/api/../metrics",
        "/livez",
        "/LiveZ",
        "/readyz",
        "//readyz",
        "/internal",
        "/internal/",
        "/internal/v1/health",
        "/INTERNAL/v1/health",
        "//internal/v1/health",
        "/%69nternal/v1/health",
        "/api/../internal/v1/health",
        "/api/v1/../../internal/v1/health",
        "/docs/..%2finternal/v1/health",
        "/api/v1/metrics",
        "/api/internal/v1/health",
        "/nginx_status",
        "/stub_status",
        "/server-status",
        "/.git/config",
        "/.env",
    ] {
        let response = raw::get(address, path.as_bytes(), &[&key, token]).await;
        let status = response.status.unwrap();
        assert!(matches!(status, 400 | 404), "{path}: {}", response.text);
        for secret in
            ["http_server_request_duration", "process_resident", "\"checks\"", "\"ready\""]
        {
            assert!(!response.text.contains(secret), "{path}");
        }
    }
    let request = format!(
        "POST /internal/v1/keys/lookup HTTP/1.1\r\nHost: x\r\n{token}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    assert_eq!(raw::exchange(address, request.as_bytes()).await.status, Some(404));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_24_number_of_metric_series_does_not_grow_with_requests() {
    let stack = Stack::start().await;
    let client = stack.client();
    let visit = |range: std::ops::Range<u32>| {
        let client = client.clone();
        async move {
            stream::iter(range)
                .for_each_concurrent(64, |n| {
                    let client = &client;
                    async move {
                        client.resolve(&format!("series{n}")).await;
                        if n % 20 == 0 {
                            let agent = format!("Agent/{n}");
                            client
                                .get(&format!("/api/v1/urls/{n}"))
                                .user_agent(&agent)
                                .send()
                                .await;
                            client.get(&format!("/api/v1/nothing{n}")).send().await;
                            let method = format!("M{n}").parse().unwrap();
                            client.request(method, "/api/v1/urls").send().await;
                        }
                    }
                })
                .await;
        }
    };
    visit(0..400).await;
    let keys = || async {
        let mut all = Vec::new();
        for process in stack.shorteners.iter().chain(&stack.gateways) {
            all.push(process.metrics().await.series_keys());
        }
        all
    };
    let before = keys().await;
    visit(400..20_400).await;
    let after = keys().await;
    for (before, after) in before.iter().zip(&after) {
        let new: Vec<_> = after.difference(before).collect();
        assert!(new.is_empty(), "new series: {new:?}");
        assert!(after.iter().all(|key| !key.contains("series") && !key.contains("nothing")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_23_bytes_that_no_parser_accepts_are_a_problem_under_api() {
    let stack = Stack::start().await;
    let address = stack.client().address();
    let key = format!("X-Api-Key: {}", stack.admin_key);
    let paths: [&[u8]; 10] = [
        "/api/v1/urls?search=東京".as_bytes(),
        b"/api/v1/urls?search=\xff",
        b"/api/v1/urls?search=\"x",
        b"/api/v1/urls?search=<x",
        b"/api/v1/urls?search=x>",
        b"/api/v1/urls/<x>",
        b"/api/v1/urls/\"x\"",
        b"/api/v1/urls/`x`",
        "/api/v1/urls/東".as_bytes(),
        b"/api/v1/urls/bulk?x=\"",
    ];
    for path in paths {
        let shown = String::from_utf8_lossy(path);
        let response = raw::get(address, path, &[&key]).await;
        assert_eq!(response.status, Some(400), "{shown}: {}", response.text);
        let text = response.text.to_ascii_lowercase();
        for part in
            ["content-type: application/problem+json", "x-request-id: ", "\"code\":\"bad_request\""]
        {
            assert!(text.contains(part), "{shown} without {part}: {}", response.text);
        }
    }
    // Other characters reach the API, and short links are as before.
    for path in
        [b"/api/v1/urls?search={x}|^`\\".as_slice(), b"/api/v1/urls?search=%E6%9D%B1%E4%BA%AC"]
    {
        let response = raw::get(address, path, &[&key]).await;
        assert_eq!(response.status, Some(200), "{}", response.text);
    }
    for path in ["/東京".as_bytes(), b"/<x>", b"/\"x\"", b"/abc?x=\"<>"] {
        let response = raw::get(address, path, &[]).await;
        assert!(!response.text.contains("application/problem+json"), "{}", response.text);
    }
}

#[tokio::test]
async fn must_23_transfer_encoding_that_nginx_does_not_support_has_its_code_and_page() {
    let stack = Stack::start().await;
    let request = b"POST /api/v1/urls HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
        Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    let response = raw::exchange(stack.client().address(), request).await;
    assert_eq!(response.status, Some(501), "{}", response.text);
    assert!(response.text.contains("\"code\":\"not_implemented\""), "{}", response.text);
    for code in
        ["not_implemented", "timeout", "request_timeout", "uri_too_long", "headers_too_large"]
    {
        let page = stack.client().get(&format!("/problems/{code}")).send().await;
        assert_eq!(page.status, 200, "{code}");
    }
}
