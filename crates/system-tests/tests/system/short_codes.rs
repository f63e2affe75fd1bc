//! Uniqueness of short codes, and reserved words.

use std::{collections::HashMap, path::Path};

use linnet_system_tests::{Stack, services::workspace};
use serde_json::json;

#[tokio::test]
async fn must_06_hundred_concurrent_requests_for_one_code_create_one_link() {
    let stack = Stack::builder().shorteners(2).start().await;
    let client = stack.client();
    let post = |n: usize| {
        let target = format!("https://example.com/{n}");
        client.post("/api/v1/urls", &json!({"original_url": target, "short_code": "wanted"})).send()
    };
    let responses = futures::future::join_all((0..100).map(post)).await;
    let mut statuses: HashMap<u16, usize> = HashMap::new();
    for response in &responses {
        *statuses.entry(response.status).or_default() += 1;
    }
    assert_eq!(statuses, HashMap::from([(201, 1), (409, 99)]));
    let winner = responses.iter().find(|response| response.status == 201).unwrap().json();
    for response in responses.iter().filter(|response| response.status == 409) {
        assert_eq!(response.problem(409)["code"], "taken");
        assert_eq!(response.problem_fields(), ["short_code"]);
    }
    let (_, location) = client.resolve("wanted").await;
    assert_eq!(location.as_deref(), winner["original_url"].as_str());
    // Codes are case-sensitive, like the paths of URLs.
    let other = json!({"original_url": "https://example.com/other", "short_code": "Wanted"});
    assert_eq!(client.post("/api/v1/urls", &other).send().await.status, 201);
}

#[tokio::test]
async fn created_link_resolves_despite_a_negative_cache_entry() {
    let stack = Stack::builder().shorteners(2).start().await;
    for shortener in 0..2 {
        assert_eq!(stack.resolve_at(shortener, "not-yet").await.0, 404, "a negative cache entry");
    }
    let body = json!({"original_url": "https://example.com/", "short_code": "not-yet"});
    stack.client().shorten(&body).await;
    for shortener in 0..2 {
        linnet_system_tests::within(std::time::Duration::from_secs(1), "the new link", || async {
            stack.resolve_at(shortener, "not-yet").await.0 == 302
        })
        .await;
    }
}

/// The first path segments of nginx's locations that have the shape of a code.
fn routed_segments(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| line.trim_start().starts_with("location ")) {
            let Some(path) = line
                .split_whitespace()
                .find_map(|word| word.strip_prefix('/').or_else(|| word.strip_prefix("^/")))
            else {
                continue;
            };
            let segment = path.split(['/', '.']).next().unwrap_or_default();
            if !segment.is_empty() && !segment.starts_with('~') && !segment.starts_with('_') {
                found.push(segment.to_owned());
            }
        }
    }
    found
}

#[tokio::test]
async fn must_21_reserved_words_are_rejected_as_codes_whatever_their_case() {
    let stack = Stack::start().await;
    let client = stack.client();
    let mut words = routed_segments(&workspace().join("nginx"));
    for known in ["api", "docs", "metrics"] {
        assert!(words.iter().any(|word| word == known), "nginx routes {known}: {words:?}");
    }
    words.extend(
        [
            "admin", "openapi", "health", "livez", "readyz", "internal", "robots", "favicon",
            "login", "static",
        ]
        .map(ToOwned::to_owned),
    );
    let variants = |word: &str| {
        let mut mixed: Vec<char> = word.chars().collect();
        mixed[0] = mixed[0].to_ascii_uppercase();
        [word.to_owned(), word.to_ascii_uppercase(), mixed.into_iter().collect()]
    };
    let mut rows =
        "id,user_id,short_code,original_url,title,is_active,created_at,updated_at\n".to_owned();
    let mut id = 5_000;
    for word in words.iter().flat_map(|word| variants(word)) {
        let body = json!({"original_url": "https://example.com/", "short_code": word});
        let response = client.post("/api/v1/urls", &body).send().await;
        response.problem(422);
        assert_eq!(response.problem_fields(), ["short_code"], "{word}");
        id += 1;
        rows += &format!(
            "{id},{},{word},https://example.com/,t,True,2025-01-01 00:00:00,2025-01-01 00:00:00\n",
            stack.admin_id
        );
    }
    for odd in [".well-known", "robots.txt", "favicon.ico", "openapi.json", "docs/", "api%20"] {
        let body = json!({"original_url": "https://example.com/", "short_code": odd});
        client.post("/api/v1/urls", &body).send().await.problem(422);
    }
    let file = stack.folder().join("reserved.csv");
    std::fs::write(&file, rows).unwrap();
    let (_, out, error) = stack.cli(&["admin", "import", "--urls", file.to_str().unwrap()]).await;
    let links = client.get("/api/v1/urls").send().await.json();
    assert_eq!(links, json!([]), "{out}{error}");
}
