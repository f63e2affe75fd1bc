//! Sends each code of a list exactly once, as fast as responses arrive (a closed loop).

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use linnet_platform::listener::Address;
use serde::Serialize;

use crate::{code_list::CodeList, counts::Counts, http::Client};

/// The result of [`replay`].
#[derive(Debug, Serialize)]
pub struct ReplayReport {
    /// Responses by kind; their sum is the list's length.
    #[serde(flatten)]
    pub counts: Counts,
    /// Time from the first request to the last response.
    pub seconds: f64,
}

/// Sends the list over `connections` connections, each with its own thread. Checks the target of every redirect.
pub fn replay(address: &Address, list: &CodeList, connections: usize) -> ReplayReport {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let send_until_the_end = || {
        let mut client = Client::new(address);
        let mut counts = Counts::default();
        while let Some(code) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
            match client.get(code) {
                Ok(response) => {
                    counts.record(&response, true);
                }
                Err(_) => counts.failed += 1,
            }
        }
        counts
    };
    let mut counts = Counts::default();
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..connections.max(1)).map(|_| scope.spawn(send_until_the_end)).collect();
        for thread in threads {
            if let Ok(counted) = thread.join() {
                counts.add(counted);
            }
        }
    });
    ReplayReport { counts, seconds: start.elapsed().as_secs_f64() }
}
