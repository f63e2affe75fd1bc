//! Plan and report of a run of the simulation.

/// A rule of the protocol that a run can omit, to show that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Heartbeats travel through the central bus. Without it, they only test the region's Redis.
    HeartbeatsThroughHome,
    /// Entries end early while the bus is stale.
    LifeWithoutBus,
    /// Entries from L2 end earlier than others while the bus is stale.
    LifeFromL2,
    /// L2 is read only while the bus is live.
    L2WhileLive,
    /// The outbox publishes what a dead process did not.
    Outbox,
    /// A relay acknowledges a row of the outbox after it has delivered it. Without it, reading is acknowledging.
    AcknowledgeAfterDelivery,
    /// A relay that reconnects reads the outbox before it returns heartbeats.
    CatchUpBeforeLive,
    /// A Redis that returns is emptied before it is used, because it may lack the last changes.
    EmptyAfterLoss,
    /// A lookup that a change has overtaken does not fill L1.
    DiscardOvertakenFills,
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 9] = [
        Self::HeartbeatsThroughHome,
        Self::LifeWithoutBus,
        Self::LifeFromL2,
        Self::L2WhileLive,
        Self::Outbox,
        Self::AcknowledgeAfterDelivery,
        Self::CatchUpBeforeLive,
        Self::EmptyAfterLoss,
        Self::DiscardOvertakenFills,
    ];
}

/// A fault that recurs in a run, each time at a random moment and for a random time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The relay of a region is cut off; its processes still reach PostgreSQL.
    RelayCut,
    /// A region is cut off from the home region.
    CutOff,
    /// Only messages from a region to the home region are lost.
    ToHomeLost,
    /// Only messages from the home region to a region are lost.
    FromHomeLost,
    /// A region is lost. It returns with new processes and an old Redis.
    RegionLost,
    /// The home region is lost, and another region takes over [`TAKEOVER_S`] later. It returns as any other region.
    HomeLost,
    /// A process is paused.
    Paused,
}

/// Time from the loss of the home region until another one has the primary and the bus, in seconds.
pub const TAKEOVER_S: f64 = 8.0;

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::RelayCut,
        Self::CutOff,
        Self::ToHomeLost,
        Self::FromHomeLost,
        Self::RegionLost,
        Self::HomeLost,
        Self::Paused,
    ];

    /// Shortest and longest fault, in seconds.
    pub(super) fn lengths_s(self) -> (f64, f64) {
        match self {
            Self::HomeLost => (TAKEOVER_S + 2.0, TAKEOVER_S + 6.0),
            Self::RegionLost => (1.0, 4.0),
            _ => (0.1, 3.0),
        }
    }
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Round-trip times between regions, in milliseconds. The first one is the home region.
    pub round_trips_ms: Vec<Vec<f64>>,
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
    /// Each process's clock is slower than true time by up to this share.
    pub slow_clocks: f64,
    /// The recurring fault, if any.
    pub fault: Option<FaultKind>,
    /// A rule that is omitted.
    pub broken: Option<Rule>,
    /// Seed of all random times.
    pub seed: u64,
}

/// Results of a run, or of several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Faults that began.
    pub faults: u64,
    /// Redirects.
    pub responses: u64,
    /// Requests without one (503), those to a lost region included.
    pub failed: u64,
    /// Commits.
    pub edits: u64,
    /// Redirects to a target that was replaced more than the bound before.
    pub stale_past_bound: u64,
    /// Longest time from a commit to a redirect to the old target, in milliseconds.
    pub longest_ms: f64,
    /// For each edit and region, the time from the commit to the last redirect to an older target, sorted, in milliseconds.
    pub staleness_ms: Vec<f64>,
}

impl Report {
    /// Adds the results of another run.
    pub fn add(&mut self, other: Self) {
        self.faults += other.faults;
        self.responses += other.responses;
        self.failed += other.failed;
        self.edits += other.edits;
        self.stale_past_bound += other.stale_past_bound;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
        self.staleness_ms.extend(other.staleness_ms);
        self.staleness_ms.sort_by(f64::total_cmp);
    }
}
