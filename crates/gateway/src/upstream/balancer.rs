//! The current shorteners, and the choice of one for each call.

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

use super::{
    breaker::{BreakerState, CircuitBreaker, Permit},
    connector::authority_of,
};
use crate::config::UpstreamSettings;

/// One shortener.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Number among the current shorteners, for logs and metrics. It is reused after this one is
    /// removed.
    pub(crate) index: usize,
    pub(super) address: Address,
    pub(super) authority: Authority,
    breaker: CircuitBreaker,
    is_healthy: AtomicBool,
}

impl Upstream {
    /// Whether the shortener is healthy, by its latest probe or failed connect.
    pub(crate) fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    pub(super) fn set_healthy(&self, is_healthy: bool) {
        if self.is_healthy() != is_healthy {
            self.is_healthy.store(is_healthy, Ordering::Relaxed);
            let (upstream, address) = (self.index, &self.address);
            if is_healthy {
                tracing::info!(upstream, %address, "shortener became healthy");
            } else {
                tracing::warn!(upstream, %address, "shortener became unhealthy");
            }
        }
    }

    /// The breaker's state as a metric: 0 closed, 1 half-open, 2 open.
    pub(crate) fn breaker_level(&self) -> u64 {
        match self.breaker.state() {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        }
    }
}

/// All shorteners.
#[derive(Debug)]
pub(crate) struct Upstreams {
    current: ArcSwap<Vec<Arc<Upstream>>>,
    /// Where the next call begins its rotation.
    next: AtomicUsize,
    /// Settings of the circuit breakers, also of shorteners that are added later.
    breaker_failures: u32,
    breaker_open_for: Duration,
}

impl Upstreams {
    /// Each shortener is unhealthy until its first probe, which follows immediately.
    pub(crate) fn new(settings: &UpstreamSettings) -> Result<Self, InvalidUri> {
        let upstreams = Self {
            current: ArcSwap::default(),
            next: AtomicUsize::new(0),
            breaker_failures: settings.breaker_failures,
            breaker_open_for: Duration::from_millis(settings.breaker_open_ms),
        };
        upstreams.replace(&settings.shorteners)?;
        Ok(upstreams)
    }

    /// Makes `addresses` the current shorteners; those that remain keep their state. Only one task
    /// may call it.
    pub(super) fn replace(&self, addresses: &[Address]) -> Result<(), InvalidUri> {
        let before = self.current.load();
        let mut all: Vec<_> =
            before.iter().filter(|old| addresses.contains(&old.address)).cloned().collect();
        for address in addresses {
            if all.iter().all(|upstream| upstream.address != *address) {
                // One of `all.len() + 1` numbers is free.
                let is_free = |index: &usize| all.iter().all(|upstream| upstream.index != *index);
                let index = (0..=all.len()).find(is_free).unwrap_or_default();
                all.push(Arc::new(Upstream {
                    index,
                    address: address.clone(),
                    authority: authority_of(address)?,
                    breaker: CircuitBreaker::new(self.breaker_failures, self.breaker_open_for),
                    is_healthy: AtomicBool::new(false),
                }));
            }
        }
        all.sort_by_key(|upstream| upstream.index);
        self.current.store(Arc::new(all));
        Ok(())
    }

    /// The current shorteners.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Upstream>>> {
        self.current.load_full()
    }

    /// Number of healthy shorteners.
    pub(crate) fn healthy_count(&self) -> usize {
        self.current.load().iter().filter(|upstream| upstream.is_healthy()).count()
    }

    /// Chooses the next shortener in the rotation whose breaker admits a call. Healthy ones are preferred,
    /// then those other than `avoid`. `None` if every breaker rejects the call.
    pub(super) fn admit(&self, avoid: Option<usize>) -> Option<Admission> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let all = self.current.load();
        let is_other = |upstream: &Upstream| Some(upstream.index) != avoid;
        admit_first(&all, start, |upstream| upstream.is_healthy() && is_other(upstream))
            .or_else(|| admit_first(&all, start, Upstream::is_healthy))
            .or_else(|| admit_first(&all, start, is_other))
            .or_else(|| admit_first(&all, start, |_| true))
    }
}

fn admit_first(
    all: &[Arc<Upstream>],
    start: usize,
    is_eligible: impl Fn(&Upstream) -> bool,
) -> Option<Admission> {
    let count = all.len();
    (0..count)
        .filter_map(|offset| all.get((start.wrapping_add(offset)) % count))
        .filter(|upstream| is_eligible(upstream))
        .find_map(|upstream| {
            let permit = upstream.breaker.admit()?;
            Some(Admission { upstream: Arc::clone(upstream), permit, is_settled: false })
        })
}

/// Permission to make one call to a shortener. Dropping it abandons the call.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) upstream: Arc<Upstream>,
    permit: Permit,
    is_settled: bool,
}

impl Admission {
    /// Records a response.
    pub(super) fn record_success(mut self) {
        self.is_settled = true;
        if self.upstream.breaker.record_success(self.permit) {
            tracing::info!(upstream = self.upstream.index, "circuit breaker closed");
        }
    }

    /// Records a transport failure. `is_unreachable` means that no connection was made, which makes
    /// the shortener unhealthy.
    pub(super) fn record_failure(mut self, is_unreachable: bool) {
        self.is_settled = true;
        if is_unreachable {
            self.upstream.set_healthy(false);
        }
        if self.upstream.breaker.record_failure(self.permit) {
            tracing::warn!(upstream = self.upstream.index, "circuit breaker opened");
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.is_settled {
            self.upstream.breaker.abandon(self.permit);
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
        admission.record_success();
        Some(index)
    }

    #[tokio::test]
    async fn calls_rotate_over_healthy_shorteners() {
        let upstreams = upstreams(3);
        upstreams.all()[0].set_healthy(true);
        upstreams.all()[2].set_healthy(true);
        let mut called: Vec<_> = (0..30).filter_map(|_| next(&upstreams, None)).collect();
        called.sort_unstable();
        called.dedup();
        assert_eq!(called, [0, 2]);
        assert!((0..30).all(|_| next(&upstreams, Some(0)) == Some(2)));
    }

    #[tokio::test]
    async fn unhealthy_shortener_is_called_if_none_is_healthy() {
        assert!(next(&upstreams(2), None).is_some());
        assert_eq!(next(&upstreams(1), Some(0)), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn no_call_is_admitted_while_all_breakers_are_open() {
        let upstreams = upstreams(2);
        for _ in 0..4 {
            upstreams.admit(None).unwrap().record_failure(false);
        }
        assert!(upstreams.admit(None).is_none());
    }

    #[tokio::test]
    async fn unreachable_shortener_becomes_unhealthy() {
        let upstreams = upstreams(2);
        upstreams.all().iter().for_each(|upstream| upstream.set_healthy(true));
        let admission = upstreams.admit(None).unwrap();
        let unreachable = admission.upstream.index;
        admission.record_failure(true);
        assert!((0..10).all(|_| next(&upstreams, None) != Some(unreachable)));
    }

    #[tokio::test]
    async fn remaining_shorteners_keep_their_state_and_new_ones_take_free_numbers() {
        let upstreams = upstreams(3);
        let before = upstreams.all();
        upstreams.replace(&addresses(&[3, 7, 1])).unwrap();
        let now = upstreams.all();
        let numbered: Vec<_> = now.iter().map(|one| (one.index, one.address.to_string())).collect();
        let expected = |(index, port): (usize, u16)| (index, format!("127.0.0.1:{port}"));
        assert_eq!(numbered, [(0, 1), (1, 7), (2, 3)].map(expected));
        assert!(Arc::ptr_eq(&before[0], &now[0]) && Arc::ptr_eq(&before[2], &now[2]));
        upstreams.replace(&addresses(&[7])).unwrap();
        assert!((0..10).all(|_| next(&upstreams, None) == Some(1)));
    }
}
