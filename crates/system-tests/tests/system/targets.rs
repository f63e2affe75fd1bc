//! Rules for targets on create, edit and import, and redirects that visitors cannot influence.

use linnet_system_tests::{Client, Stack};
use serde_json::json;

/// Asserts that create, create with reuse, `PATCH`, `PUT` and the bulk change reject a target.
async fn assert_rejected_by_api(client: &Client, id: &serde_json::Value, target: &str) {
    let path = format!("/api/v1/urls/{id}");
    let change = json!({"original_url": target});
    let bulk = json!({"ids": [id], "change": change});
    for (request, field) in [
        (client.post("/api/v1/urls", &change), "original_url"),
        (
            client.post("/api/v1/urls", &json!({"original_url": target, "reuse": true})),
            "original_url",
        ),
        (client.patch(&path, &change), "original_url"),
        (client.put(&path, &change), "original_url"),
        (client.patch("/api/v1/urls/bulk", &bulk), "change.original_url"),
    ] {
        let response = request.send().await;
        response.problem(422);
        assert_eq!(response.problem_fields(), [field], "{target:?}");
    }
    let now = client.get(&path).send().await.json();
    assert_eq!(now["original_url"], "https://example.com/", "{target:?} changed the link");
}

/// Asserts that an import of these targets creates no link.
async fn assert_rejected_by_import(stack: &Stack, targets: &[&str]) {
    let file = stack.folder().join("urls.csv");
    let mut text =
        "id,user_id,short_code,original_url,title,is_active,created_at,updated_at\n".to_owned();
    for (n, target) in targets.iter().enumerate() {
        let quoted = target.replace('"', "\"\"");
        let line = format!(
            "{},{},Imp{n:03},\"{quoted}\",t,True,2025-01-01 00:00:00,2025-01-01 00:00:00\n",
            1_000 + n,
            stack.admin_id
        );
        text.push_str(&line);
    }
    std::fs::write(&file, text).unwrap();
    let (_, out, error) = stack.cli(&["admin", "import", "--urls", file.to_str().unwrap()]).await;
    let client = stack.client();
    for (n, target) in targets.iter().enumerate() {
        let code = format!("Imp{n:03}");
        assert_eq!(client.resolve(&code).await.0, 404, "{target}: {out}{error}");
    }
    let links = client.get("/api/v1/urls?search=Imp").send().await.json();
    assert_eq!(links, json!([]), "{out}{error}");
}

#[tokio::test]
async fn must_03_targets_need_an_allowed_scheme_wherever_they_enter() {
    let stack = Stack::start().await;
    let client = stack.client();
    let id = client.shorten(&json!({"original_url": "https://example.com/"})).await["id"].clone();
    let bad = [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "\tjavascript:alert(1)",
        "java\nscript:alert(1)",
        "java\0script:alert(1)",
        "\u{1}javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "file:///etc/passwd",
        "vbscript:x",
        "ftp://example.com/",
        "https:",
        "//example.com/",
        "example.com",
        "",
        " ",
    ];
    for target in bad {
        assert_rejected_by_api(&client, &id, target).await;
    }
    let importable: Vec<_> = bad.into_iter().filter(|target| !target.contains('\0')).collect();
    assert_rejected_by_import(&stack, &importable).await;
}

#[tokio::test]
async fn must_04_target_cannot_be_this_installation() {
    let stack = Stack::builder().env("LINNET__PUBLIC__OWN_HOSTS", "bücher.test").start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let code = link["short_code"].as_str().unwrap();
    let own = [
        format!("http://lnt.test/{code}"),
        "https://LNT.test:8443/x".into(),
        "http://lnt.test./x".into(),
        "http://user@lnt.test/x".into(),
        "http://lnt%2Etest/x".into(),
        "http://ｌｎｔ.test/x".into(),
        "http://lnt\u{3002}test/x".into(),
        "http:\\\\lnt.test\\x".into(),
        "http://xn--bcher-kva.test/".into(),
        "http://BÜCHER.test/".into(),
    ];
    for target in &own {
        assert_rejected_by_api(&client, &link["id"], target).await;
    }
    let own: Vec<_> = own.iter().map(String::as_str).collect();
    assert_rejected_by_import(&stack, &own).await;
    let other_host = json!({"original_url": "http://lnt.test.example/"});
    assert_eq!(client.post("/api/v1/urls", &other_host).send().await.status, 201);
}

#[tokio::test]
async fn must_02_visitor_input_never_changes_the_target() {
    let stack = Stack::start().await;
    let client = stack.client();
    let target = "https://example.com/path?q=1";
    let body = json!({"original_url": target, "short_code": "visit-me"});
    client.shorten(&body).await;
    let address = client.address();
    let tries: [&[u8]; 12] = [
        b"/visit-me?//evil.example",
        b"/visit-me?next=https://evil.example/",
        b"/visit-me/a/..//evil.example",
        b"/visit-me//evil.example",
        b"/visit-me/..//evil.example",
        b"/visit-me@evil.example",
        b"/visit-me%0d%0aLocation:%20https://evil.example/",
        b"/visit-me?%0d%0aLocation:%20https://evil.example/",
        b"/visit-me\\evil.example",
        b"//evil.example/visit-me",
        b"/visit-me%2f%2fevil.example",
        b"http://evil.example/visit-me",
    ];
    for path in tries {
        let response = linnet_system_tests::raw::get(address, path, &[]).await;
        let shown = String::from_utf8_lossy(path);
        let status = response.status.unwrap();
        assert!(matches!(status, 302 | 400 | 404), "{shown}: {}", response.text);
        let locations: Vec<_> = response
            .text
            .lines()
            .filter(|l| l.to_ascii_lowercase().starts_with("location:"))
            .collect();
        let wanted = format!("location: {target}");
        assert!(
            locations.iter().all(|l| l.eq_ignore_ascii_case(&wanted)),
            "{shown}: {locations:?}"
        );
        assert_eq!(locations.len(), usize::from(status == 302), "{shown}");
        assert!(!response.text.contains("evil"), "{shown}: the response echoes the request");
    }
}
