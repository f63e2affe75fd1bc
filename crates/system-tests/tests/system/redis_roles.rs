//! Redis accepts each role of `scripts/redis-acl.sh` for its own keys and commands only.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, time::Duration};

use linnet_system_tests::{
    Stack, eventually,
    services::{self, free_port},
};
use serde_json::json;

/// Sends a command as a role. Returns the code of the error, such as `NOPERM`.
async fn error_of(url: &str, command: &[&str]) -> Option<String> {
    let client = redis::Client::open(url).unwrap();
    let mut connection = match client.get_multiplexed_async_connection().await {
        Ok(connection) => connection,
        Err(error) => return Some(error.to_string()),
    };
    let mut words = redis::cmd(command[0]);
    for word in &command[1..] {
        words.arg(*word);
    }
    let reply: redis::RedisResult<redis::Value> = words.query_async(&mut connection).await;
    reply.err().map(|error| error.code().map_or_else(|| error.to_string(), ToOwned::to_owned))
}

#[tokio::test]
async fn redis_rejects_clients_without_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let env = BTreeMap::from([("LINNET_REDIS_OPEN".to_owned(), "0".to_owned())]);
    let _server = services::redis(folder.path(), port, &env);
    eventually(Duration::from_secs(20), "the operator to be accepted", || async {
        let url = std::fs::read_to_string(folder.path().join("redis/url-operator")).ok()?;
        error_of(url.trim(), &["PING"]).await.is_none().then_some(())
    })
    .await;
    let refused = error_of(&format!("redis://127.0.0.1:{port}/0"), &["PING"]).await;
    assert!(refused.is_some_and(|error| error.contains("NOAUTH")), "accepted without a password");
    let wrong = format!("redis://gateway:wrong@127.0.0.1:{port}/0");
    assert!(error_of(&wrong, &["PING"]).await.is_some(), "accepted with a wrong password");
}

#[tokio::test]
async fn each_role_reaches_only_its_own_keys_and_commands() {
    let stack = Stack::builder().workers(1).start().await;
    let set = |key: &'static str| ["SET", key, "x", "PX", "1000"];
    let cases: [(&str, &[&str], bool); 20] = [
        ("gateway", &set("linnet:rate:a:0"), true),
        ("gateway", &set("l:abc"), false),
        ("gateway", &["XADD", "linnet:clicks", "*", "b", "x"], false),
        ("gateway", &["PUBLISH", "linnet:changes", "k x"], true),
        ("gateway", &["FLUSHALL"], false),
        ("gateway", &["KEYS", "*"], false),
        ("shortener", &set("l:abc"), true),
        ("shortener", &set("linnet:rate:a:0"), false),
        ("shortener", &["CONFIG", "SET", "maxmemory", "1"], false),
        ("shortener", &["FLUSHALL"], false),
        ("shortener", &["ACL", "LIST"], false),
        ("worker", &["PFADD", "linnet:v:20261127:1", "x"], true),
        ("worker", &["SHUTDOWN", "NOSAVE"], false),
        ("worker", &["PUBLISH", "other", "x"], false),
        ("exporter", &["INFO"], true),
        ("exporter", &["XLEN", "linnet:clicks"], true),
        ("exporter", &set("linnet:clicks:x"), false),
        ("exporter", &["GET", "l:abc"], false),
        ("exporter", &["DEL", "linnet:clicks"], false),
        ("operator", &["CONFIG", "GET", "maxmemory"], true),
    ];
    for (role, command, is_allowed) in cases {
        let error = error_of(&stack.redis_url(role), command).await;
        let expected = (!is_allowed).then(|| "NOPERM".to_owned());
        assert_eq!(error, expected, "{role} {command:?}");
    }
}

#[tokio::test]
async fn no_process_needs_a_command_that_its_role_lacks() {
    let stack = Stack::builder().workers(1).start().await;
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    let code = link["short_code"].as_str().unwrap();
    assert_eq!(stack.client().resolve(code).await.0, 302);
    let path = format!("/api/v1/urls/{}", link["id"]);
    eventually(Duration::from_secs(20), "the click is recorded", || async {
        let link = stack.client().get(&path).send().await.json();
        (link["clicks"] == 1).then_some(())
    })
    .await;
    let client = redis::Client::open(stack.redis_url("operator")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let denied: Vec<Vec<redis::Value>> =
        redis::cmd("ACL").arg("LOG").query_async(&mut redis).await.unwrap();
    // The client library names itself, which Redis 7.0 does not know.
    let denied: Vec<String> = denied
        .iter()
        .map(|entry| format!("{entry:?}"))
        .filter(|entry| !entry.to_lowercase().contains("setinfo"))
        .collect();
    assert!(denied.is_empty(), "{denied:?}");
}

#[tokio::test]
async fn sockets_spool_and_logs_are_not_for_other_users() {
    let stack = Stack::start().await;
    for name in ["r0", "a0", "g0", "sa0"] {
        let mode = std::fs::metadata(stack.folder().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0, "{name}: {mode:o}");
    }
    let spool = stack.folder().join("spool");
    for path in [spool.clone(), spool.join("0"), spool.join("0/lock")] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0, "{}: {mode:o}", path.display());
    }
}

#[tokio::test]
async fn entry_with_a_version_beyond_the_sequence_is_neither_used_nor_kept() {
    let stack = Stack::builder().shorteners(2).start().await;
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/true"})).await;
    let code = link["short_code"].as_str().unwrap();
    let target = |path: &str| (302, Some(format!("https://example.com/{path}")));
    assert_eq!(stack.resolve_at(0, code).await, target("true"));
    let key = format!("l:{code}");
    let client = redis::Client::open(stack.redis_url("shortener")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let entry: String = redis::cmd("GET").arg(&key).query_async(&mut redis).await.unwrap();
    let forged = format!("{}{}", i64::MAX, entry[19..].replace("/true", "/evil"));
    assert!(forged.contains("/evil"), "{entry}");
    let set = redis::cmd("SET").arg(&key).arg(forged).arg("EX").arg(600).to_owned();
    let _: () = set.query_async(&mut redis).await.unwrap();

    assert_eq!(stack.resolve_at(1, code).await, target("true"));
    let entry: String = redis::cmd("GET").arg(&key).query_async(&mut redis).await.unwrap();
    assert!(!entry.contains("/evil"), "{entry}");
    // An edit replaces the entry, whatever its version.
    let path = format!("/api/v1/urls/{}", link["id"]);
    let edit = json!({"original_url": "https://example.com/edited"});
    assert_eq!(stack.client().patch(&path, &edit).send().await.status, 200);
    for shortener in [0, 1] {
        eventually(Duration::from_secs(1), "the edit takes effect", || async {
            (stack.resolve_at(shortener, code).await == target("edited")).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn every_process_reports_that_redis_refuses_writes() {
    let stack = Stack::builder().workers(1).start().await;
    let client = redis::Client::open(stack.redis_url("operator")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut config = async |key: &str, value: &str| {
        let set = redis::cmd("CONFIG").arg("SET").arg(key).arg(value).to_owned();
        let _: () = set.query_async(&mut redis).await.unwrap();
    };
    config("maxmemory-policy", "noeviction").await;
    config("maxmemory", "1").await;
    let processes = || stack.gateways.iter().chain(&stack.shorteners).chain(&stack.workers);
    for process in processes() {
        let what = format!("{} reports OOM", process.name());
        eventually(Duration::from_secs(10), &what, || async {
            let ready = process.admin_get("/readyz").await?.text();
            let metrics = process.admin_get("/metrics").await?.text();
            let counts = metrics.contains("linnet_readiness_check{check=\"redis\",state=\"up\"} 0");
            (ready.contains("refuses writes: OOM") && counts).then_some(())
        })
        .await;
    }
    config("maxmemory", "100mb").await;
    for process in processes() {
        let what = format!("{} uses Redis again", process.name());
        eventually(Duration::from_secs(10), &what, || async {
            let metrics = process.admin_get("/metrics").await?.text();
            metrics.contains("linnet_readiness_check{check=\"redis\",state=\"up\"} 1").then_some(())
        })
        .await;
    }
}
