//! The processes and their memory.

use std::collections::BTreeMap;

use linnet_system_tests::{Process, Stack};

const MIB: u64 = 1024 * 1024;

/// Memory of one group of processes, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident now. A page that several processes of the group share counts once.
    pub(crate) resident: u64,
    /// Maximum that was resident since the last [`reset`].
    pub(crate) peak: u64,
}

/// The processes at the start, which must all live to the end.
#[derive(Debug)]
pub(crate) struct Watch {
    pids: BTreeMap<String, Vec<u32>>,
}

fn attacked(stack: &Stack) -> impl Iterator<Item = &Process> {
    std::iter::once(&stack.nginx)
        .chain(&stack.gateways)
        .chain(&stack.shorteners)
        .chain(&stack.workers)
}

fn pids(process: &Process) -> Vec<u32> {
    process.memory_group().expect("a memory group").pids()
}

impl Watch {
    pub(crate) fn start(stack: &Stack) -> Self {
        let pids = attacked(stack).map(|process| (process.name().to_owned(), pids(process)));
        Self { pids: pids.collect() }
    }

    /// Ended processes and kills by the kernel, which must not occur.
    pub(crate) fn problems(&self, stack: &Stack) -> Vec<String> {
        let mut problems = Vec::new();
        for process in attacked(stack) {
            let name = process.name();
            let kills = process.memory_group().expect("a memory group").oom_kills();
            if kills > 0 {
                problems.push(format!("{name}: {kills} process(es) killed for lack of memory"));
            }
            if pids(process) != self.pids[name] {
                problems.push(format!("{name}: a process has ended"));
            }
        }
        problems
    }
}

/// The memory of each process by name. nginx's is the sum of its processes.
pub(crate) fn memory(stack: &Stack) -> BTreeMap<String, Memory> {
    attacked(stack)
        .map(|process| {
            let mut sum = Memory::default();
            for pid in pids(process) {
                sum.resident += line(pid, "smaps_rollup", "Pss:");
                sum.peak += line(pid, "status", "VmHWM:");
            }
            (process.name().to_owned(), sum)
        })
        .collect()
}

/// The limit of each process and the peak of its group, which includes the page cache and the kernel's memory.
pub(crate) fn groups(stack: &Stack) -> BTreeMap<String, (u64, u64)> {
    attacked(stack)
        .map(|process| {
            let group = process.memory_group().expect("a memory group");
            (process.name().to_owned(), (group.limit(), group.peak_bytes()))
        })
        .collect()
}

/// Resets the peaks of resident memory.
pub(crate) fn reset(stack: &Stack) {
    for pid in attacked(stack).flat_map(pids) {
        // A process that has ended is found by `problems`.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

/// A line of a file in `/proc/PID`, in bytes; 0 for a process that has ended.
fn line(pid: u32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Bytes as MiB with one digit.
pub(crate) fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53")]
    let (bytes, unit) = (bytes as f64, MIB as f64);
    (bytes / unit * 10.0).round() / 10.0
}
