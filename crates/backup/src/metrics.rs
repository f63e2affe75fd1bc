//! Metrics in Prometheus's text format.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{archive::Backlog, info::Backups, state::TestResult};

/// PostgreSQL's own figures of its archiver.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Archiver {
    /// Calls of `archive_command` that failed since the statistics were reset.
    pub(crate) failed: u64,
    /// Seconds since the last segment was archived.
    pub(crate) last_archived_s: u64,
}

/// All figures of one process.
#[derive(Debug)]
pub(crate) struct Figures {
    /// The list of backups, once it has been read.
    pub(crate) backups: Option<Backups>,
    pub(crate) backlog: Backlog,
    pub(crate) archiver: Option<Archiver>,
    pub(crate) test: TestResult,
    /// Whether repository and database are on the same disk, which a lost disk does not survive.
    pub(crate) is_on_database_disk: bool,
    pub(crate) pushed: u64,
    pub(crate) push_failures: u64,
    pub(crate) list_failures: u64,
    /// Runs by kind and outcome.
    pub(crate) runs: BTreeMap<(&'static str, &'static str), u64>,
    /// Duration of the last run by kind, in seconds.
    pub(crate) durations: BTreeMap<&'static str, u64>,
    /// When the push loop last came round.
    pub(crate) last_round: Instant,
}

/// Figures that threads share.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(Arc<Mutex<Figures>>);

impl Metrics {
    pub(crate) fn new(is_on_database_disk: bool) -> Self {
        let mut runs = BTreeMap::new();
        // A counter that begins with its first failure has no increase that an alert could see.
        for kind in ["full", "differential", "restore_test"] {
            for outcome in ["succeeded", "failed"] {
                runs.insert((kind, outcome), 0);
            }
        }
        Self(Arc::new(Mutex::new(Figures {
            backups: None,
            backlog: Backlog::default(),
            archiver: None,
            test: TestResult::default(),
            is_on_database_disk,
            pushed: 0,
            push_failures: 0,
            list_failures: 0,
            runs,
            durations: BTreeMap::new(),
            last_round: Instant::now(),
        })))
    }

    /// A thread that panicked leaves valid figures, because each update is one assignment.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count_run(&self, kind: &'static str, is_success: bool, seconds: u64) {
        let mut figures = self.lock();
        let outcome = if is_success { "succeeded" } else { "failed" };
        *figures.runs.entry((kind, outcome)).or_default() += 1;
        figures.durations.insert(kind, seconds);
    }
}

struct Page(String);

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str, samples: &[(String, &dyn Display)]) {
        if samples.is_empty() {
            return;
        }
        // Writing to memory cannot fail.
        let _ = writeln!(
            self.0,
            "# HELP linnet_backup_{name} {help}\n# TYPE linnet_backup_{name} {kind}"
        );
        for (labels, value) in samples {
            let _ = writeln!(self.0, "linnet_backup_{name}{labels} {value}");
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, "gauge", help, &[(String::new(), &value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, "counter", help, &[(String::new(), &value)]);
    }
}

/// Renders all figures.
pub(crate) fn render(figures: &Figures) -> String {
    let mut page = Page(String::new());
    backups(&mut page, figures);
    archive(&mut page, figures);
    restore_test(&mut page, &figures.test);
    let runs: Vec<_> = figures
        .runs
        .iter()
        .map(|((kind, outcome), count)| {
            (format!("{{kind=\"{kind}\",outcome=\"{outcome}\"}}"), count as &dyn Display)
        })
        .collect();
    page.metric("runs_total", "counter", "Scheduled and manual runs of this process.", &runs);
    let durations: Vec<_> = figures
        .durations
        .iter()
        .map(|(kind, seconds)| (format!("{{kind=\"{kind}\"}}"), seconds as &dyn Display))
        .collect();
    page.metric(
        "run_duration_seconds",
        "gauge",
        "Duration of the last run, in seconds.",
        &durations,
    );
    page.gauge(
        "repository_on_database_disk",
        "Whether the repository is on the database's disk, where it is no backup.",
        u8::from(figures.is_on_database_disk),
    );
    page.0
}

fn backups(page: &mut Page, figures: &Figures) {
    page.counter(
        "list_failures_total",
        "Failed attempts to list the backups in the repository.",
        figures.list_failures,
    );
    let Some(backups) = &figures.backups else { return };
    let time = |backup: Option<&crate::info::Backup>| backup.map_or(0, |backup| backup.stopped);
    let (full, any) = (time(backups.last_full()), time(backups.last()));
    page.metric(
        "last_success_timestamp_seconds",
        "gauge",
        "End of the last backup, 0 if there is none: kind `full`, or `any`.",
        &[("{kind=\"full\"}".to_owned(), &full), ("{kind=\"any\"}".to_owned(), &any)],
    );
    page.gauge("backups", "Backups in the repository.", backups.all.len());
    if let Some(last) = backups.last() {
        page.gauge(
            "last_database_bytes",
            "Size of the database in the last backup, in bytes.",
            last.database_bytes,
        );
        page.gauge(
            "last_repository_bytes",
            "Bytes that the last backup added to the repository.",
            last.repository_bytes,
        );
        page.gauge(
            "last_has_errors",
            "Whether the last backup found damaged pages.",
            u8::from(last.has_errors),
        );
    }
}

fn archive(page: &mut Page, figures: &Figures) {
    let backlog = &figures.backlog;
    page.gauge(
        "archive_waiting_segments",
        "WAL segments that wait for the repository.",
        backlog.segments.len(),
    );
    page.gauge(
        "archive_waiting_bytes",
        "Disk space of the WAL segments that wait, in bytes.",
        backlog.bytes(),
    );
    page.gauge(
        "archive_oldest_seconds",
        "Age of the oldest WAL segment that waits for the repository, in seconds.",
        backlog.oldest().as_secs(),
    );
    page.gauge(
        "archive_unarchived_segments",
        "WAL segments that PostgreSQL has closed and its archive_command has not taken.",
        backlog.not_archived,
    );
    page.counter("archive_pushed_total", "WAL segments that were pushed.", figures.pushed);
    page.counter(
        "archive_push_failures_total",
        "Failed attempts to push a WAL segment.",
        figures.push_failures,
    );
    if let Some(archiver) = figures.archiver {
        page.counter(
            "archiver_failures_total",
            "Failed calls of PostgreSQL's archive_command.",
            archiver.failed,
        );
        page.gauge(
            "archiver_last_age_seconds",
            "Time since PostgreSQL archived a WAL segment, in seconds.",
            archiver.last_archived_s,
        );
    }
}

fn restore_test(page: &mut Page, test: &TestResult) {
    page.gauge(
        "restore_test_success_timestamp_seconds",
        "End of the last restore test that succeeded, 0 if none has.",
        test.succeeded,
    );
    if test.ended == 0 {
        return;
    }
    page.gauge(
        "restore_test_ok",
        "Whether the last restore test succeeded.",
        u8::from(test.failure.is_empty()),
    );
    page.gauge(
        "restore_test_duration_seconds",
        "Duration of the last restore test, in seconds.",
        test.duration_s,
    );
    page.gauge(
        "restore_test_newest_row_timestamp_seconds",
        "Time of the newest restored row.",
        test.newest_row,
    );
    page.gauge(
        "restore_test_lag_seconds",
        "How much older the newest restored row was than the newest row of the live database, in seconds.",
        test.lag_s,
    );
    page.gauge(
        "restore_test_resolved_links",
        "Links that the restored database resolved.",
        test.resolved_links,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::Backup;

    #[test]
    fn page_has_a_series_for_every_figure_with_help_and_type() {
        let metrics = Metrics::new(true);
        {
            let mut figures = metrics.lock();
            let backup = Backup {
                label: "a".into(),
                is_full: true,
                started: 1,
                stopped: 2,
                database_bytes: 3,
                repository_bytes: 4,
                has_errors: false,
            };
            figures.backups = Some(Backups { all: vec![backup], newest_segment: None });
            figures.test = TestResult { ended: 5, failure: "x".into(), ..TestResult::default() };
        }
        metrics.count_run("full", true, 6);
        let page = render(&metrics.lock());
        for line in [
            "linnet_backup_last_success_timestamp_seconds{kind=\"full\"} 2",
            "linnet_backup_restore_test_ok 0",
            "linnet_backup_runs_total{kind=\"full\",outcome=\"succeeded\"} 1",
            "linnet_backup_runs_total{kind=\"restore_test\",outcome=\"failed\"} 0",
            "linnet_backup_run_duration_seconds{kind=\"full\"} 6",
            "linnet_backup_repository_on_database_disk 1",
        ] {
            assert!(page.lines().any(|one| one == line), "{line} is not in:\n{page}");
        }
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(page.contains(&format!("# HELP {name} ")), "{name}");
            assert!(page.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }

    #[test]
    fn unknown_figures_have_no_series() {
        let page = render(&Metrics::new(false).lock());
        assert!(!page.contains("last_success_timestamp_seconds{"), "{page}");
        assert!(!page.contains("restore_test_ok"), "{page}");
    }
}
