//! The processes of a color in a cluster: pods behind two names, which come and go.
//!
//! * A name resolves to the addresses of all pods, ready or not. A pod counts from its first response.
//! * A pod that has responded must continue to, until its address disappears from the name.
//! * Counters of a pod that is gone still count.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, ToSocketAddrs as _},
};

use crate::{
    counters::{Counters, Process},
    http,
};

/// The two names of a color's processes, each with the port of the admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Of the gateways.
    pub gateway: String,
    /// Of the shorteners.
    pub shortener: String,
}

/// A pod since its first response.
#[derive(Debug, Clone)]
struct Pod {
    process: Process,
    /// Counters from which the difference is taken.
    base: Counters,
    /// The difference at the last response.
    since: Counters,
    /// When its process started, in seconds since 1970. Another value is another process.
    started: f64,
    /// The used share of its memory limit, from 0 to 1.
    memory_share: f64,
}

/// All pods of a color that have responded.
#[derive(Debug)]
pub struct Pods {
    names: Names,
    by_address: BTreeMap<SocketAddr, Pod>,
    /// Whether counters begin with the pods' start instead of the first look.
    is_whole_life: bool,
    has_looked: bool,
    restarts: u64,
}

/// The result of one look.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// The sum of all pods; `None` if a pod or both of a kind do not respond.
    pub counters: Option<Counters>,
    /// The largest used share of a memory limit, from 0 to 1.
    pub memory_share: f64,
    /// Processes that have been replaced by another one in the same pod since the first look.
    pub restarts: u64,
}

impl Pods {
    /// No pod has responded yet. With `is_whole_life`, pods of the first look count from their start.
    pub const fn new(names: Names, is_whole_life: bool) -> Self {
        Self { names, by_address: BTreeMap::new(), is_whole_life, has_looked: false, restarts: 0 }
    }

    /// Reads the counters of all pods.
    pub fn look(&mut self) -> Look {
        let mut is_complete = true;
        for (name, process) in [
            (self.names.gateway.clone(), Process::Gateway),
            (self.names.shortener.clone(), Process::Shortener),
        ] {
            let addresses = resolve(&name);
            for address in &addresses {
                let is_known = self.by_address.contains_key(address);
                match http::get(&address.to_string(), "/metrics") {
                    Ok(response) if response.status == 200 => {
                        self.note(*address, process, &response.body);
                    }
                    _ => is_complete &= !is_known,
                }
            }
            // Without an answer of the name, the pods could be gone or not.
            is_complete &= !addresses.is_empty()
                && addresses.iter().any(|address| self.by_address.contains_key(address));
        }
        self.has_looked |= is_complete;
        let mut look = Look { restarts: self.restarts, ..Look::default() };
        let mut sum = Counters::default();
        for pod in self.by_address.values() {
            sum.add_all(&pod.since);
            look.memory_share = look.memory_share.max(pod.memory_share);
        }
        look.counters = is_complete.then_some(sum);
        look
    }

    fn note(&mut self, address: SocketAddr, process: Process, metrics: &str) {
        let mut counters = Counters::default();
        counters.add(metrics, process);
        let started = gauge(metrics, "process_start_time_seconds").unwrap_or_default();
        let memory_share = match (
            gauge(metrics, "process_resident_memory_bytes"),
            gauge(metrics, "linnet_process_memory_limit_bytes"),
        ) {
            (Some(used), Some(limit)) if limit > 0.0 => used / limit,
            _ => 0.0,
        };
        let first_base = if self.is_whole_life || self.has_looked {
            Counters::default()
        } else {
            counters.clone()
        };
        let pod = self.by_address.entry(address).or_insert_with(|| Pod {
            process,
            base: first_base,
            since: Counters::default(),
            started,
            memory_share,
        });
        // The start is computed from the clock, so it may differ by parts of a second.
        if (started - pod.started).abs() > 1.0 || pod.process != process {
            self.restarts += 1;
            pod.base = Counters::default();
            pod.started = started;
            pod.process = process;
        }
        if let Some(since) = counters.since(&pod.base) {
            pod.since = since;
        }
        pod.memory_share = memory_share;
    }

    /// Lets durations count from now on; responses continue to count from before.
    pub fn skip_durations(&mut self) {
        for pod in self.by_address.values_mut() {
            let mut now = pod.base.clone();
            now.add_all(&pod.since);
            pod.base.skip_durations(&now);
            pod.since.forget_durations();
        }
    }
}

fn resolve(name: &str) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> =
        name.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn gauge(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[cfg(test)]
#[path = "pods_tests.rs"]
pub(crate) mod tests;
