//! Statistics, lists and exports from a replica: each contains every acknowledged write.

use std::time::Duration;

use linnet_system_tests::{Stack, redis_proxy::Mode, within};
use serde_json::json;

const WAIT: Duration = Duration::from_secs(30);
const READS: &str = "linnet_db_replica_reads_total";

/// The reads of all shorteners that this server has answered.
async fn reads_from(stack: &Stack, target: &str) -> f64 {
    let mut sum = 0.0;
    for shortener in &stack.shorteners {
        sum += shortener.metrics().await.sum(READS, &[("target", target)]);
    }
    sum
}

/// Creates a link, and asserts that the next list, statistics and export contain it. The requests go to either
/// shortener.
async fn assert_own_write_is_read(stack: &Stack) {
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let (id, code) = (&link["id"], link["short_code"].as_str().unwrap());
    let list = client.get(&format!("/api/v1/urls?search={code}")).send().await;
    assert_eq!(list.status, 200, "{}", list.text());
    assert!(list.text().contains(code), "{code} is not in {}", list.text());
    let stats = client.get(&format!("/api/v1/urls/{id}/stats")).send().await;
    assert_eq!(stats.status, 200, "{}", stats.text());
    let events = client.get(&format!("/api/v1/events?url_id={id}")).send().await;
    assert!(events.text().contains("created"), "{}", events.text());
    let export = client.get(&format!("/api/v1/urls/export?search={code}")).send().await;
    assert!(export.text().contains(code), "{code} is not in {}", export.text());
}

/// Waits until every server thread of both shorteners writes to the new primary: each has a pool of its own.
async fn wait_until_all_write(stack: &Stack) {
    let body = json!({"original_url": "https://example.com/"});
    within(WAIT, "50 creates in a row to succeed", || async {
        for _ in 0..50 {
            let created = stack.client().post("/api/v1/urls", &body).try_send().await;
            if !created.is_ok_and(|response| response.status == 201) {
                return false;
            }
        }
        true
    })
    .await;
}

async fn wait_until_replica_is_read(stack: &Stack) {
    let before = reads_from(stack, "replica").await;
    within(WAIT, "reads from the replica", || async {
        assert_own_write_is_read(stack).await;
        reads_from(stack, "replica").await > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_from_the_replica_contain_every_acknowledged_write() {
    let mut stack = Stack::builder().shorteners(2).replica().start().await;
    wait_until_replica_is_read(&stack).await;
    for _ in 0..20 {
        assert_own_write_is_read(&stack).await;
    }

    // A replica that receives the WAL and does not replay it.
    let mut superuser = stack.postgres_group().superuser(1).await;
    sqlx::raw_sql("SELECT pg_wal_replay_pause()").execute(&mut superuser).await.unwrap();
    let before = reads_from(&stack, "primary").await;
    for _ in 0..3 {
        assert_own_write_is_read(&stack).await;
    }
    assert!(reads_from(&stack, "primary").await >= before + 12.0);
    sqlx::raw_sql("SELECT pg_wal_replay_resume()").execute(&mut superuser).await.unwrap();
    wait_until_replica_is_read(&stack).await;

    // One that falls silent.
    stack.postgres_group().proxies[1].set(Mode::BlackHole);
    for _ in 0..3 {
        assert_own_write_is_read(&stack).await;
    }
    stack.postgres_group().proxies[1].set(Mode::Pass);
    wait_until_replica_is_read(&stack).await;

    // One of another timeline, after a failover that it does not follow, and one that becomes the primary.
    stack.kill_postgres().await;
    stack.promote(2).await;
    wait_until_all_write(&stack).await;
    let before = reads_from(&stack, "replica").await;
    for _ in 0..3 {
        assert_own_write_is_read(&stack).await;
    }
    stack.promote(1).await;
    for _ in 0..3 {
        assert_own_write_is_read(&stack).await;
    }
    assert_eq!(reads_from(&stack, "replica").await, before);
}
