//! Runs one attempt of a job, from the position that earlier attempts reached.

use std::{error::Error, sync::LazyLock, time::Duration};

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

use super::{JobMetrics, JobSettings, throttle::Throttle, upload};

static DELETION: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(DELETE_NEGATIVE_ENTRIES));

/// Time for which a chunk is retried while PostgreSQL is unreachable. After it, the attempt fails.
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

/// Runs the jobs of one lane.
pub(super) struct JobRunner {
    pub(super) store: Store,
    pub(super) redis: RedisClient,
    pub(super) settings: JobSettings,
    pub(super) targets: TargetPolicy,
    pub(super) metrics: std::sync::Arc<JobMetrics>,
}

impl JobRunner {
    /// Runs one attempt of a job that this worker has leased. Releases the job when `stop` is cancelled.
    pub(super) async fn run(&self, mut run: JobRun, stop: &CancellationToken) {
        let run = &mut run;
        let max_attempts = i32::try_from(self.settings.max_attempts).unwrap_or(i32::MAX);
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
                self.remove_upload(run);
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
                self.end(run, AttemptEnd::Refused, &error).await;
                self.remove_upload(run);
            }
            Err(error) => self.end_failed_attempt(run, max_attempts, &error).await,
        }
    }

    async fn end_failed_attempt(&self, run: &JobRun, max_attempts: i32, error: &AttemptError) {
        let end = if run.attempts >= max_attempts {
            AttemptEnd::Dead
        } else {
            let attempts = u32::try_from(run.attempts).unwrap_or(1);
            AttemptEnd::Retry(jittered(self.settings.backoff(attempts)))
        };
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
            path: self.settings.upload_dir.join(&run.upload),
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
        let mut chunks = read_chunks::<T>(bounds.clone(), rules);
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
        loop {
            match tokio::time::timeout(self.settings.lease() / 3, chunks.recv()).await {
                Ok(Some(chunk)) => return Ok(Some(chunk?)),
                Ok(None) => return Err(AttemptError::ReaderPanicked),
                Err(_) => {
                    if !self.store.renew_job_lease(run, self.settings.lease()).await? {
                        return Ok(None);
                    }
                }
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
        for code in codes {
            deletion.key(l2_key(code));
        }
        if let Err(error) = self.redis.script::<i64>(&deletion).await {
            // They expire after `cache.l2_negative_ttl_s`.
            tracing::debug!(%error, "negative entries of imported codes not deleted");
        }
    }

    async fn end(&self, run: &JobRun, end: AttemptEnd, error: &JobError) {
        let outcome = match end {
            AttemptEnd::Retry(_) => "retried",
            AttemptEnd::Dead => "dead",
            AttemptEnd::Refused => "refused",
        };
        match self.store.end_attempt(run, end, error).await {
            Ok(true) => self.metrics.add_ended(run.kind, outcome),
            Ok(false) => self.after_lost_lease(run).await,
            Err(error) => {
                tracing::warn!(job = run.id.get(), %error, "job attempt not ended; its lease will expire");
            }
        }
    }

    /// Removes the upload of a cancelled or deleted job. Keeps it if another worker has taken the job over.
    async fn after_lost_lease(&self, run: &JobRun) {
        match self.store.job_needs_upload(run.id).await {
            Ok(false) => self.remove_upload(run),
            Ok(true) => tracing::info!(job = run.id.get(), "job taken over by another worker"),
            Err(error) => tracing::debug!(job = run.id.get(), %error, "job not read; upload kept"),
        }
    }

    fn remove_upload(&self, run: &JobRun) {
        upload::remove(&self.settings.upload_dir.join(&run.upload));
    }
}
