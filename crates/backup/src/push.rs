//! Pushes WAL into the repository: all the time in the sidecar, and during the commands that need it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    BackupError, archive, instance,
    lock::{self, Role},
    log::{Level, log},
    metrics::Metrics,
    settings::Settings,
    time::random_share,
    tool::Tool,
};

/// Longest `stanza-create`.
const SHORT_LIMIT: Duration = Duration::from_mins(2);
/// Longest time until all WAL segments have been pushed.
const DRAIN_LIMIT: Duration = Duration::from_mins(10);
const STANZA_ATTEMPTS: u32 = 20;
/// pgBackRest's exit code for a lock that another process holds.
const LOCKED: i32 = 50;
/// pgBackRest's exit codes for a repository without this database.
const MISSING: [i32; 2] = [55, 103];
/// A push takes about a second. Without one for this time, the repository refuses segments.
const STALL_LIMIT: Duration = Duration::from_mins(1);
/// Time between two looks at the archive folder.
const ROUND: Duration = Duration::from_secs(1);
/// Longest time until a failed push is repeated.
const PUSH_BACKOFF: Duration = Duration::from_secs(20);

/// Creates the place of this database in the repository, unless it exists. It fails for another database's place.
pub(crate) fn ensure_stanza(tool: &Tool) -> Result<(), BackupError> {
    for _ in 0..STANZA_ATTEMPTS {
        match tool.run("stanza-create", &[], SHORT_LIMIT) {
            // The thread that pushes, or another container, does the same at this moment.
            Err(BackupError::Failed { code: LOCKED, .. }) => thread::sleep(ROUND),
            outcome => return outcome.map(drop),
        }
    }
    Err(BackupError::Busy)
}

/// Pushes segments until `stop`, as long as no other process does.
pub(crate) fn run(settings: &Settings, tool: &Tool, metrics: &Metrics, stop: &AtomicBool) {
    let mut failures: u32 = 0;
    let mut lock = None;
    while !stop.load(Ordering::Relaxed) {
        let pause = match push_round(settings, tool, metrics, &mut lock) {
            Ok(()) => {
                if failures > 0 {
                    log(Level::Info, "pushing WAL works again", &[("failures", failures.into())]);
                }
                failures = 0;
                ROUND
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                metrics.lock().push_failures += 1;
                log(
                    Level::Error,
                    "WAL was not pushed",
                    &[("error", error.to_string().into()), ("failures", failures.into())],
                );
                ROUND
                    .saturating_mul(1 << failures.min(8))
                    .min(PUSH_BACKOFF)
                    .mul_f64(0.5 + random_share())
            }
        };
        thread::park_timeout(pause);
    }
}

fn has_database(settings: &Settings) -> bool {
    instance::query(settings, &settings.socket, "SELECT 1").is_ok()
}

fn push_round(
    settings: &Settings,
    tool: &Tool,
    metrics: &Metrics,
    lock: &mut Option<lock::Held>,
) -> Result<(), BackupError> {
    let backlog = archive::backlog(settings)?;
    metrics.lock().last_round = Instant::now();
    if lock.is_none() {
        *lock = lock::try_lock(settings, Role::Push)?;
    }
    if lock.is_none() {
        return Ok(());
    }
    for segment in &backlog.segments {
        match archive::push(tool, segment) {
            // Created only when it is missing: a backup in progress holds the lock that creating needs, and waits for
            // segments.
            Err(BackupError::Failed { code, .. })
                if MISSING.contains(&code) && has_database(settings) =>
            {
                ensure_stanza(tool)?;
                archive::push(tool, segment)?;
            }
            outcome => outcome?,
        }
        let mut figures = metrics.lock();
        figures.pushed += 1;
        figures.last_round = Instant::now();
    }
    Ok(())
}

/// Pushes in a second thread, for as long as `work` takes.
pub(crate) fn meanwhile<T>(
    settings: &Settings,
    tool: &Tool,
    work: impl FnOnce(&Metrics) -> Result<T, BackupError>,
) -> Result<T, BackupError> {
    let metrics = Metrics::new(false);
    let stop = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let pusher = {
            let (metrics, stop) = (metrics.clone(), Arc::clone(&stop));
            scope.spawn(move || run(settings, tool, &metrics, &stop))
        };
        let outcome = work(&metrics);
        stop.store(true, Ordering::Relaxed);
        pusher.thread().unpark();
        outcome
    })
}

/// The command `drain`.
pub(crate) fn drain(settings: &Settings) -> Result<(), BackupError> {
    push_all(settings)?;
    println!("no WAL segment waits");
    Ok(())
}

/// Waits until all segments of the archive folder are in the repository; pushes them unless another process does.
pub(crate) fn push_all(settings: &Settings) -> Result<(), BackupError> {
    if archive::backlog(settings)?.segments.is_empty() {
        return Ok(());
    }
    let tool = Tool::new(settings)?;
    meanwhile(settings, &tool, |metrics| {
        let deadline = Instant::now() + DRAIN_LIMIT;
        let (mut least, mut progress) = (usize::MAX, Instant::now());
        loop {
            let waiting = archive::backlog(settings)?.segments.len();
            if waiting == 0 {
                return Ok(());
            }
            if waiting < least {
                (least, progress) = (waiting, Instant::now());
            }
            // The pushing process may be in another container, whose failures are not known here.
            let is_stalled = progress.elapsed() > STALL_LIMIT || metrics.lock().push_failures >= 3;
            if is_stalled || Instant::now() > deadline {
                return Err(BackupError::Refused(format!(
                    "{waiting} WAL segment(s) cannot be pushed, and would be lost; the log of the sidecar has the \
                     reason. --without-newest gives them up"
                )));
            }
            thread::sleep(Duration::from_millis(200));
        }
    })
}
