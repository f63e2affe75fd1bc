//! Kills random processes under load, and compares every acknowledged write with the stored state afterwards.
//!
//! A **cycle** kills one process (gateway, shortener, worker, Redis, PostgreSQL or nginx) with `SIGKILL`, starts it
//! again after a random time, and waits until the installation has recovered. A **round** is a stack with a number of
//! cycles. At its end the clients stop, and [`check`] compares their [`ledger`] with the database and the API:
//!
//! * no acknowledged creation, edit, deletion or import is lost, and none was executed twice;
//! * a process serves no target that was replaced more than a second before the request;
//! * a link with `max_clicks` redirects no more visits than that;
//! * each click is recorded once, with the losses that `docs/ARCHITECTURE.md` states (a killed shortener's last flush
//!   interval; the last second of a killed Redis).

mod check;
mod ledger;
mod victims;
mod visitors;
mod writers;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rand::{SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{Client, Postgres, Stack};
use ledger::{Ledger, VisitRecord};
use victims::Kill;
use visitors::Route;

const SHORTENERS: usize = 2;
const WRITERS: usize = 3;
const READERS: usize = 3;
const LINKS_PER_ROUTE: usize = 5;
const ROUTES: [Route; 3] = [Route::Shortener(0), Route::Shortener(1), Route::Nginx];

/// The totals of one round or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Processes that were killed.
    pub cycles: u64,
    /// Kills by kind of process.
    pub kills: BTreeMap<String, u64>,
    /// Acknowledged creations, edits, deletions and uploads.
    pub writes: u64,
    /// Rows of accepted imports.
    pub imported_rows: u64,
    /// Responses of changing links that were compared with the acknowledged changes.
    pub checked_reads: u64,
    /// Redirects of counted links.
    pub clicks: u64,
    /// Missing clicks within the losses that ARCHITECTURE states.
    pub clicks_lost_as_stated: u64,
    /// Violations: lost or repeated writes, stale responses, and missing or repeated clicks beyond the stated losses.
    pub violations: Vec<String>,
}

impl Totals {
    /// Adds the totals of another round.
    pub fn add(&mut self, other: &Self) {
        self.cycles += other.cycles;
        for (kind, count) in &other.kills {
            *self.kills.entry(kind.clone()).or_default() += count;
        }
        self.writes += other.writes;
        self.imported_rows += other.imported_rows;
        self.checked_reads += other.checked_reads;
        self.clicks += other.clicks;
        self.clicks_lost_as_stated += other.clicks_lost_as_stated;
        self.violations.extend(other.violations.iter().cloned());
    }
}

/// The parts that all clients of a round share.
#[derive(Debug)]
struct Clients {
    ledger: Ledger,
    /// With the key of a user who may write links and jobs.
    api: Client,
    /// Without a key.
    visitor: Client,
    folder: PathBuf,
    seed: u64,
    /// Unique among the rounds of a run; part of codes and targets.
    round_name: String,
    is_stopping: AtomicBool,
}

impl Clients {
    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }
}

/// Runs a round of `cycles` kills. The same seed selects the same processes, pauses and requests; their interleaving
/// differs from run to run.
pub async fn run_round(seed: u64, cycles: u64) -> Totals {
    run_tampered_round(seed, cycles, async |_| ()).await
}

/// [`run_round`], with a function that runs between the end of the load and the comparison. Tests of the comparison
/// damage the installation with it.
pub async fn run_tampered_round(
    seed: u64,
    cycles: u64,
    tamper: impl AsyncFnOnce(&Stack),
) -> Totals {
    let mut stack = start_stack().await;
    let (_, api) = stack.create_user("writer", &["urls:read", "urls:write", "jobs:write"]).await;
    let clients = Arc::new(Clients {
        ledger: Ledger::default(),
        visitor: stack.client().anonymous(),
        folder: stack.folder().to_owned(),
        seed,
        round_name: format!("{:04x}", seed & 0xffff),
        is_stopping: AtomicBool::new(false),
        api,
    });
    let mut tasks = start_clients(&clients).await;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut kills = Vec::new();
    for _ in 0..cycles {
        kills.push(victims::kill_one(&mut stack, &mut rng).await);
    }
    clients.is_stopping.store(true, Ordering::Relaxed);
    let mut violations = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            violations.push(format!("a client failed: {error}"));
        }
    }
    check::wait_until_idle(&stack).await;
    tamper(&stack).await;
    let mut totals = check::check(&stack, &clients, &kills).await;
    totals.violations.extend(violations);
    if !totals.violations.is_empty() {
        totals.violations.push(format!("kills of this round: {kills:?}"));
        stack.keep_folder();
    }
    totals.cycles = cycles;
    for kill in &kills {
        *totals.kills.entry(kill.victim.kind().to_owned()).or_default() += 1;
    }
    totals
}

async fn start_stack() -> Stack {
    Stack::builder()
        .postgres(Postgres::Own)
        .shorteners(SHORTENERS)
        .gateways(2)
        .workers(2)
        .redis_env("LINNET_REDIS_APPENDONLY", "yes")
        .env("LINNET__WORKER__CLAIM_AFTER_MS", 1_000)
        .env("LINNET__JOBS__LEASE_MS", 2_000)
        .env("LINNET__JOBS__RETRY_MS", 50)
        .env("LINNET__JOBS__FREE_BYTES", 0)
        // Attempts without progress are frequent here, and a dead letter would need an operator.
        .env("LINNET__JOBS__MAX_ATTEMPTS", 20)
        .start()
        .await
}

async fn start_clients(clients: &Arc<Clients>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for route in ROUTES {
        let mut codes = Vec::new();
        for number in 0..LINKS_PER_ROUTE {
            let target = format!("https://example.com/{number}");
            let link = clients.api.shorten(&serde_json::json!({"original_url": target})).await;
            codes.push(link["short_code"].as_str().expect("a code").to_owned());
            let id = link["id"].as_i64().expect("an id");
            let mut records = clients.ledger.lock();
            let visits: &mut VisitRecord = records.visits.entry(route.name()).or_default();
            visits.links.push(id);
        }
        tasks.spawn(visitors::visit_links(Arc::clone(clients), route, codes));
    }
    for number in 0..WRITERS {
        tasks.spawn(writers::write_links(Arc::clone(clients), number));
    }
    for number in 0..READERS {
        tasks.spawn(visitors::read_links(Arc::clone(clients), number));
    }
    tasks.spawn(writers::import_links(Arc::clone(clients)));
    tasks.spawn(visitors::use_up_links(Arc::clone(clients)));
    tasks
}

/// Whether a moment is at most `seconds` before one of these kills.
fn is_before(at: Instant, kill: &Kill, seconds: f64) -> bool {
    at <= kill.ended && kill.began.saturating_duration_since(at).as_secs_f64() <= seconds
}
