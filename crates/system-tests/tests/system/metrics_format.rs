//! `/metrics` of every process passes `promtool check metrics`.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use linnet_system_tests::{Process, Stack, eventually};
use serde_json::json;

/// Runs `promtool check metrics`. Returns its complaints; it exits with 3 for style and 1 for syntax.
fn complaints(text: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool; install it with `scripts/install-packages promtool`");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(output.status.success() || !printed.is_empty(), "{}", output.status);
    printed
}

async fn metrics_of(process: &Process) -> String {
    process.admin_get("/metrics").await.expect("/metrics").text()
}

#[tokio::test]
async fn metrics_of_every_process_pass_promtool() {
    let stack = Stack::builder().workers(1).start().await;
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    let code = link["short_code"].as_str().unwrap();
    assert_eq!(stack.client().resolve(code).await.0, 302);
    assert_eq!(stack.client().resolve("unknown9").await.0, 404);
    let path = format!("/api/v1/urls/{}", link["id"]);
    eventually(Duration::from_secs(20), "the click is recorded", || async {
        (stack.client().get(&path).send().await.json()["clicks"] == 1).then_some(())
    })
    .await;
    for process in stack.gateways.iter().chain(&stack.shorteners).chain(&stack.workers) {
        let text = metrics_of(process).await;
        assert!(text.contains("linnet_ready 1"), "{}: {text}", process.name());
        assert_eq!(complaints(&text), "", "{}", process.name());
    }
}

#[test]
fn promtool_finds_a_counter_without_total() {
    let text = "# HELP a_requests Requests.\n# TYPE a_requests counter\na_requests 1\n";
    assert!(complaints(text).contains("_total"));
}
