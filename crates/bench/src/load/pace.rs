//! Sends requests at a fixed rate, whatever the answers do (an open loop).
//!
//! Request `i` is due at `start + i / rate`, and its latency is counted from then. A client that
//! waits for a slow answer before it sends the next one would leave out exactly the requests that a
//! real visitor would have waited for (coordinated omission); here the wait is part of the latency.
//!
//! One thread serves all connections with an event loop, as `wrk` does: a generator that took a thread
//! and a wake-up for each request would itself need the processors that it measures. A request that is
//! due takes the next connection that is free; when none is, it waits, and its latency runs.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use linnet_platform::listener::Address;
use mio::{Events, Poll, Token};
use serde::Serialize;

use super::{CodeList, Counts, STRAGGLERS, connection::Connection};

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Requests a second.
    pub rate: f64,
    /// How long.
    pub duration: Duration,
    /// The first of it is not counted: connections are made, caches of the processor fill.
    pub warm_up: Duration,
    /// Connections.
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

/// Answers that have come are looked for at least this often: what it adds to a latency at most.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// Sends the list from its start, over and over, for the time given.
pub fn pace(address: &Address, list: &CodeList, pace: Pace) -> io::Result<PaceReport> {
    let mut poll = Poll::new()?;
    let connections = (0..pace.connections.max(1) as usize)
        .map(|number| Connection::open(address, poll.registry(), Token(number)))
        .collect::<io::Result<Vec<_>>>()?;
    let mut run = Run {
        list,
        pace,
        start: Instant::now(),
        free: (0..connections.len()).rev().collect(),
        connections,
        next: 0,
        counts: Counts::default(),
        latencies: Vec::new(),
        delays: Vec::new(),
    };
    run.finish(&mut poll)?;
    Ok(run.report())
}

/// A request that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// When it was due.
    due: Instant,
    /// Its place in the list.
    position: usize,
    is_measured: bool,
}

struct Run<'a> {
    list: &'a CodeList,
    pace: Pace,
    start: Instant,
    connections: Vec<Connection>,
    /// Connections without a request.
    free: Vec<usize>,
    /// The next request's number.
    next: u64,
    counts: Counts,
    latencies: Vec<Duration>,
    delays: Vec<Duration>,
}

impl Run<'_> {
    fn finish(&mut self, poll: &mut Poll) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        let give_up = self.start + self.pace.duration + STRAGGLERS;
        loop {
            self.send_what_is_due(poll);
            let all_sent = self.next_due().is_none();
            if (all_sent && self.free.len() == self.connections.len()) || Instant::now() > give_up {
                break;
            }
            poll.poll(&mut events, Some(Duration::ZERO))?;
            for event in &events {
                self.receive(event.token().0, poll);
            }
            if events.is_empty() {
                thread::sleep(LOOK_EVERY);
            }
        }
        // What is still under way has failed.
        self.counts.failed += (self.connections.len() - self.free.len()) as u64;
        Ok(())
    }

    /// When the next request is due; `None` after the last one.
    fn next_due(&self) -> Option<Instant> {
        let offset = self.offset();
        (offset < self.pace.duration).then(|| self.start + offset)
    }

    fn offset(&self) -> Duration {
        Duration::from_secs_f64(to_f64(self.next) / self.pace.rate)
    }

    fn send_what_is_due(&mut self, poll: &Poll) {
        while let Some(due) = self.next_due() {
            let now = Instant::now();
            if now < due {
                return;
            }
            let Some(number) = self.free.pop() else { return };
            let is_measured = self.offset() >= self.pace.warm_up;
            let position = usize::try_from(self.next).unwrap_or(0) % self.list.len();
            self.next += 1;
            let code = self.list.get(position).unwrap_or_default();
            let sent = Sent { due, position, is_measured };
            let Some(connection) = self.connections.get_mut(number) else { return };
            if connection.send(code, sent, poll.registry()).is_err() {
                self.counts.failed += 1;
                self.free.push(number);
            } else if is_measured {
                self.delays.push(now - due);
            }
        }
    }

    fn receive(&mut self, number: usize, poll: &Poll) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        let list = self.list;
        match connection.receive(|sent| list.get(sent.position).unwrap_or_default()) {
            Ok(None) => return,
            Ok(Some((sent, answer))) => {
                if self.counts.note(&answer, false) && sent.is_measured {
                    self.latencies.push(sent.due.elapsed());
                }
            }
            // An idle connection that was closed is opened again by the next request.
            Err(_) if !connection.is_busy() => return,
            Err(_) => {
                self.counts.failed += 1;
                connection.close(poll.registry());
            }
        }
        self.free.push(number);
    }

    fn report(mut self) -> PaceReport {
        self.latencies.sort_unstable();
        self.delays.sort_unstable();
        let mut unsent = 0;
        while self.next_due().is_some() {
            unsent += 1;
            self.next += 1;
        }
        let at = |share| quantile_ms(&self.latencies, share);
        PaceReport {
            counts: self.counts,
            measured: self.latencies.len(),
            unsent,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: at(1.0),
            sent_late_p50_ms: quantile_ms(&self.delays, 0.5),
        }
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
        let report = pace(&address, &CodeList("abcdefg\n".into()), pace_of).unwrap();
        server.join().unwrap();
        assert_eq!(report.counts, Counts { redirected: 600, ..Counts::default() });
        assert!(report.p90_ms > 100.0, "{report:?}");
    }
}
