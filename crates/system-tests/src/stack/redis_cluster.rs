//! A Redis Cluster of three masters with a replica each, as processes on free ports.

use std::{collections::BTreeMap, path::Path, time::Duration};

use crate::{process::Process, wait::within};

use super::{
    redis_group::{command, copy_passwords},
    servers::{CLUSTER_PORT, start_redis},
};

/// Masters, and as many replicas.
const MASTERS: usize = 3;
const RANGES: [(u16, u16); MASTERS] = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which the nodes consider a silent one down.
const NODE_TIMEOUT_MS: &str = "1000";

/// The nodes of a stack's cluster but the first one, which the stack holds. Keys of Linnet are in a slot of the first one.
#[derive(Debug)]
pub struct RedisCluster {
    first: u16,
    /// Two masters, then the replicas of the first, the second and the third master, each with its port.
    pub nodes: Vec<(Process, u16)>,
}

/// The variables with which a Redis is a node of a cluster.
pub(super) fn node_env() -> BTreeMap<String, String> {
    let timeout = "LINNET_REDIS_CLUSTER_NODE_TIMEOUT_MS".to_owned();
    // `start_redis` replaces the port.
    BTreeMap::from([(CLUSTER_PORT.to_owned(), String::new()), (timeout, NODE_TIMEOUT_MS.into())])
}

impl RedisCluster {
    /// Starts the nodes besides the one on port `first`, whose files are in `folder`, and makes all of them a cluster.
    pub(super) async fn start(folder: &Path, first: u16, env: &BTreeMap<String, String>) -> Self {
        let mut nodes = Vec::new();
        for number in 1..2 * MASTERS {
            let home = folder.join(format!("node{number}"));
            copy_passwords(folder, &home);
            let (process, port, _) = start_redis(&home, env).await;
            nodes.push((process, port));
        }
        let cluster = Self { first, nodes };
        cluster.assign_slots().await;
        cluster.meet().await;
        cluster.replicate().await;
        cluster
    }

    /// The ports of all nodes.
    pub fn ports(&self) -> Vec<u16> {
        let others = self.nodes.iter().map(|(_, port)| *port);
        std::iter::once(self.first).chain(others).collect()
    }

    /// The node that is a replica of the first one at the start.
    pub fn replica_of_first(&self) -> u16 {
        self.nodes[MASTERS - 1].1
    }

    /// The slot of Linnet's keys.
    pub async fn slot(&self) -> u16 {
        let reply = command(self.first, &["CLUSTER", "KEYSLOT", "{linnet}"]).await;
        let number = reply.strip_prefix(':').and_then(|text| text.lines().next()?.parse().ok());
        number.expect("a slot")
    }

    /// The id of the node on a port.
    pub async fn id(&self, port: u16) -> String {
        let reply = command(port, &["CLUSTER", "MYID"]).await;
        reply.lines().nth(1).expect("an id").to_owned()
    }

    async fn assign_slots(&self) {
        let slot = self.slot().await;
        let home = RANGES.iter().position(|(first, last)| (first..=last).contains(&&slot));
        let home = home.expect("a range");
        for (number, port) in self.ports()[..MASTERS].iter().enumerate() {
            let (first, last) = RANGES[(home + number) % MASTERS];
            let (first, last) = (first.to_string(), last.to_string());
            accepted(*port, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
            let epoch = (number + 1).to_string();
            accepted(*port, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
        }
    }

    async fn meet(&self) {
        let nodes = command(self.first, &["CLUSTER", "NODES"]).await;
        let bus = nodes.split_once('@').and_then(|(_, rest)| rest.split([' ', ',']).next());
        let bus = bus.expect("the port of the cluster bus");
        let first = self.first.to_string();
        // A node forgets an introduction that takes longer than its node timeout.
        within(START_TIMEOUT, "the first node to know the others", || async {
            let known = command(self.first, &["CLUSTER", "NODES"]).await;
            let mut is_complete = true;
            for (_, port) in &self.nodes {
                let line = known.lines().find(|line| line.contains(&format!(":{port}@")));
                if line.is_none() {
                    accepted(*port, &["CLUSTER", "MEET", "127.0.0.1", &first, bus]).await;
                }
                is_complete &= line.is_some_and(|line| !line.contains("handshake"));
            }
            is_complete
        })
        .await;
    }

    async fn replicate(&self) {
        let ports = self.ports();
        let (masters, replicas) = ports.split_at(MASTERS);
        for (master, replica) in masters.iter().zip(replicas) {
            let id = self.id(*master).await;
            within(START_TIMEOUT, "a node to know its master", || async {
                command(*replica, &["CLUSTER", "REPLICATE", &id]).await.starts_with("+OK")
            })
            .await;
        }
        within(START_TIMEOUT, "a complete cluster", || async {
            for port in &ports {
                let info = command(*port, &["CLUSTER", "INFO"]).await;
                let nodes = command(*port, &["CLUSTER", "NODES"]).await;
                let is_complete = info.contains("cluster_state:ok")
                    && nodes.matches("slave ").count() == MASTERS
                    && nodes.matches(" connected").count() == 2 * MASTERS;
                if !is_complete {
                    return false;
                }
            }
            for replica in replicas {
                let info = command(*replica, &["INFO", "replication"]).await;
                if !info.contains("master_link_status:up") {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// All processes.
    pub(super) fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.nodes.iter_mut().map(|(process, _)| process)
    }
}

/// Sends a command that must succeed.
pub async fn accepted(port: u16, words: &[&str]) {
    let reply = command(port, words).await;
    assert!(reply.starts_with("+OK"), "{words:?}: {reply}");
}
