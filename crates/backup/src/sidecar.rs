//! The command `run`: one thread pushes WAL, this one runs jobs that are due, one answers Prometheus.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use crate::{
    BackupError, archive,
    info::Backups,
    instance, jobs,
    lock::{self, Role},
    log::{Level, log},
    metrics::{Archiver, Metrics},
    push,
    repository::Repository,
    schedule::{History, Job, Schedule, retry_after},
    server,
    settings::Settings,
    state::TestResult,
    time::{now, random_share},
    tool::Tool,
};

/// Time between two looks at what is due.
const ROUND: Duration = Duration::from_secs(10);
/// Time between two readings of the repository's list; one-off containers change it.
const LIST_INTERVAL: Duration = Duration::from_mins(5);
/// A failed restore test is repeated this much later than a failed backup: it reads the whole repository.
const TEST_BACKOFF: u32 = 6;

/// Runs until the process is stopped. A wrong setting ends it at once.
pub(crate) fn run(settings: &Settings) -> Result<(), BackupError> {
    let tool = Tool::new(settings)?;
    let metrics = Metrics::new(is_on_database_disk(settings));
    if metrics.lock().is_on_database_disk {
        log(Level::Warn, "the repository is on the database's disk: a lost disk loses both", &[]);
    }
    server::start(settings, metrics.clone())?;
    let never = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| push::run(settings, &tool, &metrics, &never));
        Scheduler::new(settings, &tool, &metrics).run();
    });
    Ok(())
}

/// A folder on the database's disk is lost with it.
fn is_on_database_disk(settings: &Settings) -> bool {
    let Repository::Disk { path } = &settings.repository else { return false };
    let device = |path: &std::path::Path| fs::metadata(path).ok().map(|file| file.dev());
    let repository = device(path.as_ref());
    repository.is_some() && repository == device(&settings.data)
}

/// A job that is repeated later.
#[derive(Clone, Copy)]
struct Failed {
    /// Failures in a row.
    times: u32,
    not_before: Instant,
}

struct Scheduler<'a> {
    settings: &'a Settings,
    tool: &'a Tool,
    metrics: &'a Metrics,
    schedule: Schedule,
    /// Jobs whose last run failed. A restore test that keeps failing does not delay backups.
    failed: BTreeMap<Job, Failed>,
    list_after: Instant,
    /// When PostgreSQL started that was last reloaded.
    server_start: Option<String>,
}

impl<'a> Scheduler<'a> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of an hour, in seconds"
    )]
    fn new(settings: &'a Settings, tool: &'a Tool, metrics: &'a Metrics) -> Self {
        let schedule = Schedule {
            full: settings.full,
            differential: settings.differential,
            restore_test: settings.restore_test,
            hour: settings.hour,
            offset_s: (random_share() * 1_800.0) as u32,
        };
        let now = Instant::now();
        Self {
            settings,
            tool,
            metrics,
            schedule,
            failed: BTreeMap::new(),
            list_after: now,
            server_start: None,
        }
    }

    fn run(mut self) -> ! {
        loop {
            self.round();
            thread::park_timeout(ROUND);
        }
    }

    fn round(&mut self) {
        self.read_archiver();
        self.metrics.lock().test = TestResult::load(self.settings);
        if Instant::now() >= self.list_after {
            self.read_list();
        }
        self.settle();
        let Some(history) = self.history() else { return };
        let waits = |job: &Job| {
            self.failed.get(job).is_some_and(|failed| Instant::now() < failed.not_before)
        };
        let due = self.schedule.due(now(), &history);
        if let Some(job) = due.into_iter().find(|job| !waits(job)) {
            self.run_job(job);
        }
    }

    /// Completes a restore that was interrupted after it had replaced the database.
    fn settle(&self) {
        if !archive::is_unsettled(self.settings) {
            return;
        }
        let Ok(Some(_lock)) = lock::try_lock(self.settings, Role::Job) else { return };
        if let Err(error) = archive::settle(self.settings) {
            let error = error.to_string();
            log(
                Level::Error,
                "WAL of the restored database was not moved",
                &[("error", error.into())],
            );
        }
    }

    /// The last successes. Unknown until the list has been read: an unreachable repository is not an empty one.
    fn history(&self) -> Option<History> {
        let figures = self.metrics.lock();
        let backups = figures.backups.as_ref()?;
        let test = figures.test.succeeded;
        Some(History {
            full: backups.last_full().map(|backup| backup.stopped),
            any: backups.last().map(|backup| backup.stopped),
            restore_test: (test > 0).then_some(test),
        })
    }

    fn run_job(&mut self, job: Job) {
        // A one-off container works: its result is read in the next round.
        let Ok(Some(_lock)) = lock::try_lock(self.settings, Role::Job) else { return };
        // PostgreSQL is not up yet, or it is stopped for a restore.
        if instance::query(self.settings, &self.settings.socket, "SELECT 1").is_err() {
            return;
        }
        let outcome = jobs::run(self.settings, self.tool, self.metrics, job);
        self.list_after = Instant::now();
        let before = self.failed.remove(&job);
        if outcome.is_err() {
            let times = before.map_or(1, |failed| failed.times.saturating_add(1));
            let factor = if job == Job::RestoreTest { TEST_BACKOFF } else { 1 };
            let not_before = Instant::now() + retry_after(times, random_share()) * factor;
            self.failed.insert(job, Failed { times, not_before });
        }
    }

    fn read_list(&mut self) {
        match Backups::read(self.tool) {
            Ok(backups) => {
                self.metrics.lock().backups = Some(backups);
                self.list_after = Instant::now() + LIST_INTERVAL;
            }
            Err(error) => {
                self.metrics.lock().list_failures += 1;
                self.list_after =
                    Instant::now() + LIST_INTERVAL.mul_f64(0.2 + 0.2 * random_share());
                log(
                    Level::Error,
                    "the backups cannot be listed",
                    &[("error", error.to_string().into())],
                );
            }
        }
    }

    fn read_archiver(&mut self) {
        let row = instance::query_row(
            self.settings,
            &self.settings.socket,
            "SELECT failed_count, COALESCE(extract(epoch FROM now() - last_archived_time)::bigint, 0), \
             pg_postmaster_start_time() FROM pg_stat_archiver",
        );
        if let Ok(row) = &row
            && row.get(2) != self.server_start.as_ref()
        {
            self.wake_checkpointer(row.get(2).cloned());
        }
        let number = |row: &[String], index: usize| {
            row.get(index).and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        self.metrics.lock().archiver = row
            .ok()
            .map(|row| Archiver { failed: number(&row, 0), last_archived_s: number(&row, 1) });
    }

    /// The checkpointer, which closes segments after `archive_timeout`, looks at that setting only when it wakes up. It
    /// falls asleep during PostgreSQL's start, when the setting does not apply yet, for `checkpoint_timeout`: without
    /// this, no segment would be closed in the first 15 min (seen with 17.12).
    fn wake_checkpointer(&mut self, server_start: Option<String>) {
        match instance::query(self.settings, &self.settings.socket, "SELECT pg_reload_conf()") {
            Ok(_) => self.server_start = server_start,
            Err(error) => {
                log(
                    Level::Warn,
                    "PostgreSQL was not reloaded",
                    &[("error", error.to_string().into())],
                );
            }
        }
    }
}
