//! One job, from where it stands to its end.

use std::{error::Error, time::Duration};

use linnet_platform::redis_client::{RedisClient, jittered};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use linnet_domain::{JobError, JobKind, TargetPolicy, Visibility};
use linnet_import::{
    Bounds, Chunk, ImportRow, RowRules, Written, read_chunks,
    source::{Position, SourceError},
    write_chunk,
};
use linnet_protocol::invalidation::l2_key;
use linnet_store::{
    AttemptEnd, ChunkProgress, ImportLink, ImportUser, JobRun, Store, StoreError, WriteOptions,
};

use super::{JobMetrics, JobSettings, throttle::Throttle, upload};

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How long one chunk is tried while the database is away, before the attempt counts as failed.
const CHUNK_BUDGET: Duration = Duration::from_mins(5);

/// How an attempt ended, when nothing went wrong.
enum Ended {
    /// All rows are read.
    Whole,
    /// The job was cancelled, taken over or deleted.
    Lost,
    /// The process stops.
    Stopped,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the reading of the upload died")]
    ReaderDied,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Runs the jobs of one lane.
pub(super) struct Runner {
    pub(super) store: Store,
    pub(super) redis: RedisClient,
    pub(super) settings: JobSettings,
    pub(super) targets: TargetPolicy,
    pub(super) metrics: std::sync::Arc<JobMetrics>,
}

impl Runner {
    /// Runs a job that this worker has claimed; at a stop it is given back.
    pub(super) async fn run(&self, run: &JobRun, stop: &CancellationToken) {
        let max_attempts = i32::try_from(self.settings.max_attempts).unwrap_or(i32::MAX);
        if run.attempts > max_attempts {
            // Its workers died before they could tell.
            let message = format!("{max_attempts} attempts in a row ended without a trace");
            let error = JobError { code: "worker_died".to_owned(), message };
            self.end(run, AttemptEnd::Dead, &error).await;
            return;
        }
        let ended = match run.kind {
            JobKind::ImportUsers => self.import::<ImportUser>(run, stop).await,
            JobKind::ImportUrls => self.import::<ImportLink>(run, stop).await,
        };
        match ended {
            Ok(Ended::Whole) => {
                self.metrics.ended(run.kind, "succeeded");
                tracing::info!(job = run.id.get(), "a job is done");
                self.remove_upload(run);
            }
            Ok(Ended::Lost) => self.after_loss(run).await,
            Ok(Ended::Stopped) => {
                if let Err(error) = self.store.release_job(run).await {
                    tracing::warn!(job = run.id.get(), %error, "a job waits for its lease to end");
                }
            }
            Err(RunError::Source(error)) if error.is_of_file() => {
                let error = JobError { code: error.code().into(), message: error.to_string() };
                self.end(run, AttemptEnd::Refused, &error).await;
                self.remove_upload(run);
            }
            Err(error) => {
                let end = if run.attempts >= max_attempts {
                    AttemptEnd::Dead
                } else {
                    let attempts = u32::try_from(run.attempts).unwrap_or(1);
                    AttemptEnd::Retry(jittered(self.settings.backoff(attempts)))
                };
                self.metrics.failed_attempts.add(1);
                let (job, attempt) = (run.id.get(), run.attempts);
                tracing::warn!(job, attempt, error = &error as &dyn Error, "a job failed");
                // What it says of paths and statements is for the log.
                let error = JobError { code: "internal".into(), message: error.to_string() };
                self.end(run, end, &error).await;
            }
        }
    }

    async fn import<T: ImportRow>(
        &self,
        run: &JobRun,
        stop: &CancellationToken,
    ) -> Result<Ended, RunError> {
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        let bounds = Bounds {
            path: self.settings.upload_dir.join(&run.upload),
            format: run.format,
            from: Position { offset: number(run.resume_offset), line: number(run.resume_line) },
            rows: self.settings.chunk_rows,
        };
        let rules =
            RowRules { targets: self.targets.clone(), by_admin: run.by_admin, owner: run.user_id };
        let mut chunks = read_chunks::<T>(bounds.clone(), rules);
        let mut throttle = Throttle::new(self.settings.throttle_percent, self.settings.lease() / 3);
        loop {
            let chunk = tokio::select! {
                () = stop.cancelled() => return Ok(Ended::Stopped),
                chunk = self.next_chunk(run, &mut chunks) => chunk?,
            };
            let Some(chunk) = chunk else { return Ok(Ended::Lost) };
            let began = Instant::now();
            if !self.write_in_time(run, &chunk, &bounds, stop).await? {
                return Ok(if stop.is_cancelled() { Ended::Stopped } else { Ended::Lost });
            }
            if chunk.is_last {
                return Ok(Ended::Whole);
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(Ended::Stopped),
                () = tokio::time::sleep(throttle.rest_after(began.elapsed())) => {}
            }
        }
    }

    /// Waits for the reader, and gives signs of life meanwhile; `None` when the job is lost.
    async fn next_chunk<T>(
        &self,
        run: &JobRun,
        chunks: &mut mpsc::Receiver<Result<Chunk<T>, SourceError>>,
    ) -> Result<Option<Chunk<T>>, RunError> {
        loop {
            match tokio::time::timeout(self.settings.lease() / 3, chunks.recv()).await {
                Ok(Some(chunk)) => return Ok(Some(chunk?)),
                Ok(None) => return Err(RunError::ReaderDied),
                Err(_) => {
                    if !self.store.renew_job_lease(run, self.settings.lease()).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Writes a chunk, trying for as long as the database is away, within limits; false when the job
    /// is lost or the process stops.
    async fn write_in_time<T: ImportRow>(
        &self,
        run: &JobRun,
        chunk: &Chunk<T>,
        bounds: &Bounds,
        stop: &CancellationToken,
    ) -> Result<bool, RunError> {
        let began = Instant::now();
        let mut backoff = BACKOFF_FIRST;
        loop {
            let error = match self.write(run, chunk, bounds).await {
                Err(error @ StoreError::Away(_)) if began.elapsed() < CHUNK_BUDGET => error,
                Err(error) => return Err(error.into()),
                Ok(is_held) => {
                    self.metrics.chunk_duration.record(began.elapsed().as_secs_f64());
                    return Ok(is_held);
                }
            };
            tracing::debug!(job = run.id.get(), %error, "a chunk is tried again");
            self.metrics.chunk_retries.add(1);
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                () = tokio::time::sleep(jittered(backoff)) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// False when the job is lost.
    async fn write<T: ImportRow>(
        &self,
        run: &JobRun,
        chunk: &Chunk<T>,
        bounds: &Bounds,
    ) -> Result<bool, StoreError> {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (offset, line) = (number(chunk.end.offset), number(chunk.end.line));
        let begun = self.store.begin_chunk(run, self.settings.row_errors).await?;
        let Some(mut transaction) = begun else {
            // Its last chunk may have been committed, and only the answer lost.
            return Ok(chunk.is_last && self.store.has_succeeded(run.id).await?);
        };
        if !chunk.is_last && transaction.reached() == (offset, line) {
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
        self.metrics.rows(written, skipped, bad.len());
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
            self.forget_absence(&codes).await;
        }
        Ok(true)
    }

    /// Somebody may have asked for a code before it was imported, and Redis remembers its absence.
    async fn forget_absence(&self, codes: &[String]) {
        if codes.is_empty() {
            return;
        }
        let mut unlink = redis::cmd("UNLINK");
        for code in codes {
            unlink.arg(l2_key(code));
        }
        if let Err(error) = self.redis.query::<i64>(&unlink).await {
            // `cache.l2_negative_ttl_s` ends it.
            tracing::debug!(%error, "imported codes may seem absent for a while");
        }
    }

    async fn end(&self, run: &JobRun, end: AttemptEnd, error: &JobError) {
        let outcome = match end {
            AttemptEnd::Retry(_) => "retried",
            AttemptEnd::Dead => "dead",
            AttemptEnd::Refused => "refused",
        };
        match self.store.end_attempt(run, end, error).await {
            Ok(true) => self.metrics.ended(run.kind, outcome),
            Ok(false) => self.after_loss(run).await,
            Err(error) => {
                tracing::warn!(job = run.id.get(), %error, "a job waits for its lease to end");
            }
        }
    }

    /// A job that was cancelled or deleted needs its upload no more; one that runs elsewhere does.
    async fn after_loss(&self, run: &JobRun) {
        match self.store.needs_upload(run.id).await {
            Ok(false) => self.remove_upload(run),
            Ok(true) => tracing::info!(job = run.id.get(), "a job was taken over"),
            Err(error) => tracing::debug!(job = run.id.get(), %error, "an upload stays for now"),
        }
    }

    fn remove_upload(&self, run: &JobRun) {
        upload::remove(&self.settings.upload_dir.join(&run.upload));
    }
}
