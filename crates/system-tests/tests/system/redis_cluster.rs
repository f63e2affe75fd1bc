//! A Redis Cluster: everything works with it, and neither a failover nor a slot that moves makes a process serve a stale
//! response for longer than a second.

use std::time::{Duration, Instant};

use linnet_system_tests::{
    Signal, Stack, eventually,
    expected::metric,
    stack::{redis_cluster::accepted, redis_group::command},
    within,
};
use redis::{RedisResult, Value as Reply, aio::MultiplexedConnection};
use serde_json::Value;

use crate::{
    jobs::support::{import, links_csv, wait_for_job_end},
    redis_failover::{
        assert_served, code_of, create_links, edit, start_redirects, wait_for_empty_outbox,
        wait_for_live_bus,
    },
};

const NEW: &str = "https://example.com/new";

async fn connect(port: u16) -> MultiplexedConnection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/0")).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// The names of all keys of a node.
async fn keys(port: u16) -> Vec<String> {
    redis::cmd("KEYS").arg("*").query_async(&mut connect(port).await).await.unwrap()
}

/// The commands that the node's access control list has denied.
async fn denied_commands(port: u16) -> Vec<String> {
    let denied: Vec<Reply> =
        redis::cmd("ACL").arg("LOG").query_async(&mut connect(port).await).await.unwrap();
    let denied = denied.iter().map(|entry| format!("{entry:?}"));
    // The client library names itself, which Redis 7.0 does not know.
    denied.filter(|entry| !entry.to_lowercase().contains("setinfo")).collect()
}

async fn l2_entry(port: u16, link: &Value) -> Option<String> {
    let key = format!("{{linnet}}:l:{}", code_of(link));
    let entry: RedisResult<Option<String>> =
        redis::cmd("GET").arg(key).query_async(&mut connect(port).await).await;
    entry.ok().flatten()
}

/// Asserts that the worker ingests a new click on the link.
async fn assert_click_is_ingested(stack: &Stack, link: &Value) {
    let ingested = async || stack.workers[0].metrics().await.sum(metric::CLICKS_INGESTED, &[]);
    let before = ingested().await;
    assert_eq!(stack.resolve_at(0, code_of(link)).await.0, 302);
    within(Duration::from_secs(20), "a click to be ingested", || async {
        ingested().await > before
    })
    .await;
}

/// Waits until every running node names another owner of the slot than `old`, and returns its port.
async fn wait_for_other_owner(stack: &mut Stack, old: u16) -> u16 {
    let first = stack.redis_port();
    let mut ports = Vec::new();
    if stack.redis.is_running() {
        ports.push(first);
    }
    let cluster = stack.redis_cluster.as_mut().unwrap();
    for (node, port) in &mut cluster.nodes {
        if node.is_running() {
            ports.push(*port);
        }
    }
    let slot = slot_of(stack).await;
    eventually(Duration::from_secs(30), "another owner of the slot", || async {
        let mut owners = Vec::new();
        for port in &ports {
            owners.push(owner_at(*port, slot).await);
        }
        owners.dedup();
        owners[0].filter(|owner| owners.len() == 1 && *owner != old)
    })
    .await
}

/// The slot of all keys, from a node that the tests never stop.
async fn slot_of(stack: &Stack) -> u16 {
    let port = stack.redis_cluster.as_ref().unwrap().nodes[0].1;
    let mut node = connect(port).await;
    redis::cmd("CLUSTER").arg("KEYSLOT").arg("{linnet}").query_async(&mut node).await.unwrap()
}

/// The port of the slot's owner, as a node sees it.
async fn owner_at(port: u16, slot: u16) -> Option<u16> {
    let mut node = connect(port).await;
    let ranges: Vec<Vec<Reply>> =
        redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut node).await.unwrap();
    for range in ranges {
        let [Reply::Int(first), Reply::Int(last), Reply::Array(master), ..] = &range[..] else {
            panic!("{range:?}");
        };
        if (*first..=*last).contains(&i64::from(slot)) {
            let Reply::Int(port) = master[1] else { panic!("{master:?}") };
            return u16::try_from(port).ok();
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_is_in_one_slot_and_the_cluster_refuses_no_command() {
    // The key of a quota lives until it is full again.
    let slow = "LINNET__LIMITS__USER_PER_MINUTE";
    let stack = Stack::builder().shorteners(2).workers(1).redis_cluster().env(slow, 1);
    let stack = stack.start().await;
    wait_for_live_bus(&stack).await;
    let links = create_links(&stack, 3).await;
    for link in &links {
        let visit = stack.client().anonymous().get(&format!("/{}", code_of(link)));
        assert_eq!(visit.send().await.status, 302);
        let path = format!("/api/v1/urls/{}/stats", link["id"]);
        within(Duration::from_secs(20), "the visitor to be counted", || async {
            let stats = stack.client().get(&path).send().await.json();
            stats["totals"]["unique_visitors"] == 1
        })
        .await;
    }
    let changed = edit(&stack, &links[0], NEW).await;
    assert_served(&stack, &links[0], NEW, changed, "in a cluster").await;
    let job = import(&stack.client(), links_csv("row", 2)).await;
    assert_eq!(wait_for_job_end(&stack.client(), job).await["rows_written"], 2);
    let (status, _, error) = stack.cli(&["preflight"]).await;
    assert_eq!(status, 0, "{error}");

    let cluster = stack.redis_cluster.as_ref().unwrap();
    let names = keys(stack.redis_port()).await;
    for kind in ["l:", "clicks", "jobs:", "v:", "rate:", "probe"] {
        let begin = format!("{{linnet}}:{kind}");
        assert!(names.iter().any(|name| name.starts_with(&begin)), "no {begin}: {names:?}");
    }
    for name in names {
        assert!(name.starts_with("{linnet}:"), "{name}");
    }
    for (_, port) in &cluster.nodes {
        let is_replica = *port == cluster.replica_of_first();
        assert_eq!(keys(*port).await.is_empty(), !is_replica, "node on port {port}");
    }
    for port in cluster.ports() {
        let errors = command(port, &["INFO", "errorstats"]).await;
        for error in ["CROSSSLOT", "MOVED", "ASK"] {
            assert!(!errors.contains(&format!("errorstat_{error}:")), "port {port}: {errors}");
        }
        assert_eq!(denied_commands(port).await, [""; 0], "port {port}");
    }
}

/// The replica lacks the last writes, whose changes have left the outbox.
// Long because the failover is observed from its begin to its end.
#[tokio::test]
async fn must_07_replica_of_a_cluster_that_takes_over_serves_no_stale_entry() {
    let mut stack = Stack::builder().shorteners(2).workers(1).redis_cluster().start().await;
    wait_for_live_bus(&stack).await;
    let links = create_links(&stack, 8).await;
    let (steady, edited) = links.split_at(4);
    let old = stack.redis_port();
    let replica = stack.redis_cluster.as_ref().unwrap().replica_of_first();
    for link in edited {
        within(Duration::from_secs(5), "a replicated entry", || async {
            let mut node = connect(replica).await;
            let _: RedisResult<Reply> = redis::cmd("READONLY").query_async(&mut node).await;
            let key = format!("{{linnet}}:l:{}", code_of(link));
            redis::cmd("EXISTS").arg(key).query_async(&mut node).await.unwrap_or(false)
        })
        .await;
    }
    // The replica logs in as a user that does not exist, so it stays as it is.
    accepted(replica, &["CONFIG", "SET", "masteruser", "absent"]).await;
    accepted(replica, &["CONFIG", "SET", "masterauth", "nothing"]).await;
    accepted(replica, &["CONFIG", "SET", "cluster-replica-validity-factor", "0"]).await;
    command(old, &["CLIENT", "KILL", "TYPE", "replica"]).await;
    within(Duration::from_secs(10), "a replica without its master", || async {
        command(replica, &["INFO", "replication"]).await.contains("master_link_status:down")
    })
    .await;
    for link in edited {
        let changed = edit(&stack, link, NEW).await;
        assert_served(&stack, link, NEW, changed, "before the failover").await;
    }
    wait_for_empty_outbox(&stack).await;

    let redirects = start_redirects(&stack, steady);
    redirects.wait_for_requests(100).await;
    stack.redis.kill().await;
    let slot = slot_of(&stack).await;
    let mut edits = 0;
    let killed = Instant::now();
    while owner_at(replica, slot).await != Some(replica) {
        let target = format!("https://example.com/during/{edits}");
        let changed = edit(&stack, &edited[0], &target).await;
        assert_served(&stack, &edited[0], &target, changed, "during the failover").await;
        edits += 1;
        assert!(killed.elapsed() < Duration::from_secs(30), "no failover");
    }
    assert_eq!(wait_for_other_owner(&mut stack, old).await, replica);
    wait_for_live_bus(&stack).await;
    let changed = edit(&stack, &edited[0], NEW).await;
    for link in edited {
        assert_served(&stack, link, NEW, changed, "after the failover").await;
    }
    let outcomes = redirects.finish().await;
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["302"], "{outcomes:?}");
    assert!(edits > 0, "no edit during the failover");
    assert!(l2_entry(replica, &edited[0]).await.is_some(), "the new master is not used");

    assert_click_is_ingested(&stack, &links[0]).await;
}

#[tokio::test]
async fn must_07_master_of_a_cluster_that_was_paused_serves_no_stale_entry() {
    let mut stack = Stack::builder().shorteners(2).redis_cluster().start().await;
    wait_for_live_bus(&stack).await;
    let links = create_links(&stack, 8).await;
    let old = stack.redis_port();
    stack.redis.signal(Signal::STOP);
    let cluster = stack.redis_cluster.as_ref().unwrap();
    let (replica, slot) = (cluster.replica_of_first(), slot_of(&stack).await);
    within(Duration::from_secs(30), "a failover", || async {
        owner_at(replica, slot).await == Some(replica)
    })
    .await;
    let redirects = start_redirects(&stack, &links[4..]);
    redirects.wait_for_requests(20).await;
    stack.redis.signal(Signal::CONT);
    // It accepts commands until it learns that it was replaced.
    for link in &links[..4] {
        let changed = edit(&stack, link, NEW).await;
        assert_served(&stack, link, NEW, changed, "after the pause").await;
    }
    assert_eq!(wait_for_other_owner(&mut stack, old).await, replica);
    wait_for_live_bus(&stack).await;
    let changed = Instant::now();
    for link in &links[..4] {
        assert_served(&stack, link, NEW, changed, "at the new master").await;
    }
    let outcomes = redirects.finish().await;
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["302"], "{outcomes:?}");
}

/// While a part of the slot has moved, the old owner still accepts changes of the other part, and messages.
#[tokio::test]
async fn must_07_slot_that_moves_to_another_master_makes_no_response_stale() {
    let mut stack = Stack::builder().shorteners(2).workers(1).redis_cluster().start().await;
    wait_for_live_bus(&stack).await;
    let links = create_links(&stack, 8).await;
    let (steady, edited) = links.split_at(4);
    let cluster = stack.redis_cluster.as_ref().unwrap();
    let (old, new, slot) = (stack.redis_port(), cluster.nodes[0].1, slot_of(&stack).await);
    let (old_id, new_id) = (cluster.id(old).await, cluster.id(new).await);
    let ports = cluster.ports();
    let slot = slot.to_string();
    let redirects = start_redirects(&stack, steady);
    redirects.wait_for_requests(20).await;
    accepted(new, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &old_id]).await;
    accepted(old, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &new_id]).await;
    // First the entries of links that are edited next, then everything.
    let moved: Vec<String> =
        edited[..2].iter().map(|link| format!("{{linnet}}:l:{}", code_of(link))).collect();
    migrate(old, new, &moved).await;
    for link in edited {
        let changed = edit(&stack, link, NEW).await;
        assert_served(&stack, link, NEW, changed, "while the slot moves").await;
    }
    let complete = async || {
        let mut node = connect(old).await;
        let get = redis::cmd("CLUSTER").arg("GETKEYSINSLOT").arg(&slot).arg(1_000).clone();
        let left: Vec<String> = get.query_async(&mut node).await.unwrap();
        migrate(old, new, &left).await;
        left.is_empty()
    };
    while !complete().await {}
    for port in [new, old].into_iter().chain(ports) {
        // Replicas learn it from their master.
        command(port, &["CLUSTER", "SETSLOT", &slot, "NODE", &new_id]).await;
    }
    for link in edited {
        let changed = edit(&stack, link, "https://example.com/moved").await;
        let target = "https://example.com/moved";
        assert_served(&stack, link, target, changed, "after the slot has moved").await;
    }
    assert_eq!(wait_for_other_owner(&mut stack, old).await, new);
    wait_for_live_bus(&stack).await;
    for link in edited {
        let changed = edit(&stack, link, "https://example.com/used").await;
        assert_served(&stack, link, "https://example.com/used", changed, "at the new owner").await;
        assert!(l2_entry(new, link).await.is_some(), "the new owner is not used");
    }
    let outcomes = redirects.finish().await;
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["302"], "{outcomes:?}");
    assert_click_is_ingested(&stack, &steady[0]).await;
}

/// Moves keys from one node to another.
async fn migrate(from: u16, to: u16, keys: &[String]) {
    if keys.is_empty() {
        return;
    }
    let mut migrate = redis::cmd("MIGRATE");
    migrate.arg("127.0.0.1").arg(to).arg("").arg(0).arg(5_000).arg("REPLACE").arg("KEYS");
    let reply: RedisResult<Reply> = migrate.arg(keys).query_async(&mut connect(from).await).await;
    reply.expect("moved keys");
}

#[tokio::test]
async fn links_and_changes_work_while_no_majority_of_nodes_responds() {
    let mut stack = Stack::builder().shorteners(2).redis_cluster().start().await;
    wait_for_live_bus(&stack).await;
    let links = create_links(&stack, 2).await;
    let is_replica = 2..;
    for (node, _) in &mut stack.redis_cluster.as_mut().unwrap().nodes[is_replica.clone()] {
        node.kill().await;
    }
    for shortener in 0..2 {
        within(Duration::from_secs(5), "a stale invalidation bus", || async {
            stack.shortener_metrics(shortener).await.sum(metric::INVALIDATION_BUS_LIVE, &[]) == 0.0
        })
        .await;
    }
    let changed = edit(&stack, &links[0], NEW).await;
    assert_served(&stack, &links[0], NEW, changed, "without a majority").await;
    for (node, _) in &mut stack.redis_cluster.as_mut().unwrap().nodes[is_replica] {
        node.start();
    }
    wait_for_live_bus(&stack).await;
    let changed = edit(&stack, &links[1], NEW).await;
    assert_served(&stack, &links[1], NEW, changed, "with a majority").await;
}
