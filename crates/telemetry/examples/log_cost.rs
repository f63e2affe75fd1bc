//! Measures the processor time of a log line, for `docs/adr/024-own-log-writer.md`:
//!
//! ```console
//! $ cargo run --release -p linnet-telemetry --example log_cost | cat > /dev/null
//! ```
//!
//! Each figure is the median over several rounds. A round compares the same work with and without log lines.

use std::{
    error::Error,
    hint::black_box,
    io::{self, Write as _},
    thread,
    time::{Duration, Instant},
};

use linnet_telemetry::{ServiceInfo, Telemetry, TelemetrySettings};
use procfs::process::Process;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(2);
/// Work between two lines, about 15 µs: a request.
const WORK_STEPS: u64 = 20_000;

/// How a thread spends the time between two lines.
#[derive(Clone, Copy)]
enum Load {
    /// It works without a pause.
    Saturated,
    /// It works, and sleeps for 1 ms.
    Paced,
}

fn main() -> Result<(), Box<dyn Error>> {
    let service = ServiceInfo { name: "log-cost", version: "0", release: "example" };
    let telemetry = Telemetry::init(&TelemetrySettings::default(), service)?;
    for (name, load, threads) in [
        ("saturated, 2 threads", Load::Saturated, 2),
        ("one line per ms, 1 thread", Load::Paced, 1),
    ] {
        let mut costs = Vec::new();
        for _ in 0..ROUNDS {
            let (silent, logging) = (round(load, threads, false)?, round(load, threads, true)?);
            costs.push(logging - silent);
        }
        costs.sort_by(f64::total_cmp);
        let median = costs.get(ROUNDS / 2).copied().unwrap_or_default();
        writeln!(io::stderr(), "{name}: {median:.2} µs of processor time per line")?;
    }
    telemetry.shutdown();
    Ok(())
}

/// Processor time of the process per line, in microseconds.
fn round(load: Load, threads: usize, logs: bool) -> Result<f64, Box<dyn Error>> {
    let before = processor_seconds()?;
    let lines: u32 = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(move || work(load, logs))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    });
    Ok((processor_seconds()? - before) * 1e6 / f64::from(lines.max(1)))
}

fn work(load: Load, logs: bool) -> u32 {
    let began = Instant::now();
    let mut lines = 0;
    while began.elapsed() < ROUND {
        black_box((0..WORK_STEPS).fold(0_u64, |sum, step| black_box(sum.wrapping_add(step))));
        if let Load::Paced = load {
            thread::sleep(Duration::from_millis(1));
        }
        lines += 1;
        if logs {
            tracing::info!(
                method = "GET",
                route = "/api/v1/urls/{id}",
                status = 200,
                duration_ms = 1.234,
                db.queries = lines % 4,
                request_id = "0123456789abcdef0123456789abcdef",
                "request"
            );
        }
    }
    lines
}

#[expect(clippy::cast_precision_loss, reason = "ticks are far below 2^52")]
fn processor_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = Process::myself()?.stat()?;
    Ok((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}
