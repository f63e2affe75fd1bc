//! Every layer carries the longest targets, titles and codes that the API accepts, with the longest request headers.

use linnet_system_tests::{Stack, client::BROWSER};
use serde_json::{Value, json};

/// The longest target, in bytes.
const LONGEST: usize = 8_192;

/// A target of exactly this many bytes.
fn target(length: usize) -> String {
    let start = "https://example.com/?q=";
    format!("{start}{}", "a".repeat(length - start.len()))
}

/// Lengths around the buffers of proxies (4 and 8 KiB, less a few headers) and around the limit.
fn lengths() -> impl Iterator<Item = usize> {
    let edges = [4_096_usize, LONGEST].map(|edge| (edge - 260..=edge).step_by(20));
    [100, 2_048, 5_000, 6_000, 7_000]
        .into_iter()
        .chain(edges.into_iter().flatten())
        .chain([LONGEST])
}

/// The longest request headers that nginx passes on.
fn long_headers() -> [(&'static str, String); 3] {
    [
        ("referer", format!("https://example.com/{}", "r".repeat(6_000))),
        ("accept-language", format!("de{}", ",en".repeat(1_500))),
        ("x-request-id", "i".repeat(3_000)),
    ]
}

async fn code_of(stack: &Stack, body: Value) -> String {
    stack.client().shorten(&body).await["short_code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn must_29_targets_of_every_length_resolve_on_every_path() {
    let stack = Stack::builder().shorteners(2).start().await;
    let visitor = stack.client().anonymous();
    for length in lengths() {
        let target = target(length);
        for status in [301, 302, 307, 308] {
            let plain = json!({"original_url": target, "redirect_status": status});
            let limited =
                json!({"original_url": target, "redirect_status": status, "max_clicks": 1});
            for body in [plain, limited] {
                let code = code_of(&stack, body.clone()).await;
                let mut visit = visitor.get(&format!("/{code}")).user_agent(BROWSER);
                for (name, value) in long_headers() {
                    visit = visit.header(name, &value);
                }
                let response = visit.send().await;
                assert_eq!(response.status, status, "{length} bytes, {}", body["max_clicks"]);
                assert_eq!(response.header("location"), Some(target.as_str()), "{length}");
            }
        }
    }
    // From L2, and from PostgreSQL with an empty L1.
    let code = code_of(&stack, json!({"original_url": target(LONGEST)})).await;
    for shortener in [0, 1, 0, 1] {
        assert_eq!(stack.resolve_at(shortener, &code).await, (302, Some(target(LONGEST))));
    }
    let too_long = json!({"original_url": target(LONGEST + 1)});
    stack.client().post("/api/v1/urls", &too_long).send().await.problem(422);
}

#[tokio::test]
async fn must_29_longest_link_passes_api_lists_exports_and_pages() {
    let stack = Stack::start().await;
    let client = stack.client();
    let title = "\u{1f600}".repeat(500);
    let code = "c".repeat(64);
    let target = target(LONGEST);
    let body = json!({"original_url": target, "title": title, "short_code": code});
    let link = client.shorten(&body).await;
    let path = format!("/api/v1/urls/{}", link["id"]);
    assert_eq!(client.get(&path).send().await.json()["original_url"], target);
    let patch = json!({"title": title, "original_url": target});
    assert_eq!(client.patch(&path, &patch).send().await.json()["title"], title);
    // The search is repeated in the `Link` header of the response.
    for _ in 0..2 {
        client.shorten(&json!({"original_url": target, "title": title})).await;
    }
    let search = "a".repeat(200);
    let list = client.get(&format!("/api/v1/urls?search={search}&per_page=1")).send().await;
    assert_eq!(list.status, 200, "{}", list.text());
    for format in ["csv", "ndjson"] {
        let export = client.get(&format!("/api/v1/urls/export?format={format}")).send().await;
        assert_eq!(export.status, 200, "{format}");
        assert!(export.text().contains(&target), "{format}");
    }
    let (status, location) = client.resolve(&code).await;
    assert_eq!((status, location.as_deref()), (302, Some(target.as_str())));
}
