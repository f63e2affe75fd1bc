//! Selects a process, kills it, starts it again and waits for the recovery.

use std::time::{Duration, Instant};

use rand::{RngExt, rngs::StdRng};
use rustix::process::{Pid, kill_process};

use crate::{Process, Signal, Stack, expected::metric, within};

/// Longest wait until the installation has recovered from a kill.
const RECOVERY_TIMEOUT: Duration = Duration::from_mins(5);

/// A process of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Gateway(usize),
    Shortener(usize),
    Worker(usize),
    Redis,
    Postgres,
    Nginx,
}

impl Victim {
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Gateway(_) => "gateway",
            Self::Shortener(_) => "shortener",
            Self::Worker(_) => "worker",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Nginx => "nginx",
        }
    }

    fn random(rng: &mut StdRng) -> Self {
        let number = rng.random_range(0..2);
        match rng.random_range(0..6) {
            0 => Self::Gateway(number),
            1 => Self::Shortener(number),
            2 => Self::Worker(number),
            3 => Self::Redis,
            4 => Self::Postgres,
            _ => Self::Nginx,
        }
    }
}

/// One kill.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kill {
    pub(super) victim: Victim,
    /// Just before the signal.
    pub(super) began: Instant,
    /// When the process had ended.
    pub(super) ended: Instant,
}

/// Kills a random process at a random moment, starts it again, and waits until the installation has recovered.
pub(super) async fn kill_one(stack: &mut Stack, rng: &mut StdRng) -> Kill {
    let victim = Victim::random(rng);
    let (before, down) = (rng.random_range(0..400), rng.random_range(0..500));
    tokio::time::sleep(Duration::from_millis(before)).await;
    let began = Instant::now();
    if victim == Victim::Nginx {
        kill_nginx(&mut stack.nginx).await;
    } else {
        process(stack, victim).kill().await;
    }
    let ended = Instant::now();
    tokio::time::sleep(Duration::from_millis(down)).await;
    match victim {
        Victim::Redis => stack.start_redis().await,
        Victim::Postgres => stack.start_postgres().await,
        _ => process(stack, victim).start(),
    }
    wait_for_recovery(stack).await;
    Kill { victim, began, ended }
}

fn process(stack: &mut Stack, victim: Victim) -> &mut Process {
    match victim {
        Victim::Gateway(number) => &mut stack.gateways[number],
        Victim::Shortener(number) => &mut stack.shorteners[number],
        Victim::Worker(number) => &mut stack.workers[number],
        Victim::Redis => &mut stack.redis,
        Victim::Postgres => stack.postgres.as_mut().expect("Postgres::Own"),
        Victim::Nginx => &mut stack.nginx,
    }
}

/// Kills nginx's worker processes with their master. They would otherwise keep the listening socket.
async fn kill_nginx(nginx: &mut Process) {
    let children = nginx.pid().map(children_of).unwrap_or_default();
    nginx.kill().await;
    for child in children {
        // An error means that it ended with its master.
        let _ = kill_process(child, Signal::KILL);
    }
}

fn children_of(pid: u32) -> Vec<Pid> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter_map(Pid::from_raw).collect()
}

/// Waits until every process is ready and every invalidation bus is live. The bound of one second does not hold during
/// simultaneous faults of two stores, which a cycle must not cause.
async fn wait_for_recovery(stack: &Stack) {
    within(RECOVERY_TIMEOUT, "the installation to recover", || async {
        for shortener in &stack.shorteners {
            let Some(response) = shortener.admin_get("/metrics").await else { return false };
            let metrics = crate::Metrics::parse(&response.text());
            if metrics.sum(metric::INVALIDATION_BUS_LIVE, &[]) < 1.0 {
                return false;
            }
        }
        let processes = stack.shorteners.iter().chain(&stack.gateways).chain(&stack.workers);
        for process in processes {
            if !process.is_ready().await {
                return false;
            }
        }
        stack.client().get("/health").try_send().await.is_ok_and(|health| health.status == 200)
    })
    .await;
}
