//! Backups and restore tests, by schedule or by hand.

use std::time::Instant;

use crate::{
    BackupError,
    info::Backups,
    lock,
    log::{Level, log},
    metrics::Metrics,
    push, restore_test,
    schedule::Job,
    settings::Settings,
    time::readable,
    tool::Tool,
};

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
    push::ensure_stanza(tool)?;
    let kind = if is_full { "--type=full" } else { "--type=diff" };
    tool.run("backup", &[kind], settings.job_limit).map(drop)
}

/// The command `backup`.
pub(crate) fn backup_now(settings: &Settings, is_full: bool) -> Result<(), BackupError> {
    let _lock = lock::job(settings)?;
    let tool = Tool::new(settings)?;
    let job = if is_full { Job::FullBackup } else { Job::DifferentialBackup };
    push::meanwhile(settings, &tool, |metrics| run(settings, &tool, metrics, job))?;
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
    let result = push::meanwhile(settings, &tool, |_| restore_test::run(settings, &tool))?;
    println!(
        "restore test succeeded in {} s: newest row of {}, {} links resolved",
        result.duration_s,
        readable(result.newest_row),
        result.resolved_links
    );
    Ok(())
}
