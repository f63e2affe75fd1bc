//! `admin import`: imports users, then links, then events, with the code of bulk jobs.

use std::{path::Path, sync::Arc};

use chrono::Utc;
use linnet_domain::Visibility;
use linnet_import::{
    BadRow, Bounds, ImportRow, RowRules, read_chunks,
    source::{Position, SourceError, format_of_file},
    write_chunk,
};
use linnet_platform::redis_connection::{self, RedisPool};
use linnet_protocol::invalidation::{DELETE_NEGATIVE_ENTRIES, l2_key};
use linnet_settings::Settings;
use linnet_store::{ImportEvent, ImportLink, ImportUser, Store, WriteOptions};

use crate::{
    AdminError, Import,
    terminal::{Progress, say},
};

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
            let mut transaction = self.store.begin().await?;
            let written = write_chunk(&mut transaction, &chunk, &self.options, &bounds).await?;
            transaction.commit().await.map_err(linnet_store::StoreError::from)?;
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
