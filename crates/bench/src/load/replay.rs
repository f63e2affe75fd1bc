//! Sends each code of a list exactly once, as fast as the answers come (a closed loop).

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use linnet_platform::listener::Address;
use serde::Serialize;

use super::{CodeList, Counts};
use crate::http::Client;

/// How it went.
#[derive(Debug, Serialize)]
pub struct ReplayReport {
    /// Answers by kind; their sum is the list's length.
    #[serde(flatten)]
    pub counts: Counts,
    /// From the first request to the last answer.
    pub seconds: f64,
}

/// Sends the list over `connections` connections.
pub fn replay(
    address: &Address,
    list: &CodeList,
    connections: usize,
    check_location: bool,
) -> ReplayReport {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let run = || {
        let mut client = Client::new(address);
        let mut counts = Counts::default();
        while let Some(code) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
            counts.send(&mut client, code, check_location);
        }
        counts
    };
    let mut counts = Counts::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..connections.max(1)).map(|_| scope.spawn(run)).collect();
        for thread in threads {
            if let Ok(own) = thread.join() {
                counts.add(own);
            }
        }
    });
    ReplayReport { counts, seconds: start.elapsed().as_secs_f64() }
}
