//! Sends requests at a fixed rate, independent of the responses (an open loop).
//!
//! Request `i` is due at `start + i / rate`, and its latency is counted from then. A generator that waited for a slow
//! response before it sent the next request would omit the requests that real visitors would have sent meanwhile
//! (coordinated omission). Here the wait is part of the latency.
//!
//! One thread with an event loop serves all connections, as in `wrk`. One thread per connection would use too much of
//! the processors under test. A due request takes the next idle connection; if there is none, it waits, and its latency
//! grows.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use linnet_platform::listener::Address;
use mio::{Events, Poll, Token};
use serde::Serialize;

use crate::{
    code_list::CodeList,
    connection::{Connection, SentRequest},
    counts::Counts,
};

/// Rate, duration and connections of a run.
#[derive(Debug, Clone, Copy)]
pub struct PaceSettings {
    /// Requests a second, above 0.
    pub rate: f64,
    /// Duration of the run, with its warm-up.
    pub duration: Duration,
    /// Duration of the first part of the run, which is not measured: connections open and processor caches fill.
    pub warm_up: Duration,
    /// Number of connections.
    pub connections: u32,
}

/// The result of [`pace`]. Latencies are in milliseconds.
#[derive(Debug, Serialize)]
pub struct PaceReport {
    /// Responses by kind, including those of the warm-up.
    #[serde(flatten)]
    pub counts: Counts,
    /// Number of measured requests.
    pub measured: usize,
    /// Requests that were due but not sent before the deadline.
    pub unsent: u64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    /// Median delay between the time when a request was due and its sending: the generator's share of the latency.
    send_delay_p50_ms: f64,
}

/// Interval between checks for responses, which is the maximum that the generator adds to a latency.
const POLL_INTERVAL: Duration = Duration::from_micros(50);
/// Time that a run may continue after its last request was due.
const GRACE: Duration = Duration::from_secs(10);

/// Sends the list from its start, repeatedly, for the duration.
pub fn pace(address: &Address, list: &CodeList, settings: PaceSettings) -> io::Result<PaceReport> {
    let mut poll = Poll::new()?;
    let connections = (0..settings.connections.max(1) as usize)
        .map(|number| Connection::open(address, poll.registry(), Token(number)))
        .collect::<io::Result<Vec<_>>>()?;
    let mut run = Run {
        list,
        settings,
        start: Instant::now(),
        idle: (0..connections.len()).rev().collect(),
        connections,
        next: 0,
        counts: Counts::default(),
        latencies: Vec::new(),
        send_delays: Vec::new(),
    };
    run.send_all(&mut poll)?;
    Ok(run.report())
}

struct Run<'a> {
    list: &'a CodeList,
    settings: PaceSettings,
    start: Instant,
    connections: Vec<Connection>,
    /// Indexes of connections without a request in flight.
    idle: Vec<usize>,
    /// Number of the next request.
    next: u64,
    counts: Counts,
    latencies: Vec<Duration>,
    send_delays: Vec<Duration>,
}

impl Run<'_> {
    fn send_all(&mut self, poll: &mut Poll) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        let deadline = self.start + self.settings.duration + GRACE;
        loop {
            self.send_due_requests(poll);
            let is_all_sent = self.next_due().is_none();
            let is_idle = self.idle.len() == self.connections.len();
            if (is_all_sent && is_idle) || Instant::now() > deadline {
                break;
            }
            poll.poll(&mut events, Some(Duration::ZERO))?;
            for event in &events {
                self.receive(event.token().0, poll);
            }
            if events.is_empty() {
                thread::sleep(POLL_INTERVAL);
            }
        }
        // Requests still in flight have failed.
        self.counts.failed += (self.connections.len() - self.idle.len()) as u64;
        Ok(())
    }

    /// When the next request is due; `None` after the last one.
    fn next_due(&self) -> Option<Instant> {
        let offset = self.next_offset();
        (offset < self.settings.duration).then(|| self.start + offset)
    }

    fn next_offset(&self) -> Duration {
        Duration::from_secs_f64(to_f64(self.next) / self.settings.rate)
    }

    fn send_due_requests(&mut self, poll: &Poll) {
        while let Some(due) = self.next_due() {
            let now = Instant::now();
            if now < due {
                return;
            }
            let Some(number) = self.idle.pop() else { return };
            let is_measured = self.next_offset() >= self.settings.warm_up;
            let index = usize::try_from(self.next).unwrap_or(0) % self.list.len();
            self.next += 1;
            let code = self.list.get(index).unwrap_or_default();
            let sent = SentRequest { due, index, is_measured };
            let Some(connection) = self.connections.get_mut(number) else { return };
            if connection.send(code, sent, poll.registry()).is_err() {
                self.counts.failed += 1;
                self.idle.push(number);
            } else if is_measured {
                self.send_delays.push(now - due);
            }
        }
    }

    fn receive(&mut self, number: usize, poll: &Poll) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        let list = self.list;
        match connection.receive(|sent| list.get(sent.index).unwrap_or_default()) {
            Ok(None) => return,
            Ok(Some((sent, response))) => {
                if self.counts.record(&response, false) && sent.is_measured {
                    self.latencies.push(sent.due.elapsed());
                }
            }
            // The server closed an idle connection. The next request opens it again.
            Err(_) if !connection.is_busy() => return,
            Err(_) => {
                self.counts.failed += 1;
                connection.close(poll.registry());
            }
        }
        self.idle.push(number);
    }

    fn report(mut self) -> PaceReport {
        self.latencies.sort_unstable();
        self.send_delays.sort_unstable();
        let mut unsent = 0;
        while self.next_due().is_some() {
            unsent += 1;
            self.next += 1;
        }
        let latency_ms = |share| quantile_ms(&self.latencies, share);
        PaceReport {
            counts: self.counts,
            measured: self.latencies.len(),
            unsent,
            p50_ms: latency_ms(0.5),
            p90_ms: latency_ms(0.9),
            p99_ms: latency_ms(0.99),
            p999_ms: latency_ms(0.999),
            max_ms: latency_ms(1.0),
            send_delay_p50_ms: quantile_ms(&self.send_delays, 0.5),
        }
    }
}

/// The quantile of a sorted list; 0 if it is empty.
fn quantile_ms(sorted: &[Duration], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to the list's length, which is far below 2^52"
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
    fn a_quantile_is_the_value_at_its_share_of_the_sorted_list() {
        let sorted: Vec<_> = (0..=100).map(Duration::from_millis).collect();
        for (share, expected) in [(0.0, 0.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            assert!((quantile_ms(&sorted, share) - expected).abs() < 1e-9);
        }
        assert!(quantile_ms(&[], 0.5).abs() < 1e-9);
    }

    /// The server pauses for 200 ms. At 1,000 requests a second on one connection, about 200 of 600 requests are due in
    /// the pause, and all their latencies must include it.
    #[test]
    fn the_latency_of_every_request_due_in_a_pause_includes_the_pause() {
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
        let settings = PaceSettings {
            rate: 1_000.0,
            duration: Duration::from_millis(600),
            warm_up: Duration::ZERO,
            connections: 1,
        };
        let list = CodeList::parse("abcdefg\n".into()).unwrap();
        let report = pace(&address, &list, settings).unwrap();
        server.join().unwrap();
        assert_eq!(report.counts, Counts { redirected: 600, ..Counts::default() });
        assert!(report.p90_ms > 100.0, "{report:?}");
    }
}
