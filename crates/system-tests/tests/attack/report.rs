//! Runs the attacks, prints what they did to the processes and to the prober, and fails at the end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use linnet_system_tests::Stack;

use crate::{
    arena::Arena,
    prober::Prober,
    watch::{self, Memory, Watch, mib},
};

/// At the end, resident memory may exceed that before the attacks by this many percent.
const BACK_WITHIN_PERCENT: u64 = 10;
/// Maximum time after the last attack until memory has shrunk to that.
const BACK_AFTER: Duration = Duration::from_secs(60);
/// Maximum resident memory of a shortener, in bytes, if the programs are optimized.
const SHORTENER_BYTES: u64 = 90 * 1024 * 1024;
/// Maximum number of failures and stale responses that are printed for each attack.
const PRINTED: usize = 5;

/// The state of the suite.
pub(crate) struct Report<'a> {
    stack: &'a Stack,
    is_full: bool,
    /// Value of `LINNET_ATTACK_ONLY`: only attacks whose names contain this text run.
    only: Option<String>,
    watch: Watch,
    prober: Prober,
    /// The memory before the measured attacks.
    before: BTreeMap<String, Memory>,
    peaks: BTreeMap<String, u64>,
    problems: Vec<String>,
}

impl<'a> Report<'a> {
    pub(crate) async fn start(arena: &'a Arena) -> Self {
        let stack = &arena.stack;
        let report = Self {
            stack,
            is_full: arena.is_full,
            only: std::env::var("LINNET_ATTACK_ONLY").ok().filter(|only| !only.is_empty()),
            watch: Watch::start(stack),
            prober: Prober::start(stack).await,
            before: BTreeMap::new(),
            peaks: BTreeMap::new(),
            problems: Vec::new(),
        };
        println!(
            "{:<36} {:>7} {:>8} {:>8}  resident memory, peak in MiB",
            "attack", "time", "p50", "p99"
        );
        report
    }

    /// Runs an attack. Panics if it has ended a process, because later results would be meaningless.
    pub(crate) async fn attack(&mut self, name: &str, attack: impl Future<Output = String>) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only)) {
            return;
        }
        watch::reset(self.stack);
        let began = Instant::now();
        let outcomes = attack.await;
        // The attack can also have delayed the prober's requests of the next second.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let time = began.elapsed();
        let memory = watch::memory(self.stack);
        let mut columns = String::new();
        for (process, memory) in &memory {
            let peak = self.peaks.entry(process.clone()).or_default();
            *peak = memory.peak.max(*peak);
            columns += &format!("  {} {}", process.trim_start_matches("linnet-"), mib(memory.peak));
        }
        let seen = self.prober.take();
        println!(
            "{name:<36} {:>5.1} s {:>5} ms {:>5} ms{columns}\n    {outcomes}\n    prober: {} links resolved, {} edited, \
             {} omitted, {} failures, {} stale",
            time.as_secs_f64(),
            seen.quantile(50).as_millis(),
            seen.quantile(99).as_millis(),
            seen.resolved,
            seen.edited,
            seen.omitted,
            seen.failures.len(),
            seen.stale.len(),
        );
        for failure in seen.failures.iter().chain(&seen.stale).take(PRINTED) {
            println!("    {failure}");
        }
        if !seen.failures.is_empty() || !seen.stale.is_empty() {
            let counts = format!("{} failures, {} stale", seen.failures.len(), seen.stale.len());
            self.problems.push(format!("{name}: {counts} seen by the prober"));
        }
        let ended = self.watch.problems(self.stack);
        assert!(ended.is_empty(), "{name}: {ended:?}; before: {:?}", self.problems);
    }

    /// Records the memory to which the processes must return at the end. The attacks before this call only fill caches
    /// and buffers, which a process keeps.
    pub(crate) async fn begin_measuring(&mut self) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.before = watch::memory(self.stack);
    }

    /// Waits until memory has shrunk again, prints the memory of each process, and panics if there was a problem.
    pub(crate) async fn finish(mut self) {
        let ended = Instant::now();
        let mut now = watch::memory(self.stack);
        while !self.grown(&now).is_empty() && ended.elapsed() < BACK_AFTER {
            tokio::time::sleep(Duration::from_secs(1)).await;
            now = watch::memory(self.stack);
        }
        println!(
            "{:<20} {:>8} {:>8} {:>8} {:>8} {:>10}",
            "MiB", "limit", "before", "highest", "after", "group"
        );
        for (process, (limit, peak)) in watch::groups(self.stack) {
            println!(
                "{process:<20} {:>8} {:>8} {:>8} {:>8} {:>10}",
                mib(limit),
                mib(self.before.get(&process).copied().unwrap_or_default().resident),
                mib(self.peaks.get(&process).copied().unwrap_or_default()),
                mib(now[&process].resident),
                mib(peak),
            );
        }
        println!("{:.1} s after the last attack", ended.elapsed().as_secs_f64());
        let grown = self.grown(&now);
        self.problems.extend(grown);
        // Programs without optimization are larger.
        if self.is_full {
            for (process, peak) in &self.peaks {
                if process.starts_with("linnet-shortener") && *peak > SHORTENER_BYTES {
                    self.problems.push(format!("{process}: {} MiB were resident", mib(*peak)));
                }
            }
        }
        self.problems.extend(self.watch.problems(self.stack));
        assert!(self.problems.is_empty(), "{:#?}", self.problems);
    }

    /// The processes whose memory exceeds that before the attacks by more than [`BACK_WITHIN_PERCENT`].
    fn grown(&self, now: &BTreeMap<String, Memory>) -> Vec<String> {
        let mut grown = Vec::new();
        if self.only.is_some() {
            // A single attack also fills the caches, so its memory cannot be compared.
            return grown;
        }
        for (process, before) in &self.before {
            let (before, now) = (before.resident, now[process].resident);
            if now * 100 > before * (100 + BACK_WITHIN_PERCENT) {
                grown.push(format!("{process}: {} MiB grew to {} MiB", mib(before), mib(now)));
            }
        }
        grown
    }
}
