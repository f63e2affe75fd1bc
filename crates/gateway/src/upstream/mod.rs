//! The shorteners behind the gateway: which of them to call, and calling them.
//!
//! Invariants:
//! - [`Upstreams`] is shared by the process; an [`UpstreamClient`] with its connections belongs to
//!   one runtime, since a connection dies with the runtime that made it.
//! - A name that stands for several addresses is several shorteners. They come and go with what the
//!   name stands for ([`probe`] asks); one that stays keeps its health, breaker and connections.
//! - Health (what the probe says) and the breaker (what calls say) are kept apart: health decides
//!   who is preferred, the breaker who is allowed. When nobody is healthy, whoever the breaker
//!   allows is tried: a probe can be wrong, and a shortener that drains still answers.
//! - Each admitted call reports one outcome, also when its future is dropped.

mod body;
mod breaker;
mod budget;
mod client;
mod connector;
mod discovery;
mod health;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::uri::{Authority, InvalidUri};
use linnet_platform::listener::Address;

use crate::config::UpstreamSettings;
use breaker::{Breaker, Mode, Pass};
use budget::RetryBudget;

pub(crate) use body::{CallBody, Piece, StreamBody};
pub(crate) use client::{Call, UpstreamClient, UpstreamError};
pub(crate) use connector::{Connector, authority_of};
pub(crate) use health::probe;

/// One shortener.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Its place among the current ones, for logs and metrics. It is another's when this one is gone.
    pub(crate) index: usize,
    pub(crate) address: Address,
    pub(crate) authority: Authority,
    breaker: Breaker,
    healthy: AtomicBool,
}

impl Upstream {
    /// What the last probe or a failed connect said.
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    fn set_healthy(&self, healthy: bool) {
        if self.healthy.load(Ordering::Relaxed) != healthy {
            self.healthy.store(healthy, Ordering::Relaxed);
            let (upstream, address) = (self.index, &self.address);
            if healthy {
                tracing::info!(upstream, %address, "a shortener takes traffic");
            } else {
                tracing::warn!(upstream, %address, "a shortener takes no traffic");
            }
        }
    }

    /// For the metrics: 0 closed, 1 half open, 2 open.
    pub(crate) fn breaker_level(&self) -> u64 {
        match self.breaker.mode() {
            Mode::Closed => 0,
            Mode::HalfOpen => 1,
            Mode::Open => 2,
        }
    }
}

/// All shorteners.
#[derive(Debug)]
pub(crate) struct Upstreams {
    current: ArcSwap<Vec<Arc<Upstream>>>,
    next: AtomicUsize,
    budget: RetryBudget,
    breaker_failures: u32,
    breaker_open: Duration,
}

impl Upstreams {
    /// Every shortener counts as down until its first probe, which comes at once.
    pub(crate) fn new(settings: &UpstreamSettings) -> Result<Self, InvalidUri> {
        let upstreams = Self {
            current: ArcSwap::default(),
            next: AtomicUsize::new(0),
            budget: RetryBudget::new(settings.retry_budget_percent),
            breaker_failures: settings.breaker_failures,
            breaker_open: Duration::from_millis(settings.breaker_open_ms),
        };
        upstreams.set(&settings.shorteners)?;
        Ok(upstreams)
    }

    /// From now on these are the shorteners. Only one task may call it.
    pub(crate) fn set(&self, addresses: &[Address]) -> Result<(), InvalidUri> {
        let before = self.current.load();
        let mut all: Vec<_> =
            before.iter().filter(|known| addresses.contains(&known.address)).cloned().collect();
        for address in addresses {
            if all.iter().all(|known| known.address != *address) {
                // There is a free one: not all of so many numbers are taken.
                let is_free = |index: &usize| all.iter().all(|known| known.index != *index);
                let index = (0..=all.len()).find(is_free).unwrap_or_default();
                all.push(Arc::new(Upstream {
                    index,
                    address: address.clone(),
                    authority: authority_of(address)?,
                    breaker: Breaker::new(self.breaker_failures, self.breaker_open),
                    healthy: AtomicBool::new(false),
                }));
            }
        }
        all.sort_by_key(|upstream| upstream.index);
        self.current.store(Arc::new(all));
        Ok(())
    }

    /// Every shortener that there is now.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Upstream>>> {
        self.current.load_full()
    }

    /// How many shorteners take traffic.
    pub(crate) fn healthy(&self) -> usize {
        self.current.load().iter().filter(|upstream| upstream.is_healthy()).count()
    }

    /// The next shortener in turn, rather a healthy one and rather not `avoid`.
    pub(crate) fn admit(&self, avoid: Option<usize>) -> Option<Admission> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let all = self.current.load();
        let other = |upstream: &Upstream| Some(upstream.index) != avoid;
        first(&all, start, |upstream| upstream.is_healthy() && other(upstream))
            .or_else(|| first(&all, start, Upstream::is_healthy))
            .or_else(|| first(&all, start, other))
            .or_else(|| first(&all, start, |_| true))
    }
}

fn first(
    all: &[Arc<Upstream>],
    start: usize,
    wanted: impl Fn(&Upstream) -> bool,
) -> Option<Admission> {
    let count = all.len();
    (0..count)
        .filter_map(|offset| all.get((start.wrapping_add(offset)) % count))
        .filter(|upstream| wanted(upstream))
        .find_map(|upstream| {
            let pass = upstream.breaker.admit()?;
            Some(Admission { upstream: Arc::clone(upstream), pass, settled: false })
        })
}

/// Leave to make one call.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) upstream: Arc<Upstream>,
    pass: Pass,
    settled: bool,
}

impl Admission {
    /// The shortener answered.
    pub(crate) fn succeeded(mut self) {
        self.settled = true;
        if self.upstream.breaker.succeeded(self.pass) {
            tracing::info!(upstream = self.upstream.index, "a shortener's breaker closed");
        }
    }

    /// The transport failed; `unreachable` if there was not even a connection.
    pub(crate) fn failed(mut self, unreachable: bool) {
        self.settled = true;
        if unreachable {
            self.upstream.set_healthy(false);
        }
        if self.upstream.breaker.failed(self.pass) {
            tracing::warn!(upstream = self.upstream.index, "a shortener's breaker opened");
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.settled {
            self.upstream.breaker.abandoned(self.pass);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(ports: &[u16]) -> Vec<Address> {
        ports.iter().map(|port| Address::Tcp(format!("127.0.0.1:{port}"))).collect()
    }

    fn upstreams(count: u16) -> Upstreams {
        let settings = UpstreamSettings {
            shorteners: addresses(&(1..=count).collect::<Vec<_>>()),
            breaker_failures: 2,
            ..UpstreamSettings::default()
        };
        Upstreams::new(&settings).unwrap()
    }

    fn next(upstreams: &Upstreams, avoid: Option<usize>) -> Option<usize> {
        let admission = upstreams.admit(avoid)?;
        let index = admission.upstream.index;
        admission.succeeded();
        Some(index)
    }

    #[tokio::test]
    async fn calls_go_round_the_healthy_ones() {
        let upstreams = upstreams(3);
        upstreams.all()[0].set_healthy(true);
        upstreams.all()[2].set_healthy(true);
        let mut seen: Vec<_> = (0..30).filter_map(|_| next(&upstreams, None)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 2]);
        assert!((0..30).all(|_| next(&upstreams, Some(0)) == Some(2)));
    }

    #[tokio::test]
    async fn with_nobody_healthy_somebody_is_tried_all_the_same() {
        assert!(next(&upstreams(2), None).is_some());
        assert_eq!(next(&upstreams(1), Some(0)), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn open_breakers_leave_nobody() {
        let upstreams = upstreams(2);
        for _ in 0..4 {
            upstreams.admit(None).unwrap().failed(false);
        }
        assert!(upstreams.admit(None).is_none());
    }

    #[tokio::test]
    async fn an_unreachable_one_is_no_longer_preferred() {
        let upstreams = upstreams(2);
        upstreams.all().iter().for_each(|upstream| upstream.set_healthy(true));
        let admission = upstreams.admit(None).unwrap();
        let gone = admission.upstream.index;
        admission.failed(true);
        assert!((0..10).all(|_| next(&upstreams, None) != Some(gone)));
    }
    #[tokio::test]
    async fn who_stays_is_still_the_same_and_who_comes_takes_a_free_number() {
        let upstreams = upstreams(3);
        let before = upstreams.all();
        upstreams.set(&addresses(&[3, 7, 1])).unwrap();
        let now = upstreams.all();
        let seen: Vec<_> = now.iter().map(|one| (one.index, one.address.to_string())).collect();
        let named = |(index, port): (usize, u16)| (index, format!("127.0.0.1:{port}"));
        assert_eq!(seen, [(0, 1), (1, 7), (2, 3)].map(named));
        assert!(Arc::ptr_eq(&before[0], &now[0]) && Arc::ptr_eq(&before[2], &now[2]));
        upstreams.set(&addresses(&[7])).unwrap();
        assert!((0..10).all(|_| next(&upstreams, None) == Some(1)));
    }
}
