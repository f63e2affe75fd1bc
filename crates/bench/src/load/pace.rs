//! Sends requests at a fixed rate, whatever the answers do (an open loop).
//!
//! Request `i` is due at `start + i / rate`, and its latency is counted from then. A client that
//! waits for a slow answer before it sends the next one would leave out exactly the requests that a
//! real visitor would have waited for (coordinated omission); here the wait is part of the latency.
//!
//! Requests go round the connections, so one connection has a request due every
//! `connections / rate` seconds, and only what is slower than that delays its next one.

use std::{
    thread,
    time::{Duration, Instant},
};

use linnet_platform::listener::Address;
use serde::Serialize;

use super::{CodeList, Counts, STRAGGLERS};
use crate::http::Client;

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Requests a second.
    pub rate: f64,
    /// How long.
    pub duration: Duration,
    /// The first of it is not counted: connections are made, caches of the processor fill.
    pub warm_up: Duration,
    /// Connections, each with a thread.
    pub connections: u32,
}

/// How it went. Latencies are in milliseconds.
#[derive(Debug, Serialize)]
pub struct PaceReport {
    /// Answers by kind, those of the warm-up included.
    #[serde(flatten)]
    pub counts: Counts,
    /// Requests whose latency counts.
    pub measured: usize,
    /// Requests that were due and never sent, because the time had run out.
    pub unsent: u64,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
    /// Middle of the delays between due and sent: what the generator itself adds.
    pub(super) sent_late_p50_ms: f64,
}

#[derive(Default)]
struct Own {
    counts: Counts,
    unsent: u64,
    latencies: Vec<Duration>,
    delays: Vec<Duration>,
}

/// Sends the list from its start, over and over, for the time given.
pub fn pace(address: &Address, list: &CodeList, pace: Pace) -> PaceReport {
    // Threads must exist before the first request is due.
    let start = Instant::now() + Duration::from_millis(100);
    let mut all = Own::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..pace.connections.max(1))
            .map(|number| scope.spawn(move || run(address, list, pace, start, number)))
            .collect();
        for thread in threads {
            if let Ok(own) = thread.join() {
                all.counts.add(own.counts);
                all.unsent += own.unsent;
                all.latencies.extend(own.latencies);
                all.delays.extend(own.delays);
            }
        }
    });
    all.latencies.sort_unstable();
    all.delays.sort_unstable();
    let at = |share| quantile_ms(&all.latencies, share);
    PaceReport {
        counts: all.counts,
        measured: all.latencies.len(),
        unsent: all.unsent,
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: at(1.0),
        sent_late_p50_ms: quantile_ms(&all.delays, 0.5),
    }
}

/// One connection: requests `number`, `number + connections`, …
fn run(address: &Address, list: &CodeList, pace: Pace, start: Instant, number: u32) -> Own {
    let mut own = Own::default();
    let mut client = Client::new(address);
    let give_up = start + pace.duration + STRAGGLERS;
    let mut index = u64::from(number);
    loop {
        let offset = Duration::from_secs_f64(to_f64(index) / pace.rate);
        if offset >= pace.duration {
            return own;
        }
        let due = start + offset;
        let before = Instant::now();
        if before > give_up {
            own.unsent += 1;
        } else {
            thread::sleep(due.saturating_duration_since(before));
            let sent = Instant::now();
            let position = usize::try_from(index).unwrap_or(0) % list.len();
            let good = own.counts.send(&mut client, list.get(position).unwrap_or_default(), false);
            if good && offset >= pace.warm_up {
                own.latencies.push(due.elapsed());
                own.delays.push(sent - due);
            }
        }
        index += u64::from(pace.connections.max(1));
    }
}

/// Of a sorted list; 0 for an empty one.
fn quantile_ms(sorted: &[Duration], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the list's length, which is far below 2^52"
    )]
    let index = (to_f64(last as u64) * share).ceil() as usize;
    sorted.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn quantiles_come_from_the_sorted_list() {
        let sorted: Vec<_> = (0..=100).map(Duration::from_millis).collect();
        for (share, wanted) in [(0.0, 0.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            assert!((quantile_ms(&sorted, share) - wanted).abs() < 1e-9);
        }
        assert!(quantile_ms(&[], 0.5).abs() < 1e-9);
    }

    /// A server that stops for 200 ms in the middle: at 1,000 requests a second on one connection
    /// about 200 of 600 were due meanwhile, and all of them must show it.
    #[test]
    fn a_pause_counts_for_every_request_that_was_due_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let mut served = 0;
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                served += 1;
                if served == 200 {
                    thread::sleep(Duration::from_millis(200));
                }
                stream.write_all(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
        });
        let pace_of = Pace {
            rate: 1_000.0,
            duration: Duration::from_millis(600),
            warm_up: Duration::ZERO,
            connections: 1,
        };
        let report = pace(&address, &CodeList("abcdefg\n".into()), pace_of);
        server.join().unwrap();
        assert_eq!(report.counts, Counts { redirected: 600, ..Counts::default() });
        assert!(report.p90_ms > 100.0, "{report:?}");
    }
}
