//! Headers of every response, and the gateway's own pages.

use http::Method;

use super::support::{Gateway, KEY, Shortener, no_redis, raw, settings};

async fn gateway() -> (Shortener, Gateway) {
    let shortener = Shortener::start();
    let gateway = Gateway::start(settings(&no_redis(), &[&shortener])).await;
    (shortener, gateway)
}

#[actix_web::test]
async fn every_response_has_the_security_headers() {
    let (_shortener, gateway) = gateway().await;
    for path in ["/", "/health", "/docs/", "/openapi.json", "/nothing", "/api/v1/urls"] {
        let response = gateway.client.get(path).await;
        assert_eq!(response.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(response.header("referrer-policy"), "no-referrer", "{path}");
        assert!(
            response.header("content-security-policy").starts_with("default-src 'none'"),
            "{path}"
        );
        assert!(!response.header("permissions-policy").is_empty(), "{path}");
        assert!(response.headers.get("server").is_none(), "{path}");
        assert!(!response.header("x-request-id").is_empty(), "{path}");
    }
    let response = gateway.client.get_as(KEY, "/api/v1/urls").await;
    assert_eq!(response.header("cache-control"), "no-store");
}

#[actix_web::test]
async fn pages_are_served() {
    let (_shortener, gateway) = gateway().await;
    let page = gateway.client.get("/docs/").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html"));
    let script = gateway.client.get("/docs/swagger-initializer.js").await;
    assert!(String::from_utf8_lossy(&script.body).contains("/openapi.json"));
    assert!(script.header("content-security-policy").contains("script-src 'self'"));
    assert_eq!(gateway.client.get("/docs/swagger-ui-bundle.js").await.status, 200);
    assert_eq!(gateway.client.get("/docs/nothing.js").await.status, 404);
    let folder = gateway.client.get("/docs").await;
    assert_eq!((folder.status, folder.header("location")), (308, "/docs/"));

    let document = gateway.client.get("/openapi.json").await;
    assert!(document.json()["openapi"].as_str().unwrap().starts_with("3."));
    let tag = document.header("etag").to_owned();
    let again = [("if-none-match", tag.as_str())];
    let again = gateway.client.call(Method::GET, "/openapi.json", &again, b"").await;
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, tag.as_str()));
    assert!(String::from_utf8_lossy(&gateway.client.get("/").await.body).contains("/docs/"));
}

#[actix_web::test]
async fn must_24_metrics_are_on_the_admin_listener_only_and_labels_are_bounded() {
    let (_shortener, gateway) = gateway().await;
    assert_eq!(gateway.client.get("/metrics").await.status, 404);
    for n in 0..50 {
        gateway.client.get(&format!("/nothing/{n}")).await;
        gateway.client.get_as(KEY, &format!("/api/v1/urls/{n}")).await;
    }
    let text = String::from_utf8(gateway.admin.get("/metrics").await.body.to_vec()).unwrap();
    assert!(text.contains("http_route=\"/api/v1/urls/{id}\""), "{text}");
    assert!(!text.contains("/nothing/") && !text.contains("/urls/1"), "{text}");
    for name in [
        "linnet_gateway_upstream_up{upstream=\"0\"} 1",
        "linnet_gateway_breaker_state{upstream=\"0\"} 0",
        "linnet_gateway_auth_cache_hits_total 49",
        "linnet_gateway_auth_cache_misses_total 1",
        "linnet_gateway_limited_total{reason=\"key\"} 0",
        "linnet_gateway_limit_fallback 1",
        "linnet_gateway_invalidation_bus_live 0",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
}

#[actix_web::test]
async fn cors_headers_are_sent_to_allowed_origins_only() {
    let preflight = [("origin", "https://a.example"), ("access-control-request-method", "POST")];
    let (shortener, off) = gateway().await;
    let response = off.client.call(Method::OPTIONS, "/api/v1/urls", &preflight, b"").await;
    assert!(response.headers.get("access-control-allow-origin").is_none());

    let mut settings = settings(&no_redis(), &[&shortener]);
    settings.cors.allowed_origins = vec!["https://a.example".into()];
    let on = Gateway::start(settings).await;
    let response = on.client.call(Method::OPTIONS, "/api/v1/urls", &preflight, b"").await;
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), "https://a.example");
    assert!(response.header("access-control-allow-headers").contains("authorization"));
    assert_eq!(response.header("vary"), "origin");
    let real = [("origin", "https://a.example"), ("x-api-key", KEY)];
    let response = on.client.call(Method::GET, "/api/v1/urls", &real, b"").await;
    assert_eq!(response.header("access-control-allow-origin"), "https://a.example");
    assert!(response.header("access-control-expose-headers").contains("link"));
    for other in ["https://b.example", "https://a.example.evil", "null"] {
        let response = on.client.call(Method::GET, "/api/v1/urls", &[("origin", other)], b"").await;
        assert!(response.headers.get("access-control-allow-origin").is_none(), "{other}");
    }
}

#[actix_web::test]
async fn must_23_malformed_requests_are_a_4xx_and_never_a_5xx() {
    let (_shortener, gateway) = gateway().await;
    let key = format!("x-api-key: {KEY}\r\nconnection: close\r\n");
    let long = "a".repeat(64 * 1_024);
    let lines: Vec<Vec<u8>> = vec![
        b"GET /api/v1/urls/%ff%fe".to_vec(),
        b"GET /api/v1/urls/\xff\xfe".to_vec(),
        b"GET /api/v1/urls/%00".to_vec(),
        b"GET /api/v1/urls/..%2f..%2finternal".to_vec(),
        b"GET //api/v1/urls".to_vec(),
        b"GET /api/v1/urls?%ff=%fe&&==".to_vec(),
        format!("GET /{long}").into_bytes(),
        b"G\xc3\x89T /api/v1/urls".to_vec(),
        b"BREW /api/v1/urls".to_vec(),
        b"GET api".to_vec(),
    ];
    for line in &lines {
        let mut bytes = line.clone();
        bytes.extend_from_slice(format!(" HTTP/1.1\r\nhost: x\r\n{key}\r\n").as_bytes());
        let response = raw(&gateway.address, &bytes).await;
        let shown = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
        assert!(
            response.starts_with("HTTP/1.1 4") || response.starts_with("HTTP/1.1 200"),
            "{shown}: {response}"
        );
    }
    for headers in [
        format!("host: x\r\nx-big: {long}\r\n{key}"),
        format!("host: x\r\nx-big: {long}{long}{long}\r\n{key}"),
        format!("host: x\r\n{}{key}", "x-many: 1\r\n".repeat(80)),
        format!("host: x\r\n{}{key}", "x-many: 1\r\n".repeat(500)),
        format!("host: x\r\nhost: y\r\n{key}"),
        format!("host: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n{key}"),
        format!("host: x\r\ncontent-length: -1\r\n{key}"),
        format!("host: x\r\nx-api-key: \u{e9}\r\n{key}"),
    ] {
        let bytes = format!("GET /api/v1/urls HTTP/1.1\r\n{headers}\r\n");
        let response = raw(&gateway.address, bytes.as_bytes()).await;
        let shown = &headers[..headers.len().min(60)];
        assert!(
            response.starts_with("HTTP/1.1 4") || response.starts_with("HTTP/1.1 200"),
            "{shown}: {response}"
        );
    }
    assert_eq!(gateway.client.get("/health").await.status, 200);
}

#[actix_web::test]
async fn must_15_the_host_header_has_no_effect_on_the_gateway() {
    let (shortener, gateway) = gateway().await;
    let own = format!("\"host\":\"{}\"", shortener.address);
    for host in
        ["host: evil.example", "HOST: EVIL.EXAMPLE:99", "host: a\r\nhost: evil.example", "x: y"]
    {
        let bytes = format!(
            "GET /api/v1/urls HTTP/1.1\r\n{host}\r\nx-forwarded-host: evil.example\r\nx-api-key: {KEY}\r\nconnection: close\r\n\r\n"
        );
        let response = raw(&gateway.address, bytes.as_bytes()).await;
        let is_forwarded = response.starts_with("HTTP/1.1 200") && response.contains(&own);
        assert!(is_forwarded || response.starts_with("HTTP/1.1 4"), "{host}: {response}");
        assert!(!response.to_lowercase().contains("evil"), "{host}: {response}");
    }
}

#[actix_web::test]
async fn type_of_every_problem_leads_to_its_page() {
    let (_shortener, gateway) = gateway().await;
    let problem = gateway.client.get("/api/v1/nothing").await.json();
    let (_, path) = problem["type"].as_str().unwrap().split_at("http://localhost:8080".len());
    assert_eq!(path, "/problems/not_found");
    for code in linnet_protocol::problem_code::ProblemCode::ALL {
        let page = gateway.client.get(&format!("/problems/{}", code.as_str())).await;
        assert_eq!(page.status, 200);
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        let text = String::from_utf8(page.body.to_vec()).unwrap();
        assert!(text.contains(code.title()) && text.contains(code.as_str()), "{text}");
    }
    assert_eq!(gateway.client.get("/problems/").await.status, 200);
    assert_eq!(gateway.client.get("/problems/no_such").await.status, 404);
}
