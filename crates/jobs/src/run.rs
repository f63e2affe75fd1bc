//! Runs one attempt of a job, from the position that earlier attempts reached.

use std::{
    error::Error,
    sync::{Arc, LazyLock},
    time::Duration,
};

use chrono::Utc;
use linnet_platform::{
    backoff::{Backoff, jittered},
    redis_client::RedisClient,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use linnet_domain::{JobError, JobKind, TargetPolicy, Visibility};
use linnet_import::{
    Bounds, Chunk, ImportRow, RowRules, Written, read_chunks,
    source::{Position, SourceError},
    write_chunk,
};
use linnet_protocol::invalidation::{DELETE_NEGATIVE_ENTRIES, l2_key};
use linnet_store::{
    AttemptEnd, ChunkProgress, ImportLink, ImportUser, JobRun, Store, StoreError, WriteOptions,
};

use super::{JobMetrics, JobSettings, throttle::Throttle, upload::UploadArea};

static DELETION: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(DELETE_NEGATIVE_ENTRIES));

/// Time for which reading and writing a chunk are retried while PostgreSQL is unreachable. After it, the attempt fails.
const CHUNK_BUDGET: Duration = Duration::from_mins(5);

pub(super) const fn new_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(2))
}

/// How an attempt without an error ended.
enum AttemptResult {
    /// All rows are read.
    Completed,
    /// The job was cancelled, deleted or taken over.
    LeaseLost,
    /// The process stops.
    Stopped,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the thread that reads the upload panicked")]
    ReaderPanicked,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// `jobs.max_attempts`, as attempts are counted in a job's row.
fn max_attempts(settings: &JobSettings) -> i32 {
    i32::try_from(settings.max_attempts).unwrap_or(i32::MAX)
}

/// The consequence of a failure of the attempt with this number, which counts from 1: a further attempt after a jittered
/// wait, or the dead-letter queue after the last one.
fn end_of_failure(settings: &JobSettings, attempt: i32) -> AttemptEnd {
    if attempt >= max_attempts(settings) {
        return AttemptEnd::Dead;
    }
    let attempt = u32::try_from(attempt).unwrap_or(1);
    AttemptEnd::Retry(jittered(settings.backoff(attempt)))
}

/// The name of an end in the metric of ended attempts.
fn outcome_of(end: &AttemptEnd) -> &'static str {
    match end {
        AttemptEnd::Retry(_) => "retried",
        AttemptEnd::Dead => "dead",
        AttemptEnd::Refused => "refused",
    }
}

/// Runs the jobs of one lane.
pub(super) struct JobRunner {
    pub(super) store: Store,
    pub(super) redis: RedisClient,
    pub(super) uploads: UploadArea,
    pub(super) settings: JobSettings,
    pub(super) targets: TargetPolicy,
    pub(super) metrics: std::sync::Arc<JobMetrics>,
}

impl JobRunner {
    /// Runs one attempt of a job that this worker has leased. Releases the job when `stop` is cancelled.
    pub(super) async fn run(&self, mut run: JobRun, stop: &CancellationToken) {
        let run = &mut run;
        let max_attempts = max_attempts(&self.settings);
        if run.attempts > max_attempts {
            // The workers of the earlier attempts died before they could record an error.
            let message = format!("{max_attempts} attempts in a row ended without an error");
            let error = JobError { code: "worker_died".to_owned(), message };
            self.end(run, AttemptEnd::Dead, &error).await;
            return;
        }
        let result = match run.kind {
            JobKind::ImportUsers => self.import::<ImportUser>(run, stop).await,
            JobKind::ImportUrls => self.import::<ImportLink>(run, stop).await,
        };
        match result {
            Ok(AttemptResult::Completed) => {
                self.metrics.add_ended(run.kind, "succeeded");
                tracing::info!(job = run.id.get(), "job succeeded");
                self.remove_upload(run).await;
            }
            Ok(AttemptResult::LeaseLost) => self.after_lost_lease(run).await,
            Ok(AttemptResult::Stopped) => {
                if let Err(error) = self.store.release_job(run).await {
                    let job = run.id.get();
                    tracing::warn!(job, %error, "job not released; its lease will expire");
                }
            }
            Err(AttemptError::Source(error)) if error.is_of_file() => {
                let error = JobError { code: error.code().into(), message: error.to_string() };
                // Otherwise the next attempt reads the upload.
                if self.end(run, AttemptEnd::Refused, &error).await {
                    self.remove_upload(run).await;
                }
            }
            Err(error) => self.end_failed_attempt(run, &error).await,
        }
    }

    async fn end_failed_attempt(&self, run: &JobRun, error: &AttemptError) {
        let end = end_of_failure(&self.settings, run.attempts);
        self.metrics.failed_attempts.add(1);
        let (job, attempt) = (run.id.get(), run.attempts);
        tracing::warn!(job, attempt, error = error as &dyn Error, "job attempt failed");
        // The error's sources may name paths and statements, so they are logged but not stored for the client.
        let error = JobError { code: "internal".into(), message: error.to_string() };
        self.end(run, end, &error).await;
    }

    async fn import<T: ImportRow>(
        &self,
        run: &mut JobRun,
        stop: &CancellationToken,
    ) -> Result<AttemptResult, AttemptError> {
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        let bounds = Bounds {
            file: Arc::new(self.uploads.file(&run.upload)),
            format: run.format,
            from: Position { offset: number(run.resume_offset), line: number(run.resume_line) },
            rows: self.settings.chunk_rows,
        };
        let rules = RowRules {
            targets: self.targets.clone(),
            by_admin: run.by_admin,
            owner: run.user_id,
            null_columns: run.null_columns.clone(),
            now: Utc::now(),
        };
        let reading = CancellationToken::new();
        // The thread that reads does not outlive the attempt.
        let _stop_reading = reading.clone().drop_guard();
        let file = self.uploads.patient_file(&run.upload, CHUNK_BUDGET, reading);
        let ahead = Bounds { file: Arc::new(file), ..bounds.clone() };
        let mut chunks = read_chunks::<T>(ahead, rules);
        let mut throttle = Throttle::new(self.settings.throttle_percent, self.settings.lease() / 3);
        loop {
            let chunk = tokio::select! {
                () = stop.cancelled() => return Ok(AttemptResult::Stopped),
                chunk = self.next_chunk(run, &mut chunks) => chunk?,
            };
            let Some(chunk) = chunk else { return Ok(AttemptResult::LeaseLost) };
            let began = Instant::now();
            if !self.write_in_time(run, &chunk, &bounds, stop).await? {
                return Ok(if stop.is_cancelled() {
                    AttemptResult::Stopped
                } else {
                    AttemptResult::LeaseLost
                });
            }
            // The commit has reset the count in the row too: a failure from now on is the first one without progress.
            run.attempts = 0;
            if chunk.is_last {
                return Ok(AttemptResult::Completed);
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(AttemptResult::Stopped),
                () = tokio::time::sleep(throttle.pause_after(began.elapsed())) => {}
            }
        }
    }

    /// Waits for the reader's next chunk, and renews the lease during the wait; `None` if the lease is lost.
    async fn next_chunk<T>(
        &self,
        run: &JobRun,
        chunks: &mut mpsc::Receiver<Result<Chunk<T>, SourceError>>,
    ) -> Result<Option<Chunk<T>>, AttemptError> {
        let began = Instant::now();
        loop {
            match tokio::time::timeout(self.settings.lease() / 3, chunks.recv()).await {
                Ok(Some(chunk)) => return Ok(Some(chunk?)),
                Ok(None) => return Err(AttemptError::ReaderPanicked),
                Err(_) => {}
            }
            match self.store.renew_job_lease(run, self.settings.lease()).await {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                // The reader waits for the same database. The chunk is written only if the lease still holds.
                Err(StoreError::Unavailable(_)) if began.elapsed() < CHUNK_BUDGET => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes a chunk, with retries for [`CHUNK_BUDGET`] while PostgreSQL is unreachable. Returns false if the lease is lost
    /// or the process stops.
    async fn write_in_time<T: ImportRow>(
        &self,
        run: &JobRun,
        chunk: &Chunk<T>,
        bounds: &Bounds,
        stop: &CancellationToken,
    ) -> Result<bool, AttemptError> {
        let began = Instant::now();
        let mut backoff = new_backoff();
        loop {
            let written = self.store.on_one_primary(self.write(run, chunk, bounds));
            let error = match written.await {
                Err(error @ (StoreError::Unavailable(_) | StoreError::Locked(_)))
                    if began.elapsed() < CHUNK_BUDGET =>
                {
                    error
                }
                Err(error) => return Err(error.into()),
                Ok(is_held) => {
                    self.metrics.chunk_duration.record(began.elapsed().as_secs_f64());
                    return Ok(is_held);
                }
            };
            tracing::debug!(job = run.id.get(), %error, "chunk not written; retrying");
            self.metrics.chunk_retries.add(1);
            if backoff.wait_unless_cancelled(stop).await.is_break() {
                return Ok(false);
            }
        }
    }

    /// Writes a chunk once. Returns false if the lease is lost.
    async fn write<T: ImportRow>(
        &self,
        run: &JobRun,
        chunk: &Chunk<T>,
        bounds: &Bounds,
    ) -> Result<bool, StoreError> {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (offset, line) = (number(chunk.end.offset), number(chunk.end.line));
        let begun = self.store.begin_chunk(run, self.settings.report_limits()).await?;
        let Some(mut transaction) = begun else {
            // The last chunk may be committed although the response of PostgreSQL was lost.
            return Ok(chunk.is_last && self.store.job_has_succeeded(run.id).await?);
        };
        if !chunk.is_last && transaction.reached() == (offset, line) {
            // An earlier try committed this chunk.
            return Ok(true);
        }
        let options = WriteOptions {
            on_conflict: run.on_conflict,
            visible_to: Visibility::of(run.by_admin, run.user_id),
            dry_run: run.dry_run,
        };
        let written = write_chunk(transaction.connection(), chunk, &options, bounds).await?;
        let count = |rows: usize| i64::try_from(rows).unwrap_or(i64::MAX);
        let Written { written, skipped, bad, codes } = written;
        self.metrics.add_rows(written, skipped, bad.len());
        let progress = ChunkProgress {
            offset,
            line,
            written: count(written),
            skipped: count(skipped),
            bad: bad.into_iter().map(|row| (number(row.line), row.problems, row.cells)).collect(),
            unknown_columns: chunk.unknown_columns.clone(),
            is_last: chunk.is_last,
        };
        transaction.commit(progress, self.settings.lease()).await?;
        if !run.dry_run {
            self.delete_negative_entries(&codes).await;
        }
        Ok(true)
    }

    /// Deletes L2's negative entries of the imported codes, which visitors may have requested before the import.
    async fn delete_negative_entries(&self, codes: &[String]) {
        if codes.is_empty() {
            return;
        }
        let mut deletion = DELETION.prepare_invoke();
        let layout = self.redis.key_layout();
        for code in codes {
            deletion.key(l2_key(layout, code));
        }
        if let Err(error) = self.redis.script::<i64>(&deletion).await {
            // They expire after `cache.l2_negative_ttl_s`.
            tracing::debug!(%error, "negative entries of imported codes not deleted");
        }
    }

    /// Records the end of an attempt. Returns whether it is recorded: the database may be unavailable, and another worker
    /// may have taken the job over.
    async fn end(&self, run: &JobRun, end: AttemptEnd, error: &JobError) -> bool {
        let outcome = outcome_of(&end);
        match self.store.end_attempt(run, end, error).await {
            Ok(true) => {
                self.metrics.add_ended(run.kind, outcome);
                return true;
            }
            Ok(false) => self.after_lost_lease(run).await,
            Err(error) => {
                tracing::warn!(job = run.id.get(), %error, "job attempt not ended; its lease will expire");
            }
        }
        false
    }

    /// Removes the upload of a cancelled or deleted job. Keeps it if another worker has taken the job over.
    async fn after_lost_lease(&self, run: &JobRun) {
        match self.store.job_needs_upload(run.id).await {
            Ok(false) => self.remove_upload(run).await,
            Ok(true) => tracing::info!(job = run.id.get(), "job taken over by another worker"),
            Err(error) => tracing::debug!(job = run.id.get(), %error, "job not read; upload kept"),
        }
    }

    async fn remove_upload(&self, run: &JobRun) {
        self.uploads.remove(&run.upload).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_tried_again_after_longer_and_longer_waits_until_its_last_attempt() {
        let settings = JobSettings { max_attempts: 3, retry_ms: 1_000, ..JobSettings::default() };
        let wait = |attempt| match end_of_failure(&settings, attempt) {
            AttemptEnd::Retry(wait) => wait,
            end => panic!("{attempt}: {end:?}"),
        };
        for (attempt, base) in [(0, 1), (1, 1), (2, 2), (-1, 1)] {
            let base = Duration::from_secs(base);
            let wait = wait(attempt);
            assert!((base / 2..=base).contains(&wait), "{attempt}: {wait:?}");
        }
        for attempt in [3, 4, i32::MAX] {
            assert!(matches!(end_of_failure(&settings, attempt), AttemptEnd::Dead), "{attempt}");
        }
        let unbounded = JobSettings { max_attempts: u32::MAX, ..settings };
        assert!(matches!(end_of_failure(&unbounded, i32::MAX - 1), AttemptEnd::Retry(_)));
    }

    #[test]
    fn each_end_has_its_own_outcome() {
        let ends = [AttemptEnd::Retry(Duration::ZERO), AttemptEnd::Dead, AttemptEnd::Refused];
        assert_eq!(ends.map(|end| outcome_of(&end)), ["retried", "dead", "refused"]);
    }
}
