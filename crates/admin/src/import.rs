//! `admin import`: imports users, then links, then events, with the code of bulk jobs.

use std::{
    cell::Cell,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use linnet_domain::Visibility;
use linnet_import::{
    BadRow, Bounds, Chunk, ImportRow, RowRules, Written, read_chunks,
    source::{Position, SourceError, format_of_file},
    write_chunk,
};
use linnet_platform::{
    backoff::jittered,
    redis_connection::{self, RedisPool},
};
use linnet_protocol::invalidation::{DELETE_NEGATIVE_ENTRIES, l2_key};
use linnet_settings::Settings;
use linnet_store::{ImportEvent, ImportLink, ImportUser, Store, StoreError, WriteOptions};

use crate::{
    AdminError, Import, RETRY_EVERY,
    terminal::{Progress, say},
};

/// Longest time in which a chunk is tried again.
const CHUNK_BUDGET: Duration = Duration::from_mins(1);
/// The maximum number of bad rows that are reported individually. Further bad rows are only counted.
const MAX_REPORTED: u64 = 1_000;

/// Imports users, then links, then events, because links refer to users, and events refer to both.
pub(super) async fn run(
    settings: &Settings,
    store: &Store,
    arguments: &Import,
) -> Result<(), AdminError> {
    let targets = settings
        .target_policy()
        .map_err(|message| AdminError::Argument { argument: "config", message })?;
    let mut import = Importer {
        settings,
        store,
        redis: redis_connection::pool(&settings.redis, 1).ok(),
        rules: RowRules {
            targets,
            by_admin: true,
            owner: None,
            null_columns: Vec::new(),
            now: Utc::now(),
        },
        options: WriteOptions {
            on_conflict: arguments.on_conflict,
            visible_to: Visibility::All,
            dry_run: arguments.dry_run,
        },
        bad: 0,
    };
    if let Some(path) = &arguments.users {
        import.file::<ImportUser>("users", path).await?;
    }
    if let Some(path) = &arguments.urls {
        import.file::<ImportLink>("links", path).await?;
    }
    if let Some(path) = &arguments.events {
        import.file::<ImportEvent>("events", path).await?;
    }
    if import.bad == 0 { Ok(()) } else { Err(AdminError::BadRows(import.bad)) }
}

struct Importer<'a> {
    settings: &'a Settings,
    store: &'a Store,
    redis: Option<RedisPool>,
    rules: RowRules,
    options: WriteOptions,
    bad: u64,
}

impl Importer<'_> {
    async fn file<T: ImportRow>(
        &mut self,
        name: &'static str,
        path: &Path,
    ) -> Result<(), AdminError> {
        let unreadable = |source| AdminError::File { file: path.to_owned(), source };
        let stopped = |error| match error {
            SourceError::Io(source) => AdminError::File { file: path.to_owned(), source },
            reason => AdminError::Rows { file: path.to_owned(), reason },
        };
        let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
        let format =
            format_of_file(&path.to_owned(), &path.to_string_lossy(), None).map_err(unreadable)?;
        let bounds = Bounds {
            file: Arc::new(path.to_owned()),
            format,
            from: Position::default(),
            rows: self.settings.jobs.chunk_rows,
        };
        let mut chunks = read_chunks::<T>(bounds.clone(), self.rules.clone());
        let done = if self.options.dry_run { "would be imported" } else { "imported" };
        let mut progress = Progress::new(name, done, size);
        let mut unknown = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk.map_err(stopped)?;
            let written = self.write(path, &chunk, &bounds).await?;
            progress.add(written.written as u64, chunk.end.offset);
            progress.suspend(|| self.report(path, &written.bad));
            self.drop_negative_entries(&written.codes).await;
            unknown = chunk.unknown_columns;
        }
        progress.finish();
        if !unknown.is_empty() {
            let columns = unknown.join(", ");
            say(&format!("{}: ignored unknown columns: {columns}", path.display()));
        }
        Ok(())
    }

    /// Writes a chunk in one transaction. While the database is unavailable, begins again for [`CHUNK_BUDGET`]: a
    /// transaction has no effect before its commit.
    async fn write<T: ImportRow>(
        &self,
        path: &Path,
        chunk: &Chunk<T>,
        bounds: &Bounds,
    ) -> Result<Written, AdminError> {
        let deadline = Instant::now() + CHUNK_BUDGET;
        let is_committing = Cell::new(false);
        loop {
            let attempt = self.store.on_one_primary(async {
                let mut transaction = self.store.begin().await?;
                let written = write_chunk(&mut transaction, chunk, &self.options, bounds).await?;
                is_committing.set(true);
                transaction.commit().await?;
                Ok::<_, StoreError>(written)
            });
            let source = match attempt.await {
                Err(error @ StoreError::Unavailable(_)) => error,
                result => return Ok(result?),
            };
            if is_committing.get() && !self.options.dry_run {
                let line = |row: Option<&(u64, T)>| row.map_or(chunk.end.line, |(line, _)| *line);
                let (from, to) = (line(chunk.rows.first()), line(chunk.rows.last()));
                return Err(AdminError::UnconfirmedRows { file: path.into(), from, to, source });
            }
            if Instant::now() >= deadline {
                return Err(source.into());
            }
            is_committing.set(false);
            tokio::time::sleep(jittered(RETRY_EVERY)).await;
        }
    }

    fn report(&mut self, path: &Path, rows: &[BadRow]) {
        for BadRow { line, problems, .. } in rows {
            self.bad += 1;
            if self.bad == MAX_REPORTED + 1 {
                say("further bad rows are only counted");
            }
            if self.bad > MAX_REPORTED {
                continue;
            }
            for problem in problems {
                let (column, message) = (&problem.column, &problem.message);
                let code = &problem.code;
                say(&format!("{}:{line}: {column} {message} ({code})", path.display()));
            }
        }
    }

    /// Drops negative entries of imported codes from L2.
    async fn drop_negative_entries(&self, codes: &[String]) {
        if codes.is_empty() || self.options.dry_run {
            return;
        }
        let script = redis::Script::new(DELETE_NEGATIVE_ENTRIES);
        let mut deletion = script.prepare_invoke();
        let layout = self.settings.redis.key_layout();
        for code in codes {
            deletion.key(l2_key(layout, code));
        }
        let dropped = async {
            let mut connection = self.redis.as_ref()?.get().await.ok()?;
            deletion.invoke_async::<i64>(connection.connection()).await.ok()
        };
        if dropped.await.is_none() {
            let ttl = self.settings.cache.l2_negative_ttl_s;
            say(&format!(
                "Redis cannot be reached: codes that were requested before may return 404 for {ttl} s"
            ));
        }
    }
}
