//! Backups and restore tests, by schedule or by hand, and the push of WAL that they need.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    BackupError, archive,
    info::Backups,
    instance,
    lock::{self, Role},
    log::{Level, log},
    metrics::Metrics,
    restore_test,
    schedule::Job,
    settings::Settings,
    time::{random_share, readable},
    tool::Tool,
};

/// Longest `stanza-create` and `expire`.
const SHORT_LIMIT: Duration = Duration::from_mins(2);
/// Longest time until all WAL segments have been pushed.
const DRAIN_LIMIT: Duration = Duration::from_mins(10);
const STANZA_ATTEMPTS: u32 = 20;
/// pgBackRest's exit code for a lock that another process holds.
const LOCKED: i32 = 50;
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
pub(crate) fn push_loop(settings: &Settings, tool: &Tool, metrics: &Metrics, stop: &AtomicBool) {
    let mut failures: u32 = 0;
    let mut is_created = false;
    let mut lock = None;
    while !stop.load(Ordering::Relaxed) {
        let pause = match push_round(settings, tool, metrics, &mut lock, &mut is_created) {
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

fn push_round(
    settings: &Settings,
    tool: &Tool,
    metrics: &Metrics,
    lock: &mut Option<lock::Held>,
    is_created: &mut bool,
) -> Result<(), BackupError> {
    let backlog = archive::backlog(settings)?;
    {
        let mut figures = metrics.lock();
        figures.backlog = archive::backlog(settings)?;
        figures.last_round = Instant::now();
    }
    if lock.is_none() {
        *lock = lock::try_lock(settings, Role::Push)?;
    }
    if lock.is_none() {
        return Ok(());
    }
    // Without the database there is nothing to create, but there may be segments to push.
    if !*is_created && instance::query(settings, &settings.socket, "SELECT 1").is_ok() {
        ensure_stanza(tool)?;
        *is_created = true;
    }
    for segment in &backlog.segments {
        archive::push(tool, segment)?;
        let mut figures = metrics.lock();
        figures.pushed += 1;
        figures.last_round = Instant::now();
        figures.backlog = archive::backlog(settings)?;
    }
    Ok(())
}

/// Runs a job that is due. The caller holds the lock of jobs.
pub(crate) fn run(
    settings: &Settings,
    tool: &Tool,
    metrics: &Metrics,
    job: Job,
) -> Result<(), BackupError> {
    let started = Instant::now();
    log(Level::Info, "job started", &[("kind", job.name().into())]);
    let outcome = match job {
        Job::FullBackup => backup(settings, tool, true),
        Job::DifferentialBackup => backup(settings, tool, false),
        Job::RestoreTest => restore_test::run(settings, tool).map(drop),
    };
    let seconds = started.elapsed().as_secs();
    metrics.count_run(job.name(), outcome.is_ok(), seconds);
    match &outcome {
        Ok(()) => log(
            Level::Info,
            "job finished",
            &[("kind", job.name().into()), ("seconds", seconds.into())],
        ),
        Err(error) => log(
            Level::Error,
            "job failed",
            &[
                ("kind", job.name().into()),
                ("seconds", seconds.into()),
                ("error", error.to_string().into()),
            ],
        ),
    }
    outcome
}

/// Backs up. pgBackRest then also removes backups and WAL that are no longer kept.
fn backup(settings: &Settings, tool: &Tool, is_full: bool) -> Result<(), BackupError> {
    ensure_stanza(tool)?;
    let kind = if is_full { "--type=full" } else { "--type=diff" };
    tool.run("backup", &[kind], settings.job_limit).map(drop)
}

/// Pushes in a second thread, for as long as `work` takes.
fn while_pushing<T>(
    settings: &Settings,
    tool: &Tool,
    work: impl FnOnce(&Metrics) -> Result<T, BackupError>,
) -> Result<T, BackupError> {
    let metrics = Metrics::new(false);
    let stop = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let pusher = {
            let (metrics, stop) = (metrics.clone(), Arc::clone(&stop));
            scope.spawn(move || push_loop(settings, tool, &metrics, &stop))
        };
        let outcome = work(&metrics);
        stop.store(true, Ordering::Relaxed);
        pusher.thread().unpark();
        outcome
    })
}

/// The command `backup`.
pub(crate) fn backup_now(settings: &Settings, is_full: bool) -> Result<(), BackupError> {
    let _lock = lock::job(settings)?;
    let tool = Tool::new(settings)?;
    let job = if is_full { Job::FullBackup } else { Job::DifferentialBackup };
    while_pushing(settings, &tool, |metrics| run(settings, &tool, metrics, job))?;
    let backups = Backups::read(&tool)?;
    if let Some(backup) = backups.last() {
        println!(
            "backup {} of {}: {} MiB, {} KiB added to the repository",
            backup.label,
            readable(backup.stopped),
            backup.database_bytes >> 20,
            backup.repository_bytes >> 10
        );
    }
    Ok(())
}

/// The command `restore-test`.
pub(crate) fn restore_test_now(settings: &Settings) -> Result<(), BackupError> {
    let _lock = lock::job(settings)?;
    let tool = Tool::new(settings)?;
    let result = while_pushing(settings, &tool, |_| restore_test::run(settings, &tool))?;
    println!(
        "restore test succeeded in {} s: newest row of {}, {} links resolved",
        result.duration_s,
        readable(result.newest_row),
        result.resolved_links
    );
    Ok(())
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
    while_pushing(settings, &tool, |metrics| {
        let deadline = Instant::now() + DRAIN_LIMIT;
        loop {
            let waiting = archive::backlog(settings)?.segments.len();
            if waiting == 0 {
                return Ok(());
            }
            // A repository that refuses three times does not accept the fourth attempt soon.
            if Instant::now() > deadline || metrics.lock().push_failures >= 3 {
                return Err(BackupError::Refused(format!(
                    "{waiting} WAL segment(s) cannot be pushed; the log above has the reason"
                )));
            }
            // The pushing process may be in another container; the deadline bounds this.
            thread::sleep(Duration::from_millis(200));
        }
    })
}
