//! Plan and report of a run of the simulation.

/// A rule of the protocol that a run can omit, to show that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Heartbeats travel through the central bus. Without it, they only test the region's Redis.
    HeartbeatsThroughHome,
    /// Entries end early while the bus is stale.
    LifeWithoutBus,
    /// The outbox publishes what a dead process did not.
    Outbox,
    /// A relay that reconnects reads the outbox before it returns heartbeats.
    CatchUpBeforeLive,
}

/// Regions that are cut off from all others for a time. If it is the home region, it is lost: it answers nothing.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Which regions.
    pub regions: [bool; 3],
    /// Begin, in seconds.
    pub from_s: f64,
    /// End, in seconds.
    pub to_s: f64,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Round-trip times to the home region; the first one is within it.
    pub round_trips_ms: Vec<f64>,
    /// Processes in each region.
    pub processes: usize,
    /// Length.
    pub seconds: f64,
    /// Visits of the link at each process, a second.
    pub visits_a_second: f64,
    /// Edits of the link a second.
    pub edits_a_second: f64,
    /// Share of the edits whose process dies after the commit.
    pub deaths: f64,
    /// The fault, if any.
    pub fault: Option<Fault>,
    /// A rule that is omitted.
    pub broken: Option<Rule>,
    /// Seed of all random times.
    pub seed: u64,
}

/// Results of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Redirects.
    pub responses: u64,
    /// Requests without one (503).
    pub failed: u64,
    /// Acknowledged edits.
    pub edits: u64,
    /// Redirects to a target that was replaced more than the bound before.
    pub stale_past_bound: u64,
    /// Longest time from a commit to a redirect to the old target, in milliseconds.
    pub longest_ms: f64,
    /// For each region, the times from each commit to the last redirect to an older target, sorted, in milliseconds.
    pub tails_ms: Vec<Vec<f64>>,
}
