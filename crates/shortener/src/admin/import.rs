//! `admin import`: users, then links, then events, a chunk at a time.

use std::{collections::HashSet, path::Path};

use tokio::fs::File;

use crate::{
    config::Settings,
    domain::TargetPolicy,
    import::{CsvReader, ImportRow, ReadError, RowError, RowRules},
    startup::background_redis,
    store::{ImportCounts, ImportEvent, ImportLink, ImportTable, ImportUser, Store, StoreError},
};

use super::{
    AdminError, Import,
    terminal::{Progress, say},
};

const CHUNK: usize = 1_000;
/// Rows with errors that are told one by one; the rest are only counted.
const MAX_REPORTED: u64 = 1_000;

/// A kind of row, and where it goes.
trait Destination: ImportRow {
    const TABLE: ImportTable;
    const NAME: &'static str;

    async fn write(store: &Store, rows: &[Self]) -> Result<ImportCounts, StoreError>;

    /// Why a row was left out, when its id is free.
    fn other_reason(&self, taken_codes: &HashSet<String>) -> (&'static str, String);

    /// The codes of the rows, if they have codes.
    fn code(&self) -> Option<&str> {
        None
    }
}

impl Destination for ImportUser {
    const TABLE: ImportTable = ImportTable::Users;
    const NAME: &'static str = "users";

    async fn write(store: &Store, rows: &[Self]) -> Result<ImportCounts, StoreError> {
        store.import_users(rows).await
    }

    fn other_reason(&self, _: &HashSet<String>) -> (&'static str, String) {
        ("email", "another user has this address".to_owned())
    }
}

impl Destination for ImportLink {
    const TABLE: ImportTable = ImportTable::Links;
    const NAME: &'static str = "links";

    async fn write(store: &Store, rows: &[Self]) -> Result<ImportCounts, StoreError> {
        store.import_links(rows).await
    }

    fn other_reason(&self, taken_codes: &HashSet<String>) -> (&'static str, String) {
        if taken_codes.contains(&*self.short_code) {
            ("short_code", "another link has this code".to_owned())
        } else {
            ("user_id", "there is no such user".to_owned())
        }
    }

    fn code(&self) -> Option<&str> {
        Some(&self.short_code)
    }
}

impl Destination for ImportEvent {
    const TABLE: ImportTable = ImportTable::Events;
    const NAME: &'static str = "events";

    async fn write(store: &Store, rows: &[Self]) -> Result<ImportCounts, StoreError> {
        store.import_events(rows).await
    }

    fn other_reason(&self, _: &HashSet<String>) -> (&'static str, String) {
        ("url_id", "there is no such link".to_owned())
    }
}

/// Imports the files, in the order in which rows refer to each other.
pub(super) async fn run(
    settings: &Settings,
    store: &Store,
    arguments: &Import,
) -> Result<(), AdminError> {
    let targets = TargetPolicy::new(&settings.resolve.target_schemes, &settings.public)
        .map_err(|message| AdminError::Argument { argument: "config", message })?;
    let mut import = Importer { settings, store, rules: RowRules { targets }, bad: 0 };
    if let Some(path) = &arguments.users {
        import.file::<ImportUser>(path).await?;
    }
    if let Some(path) = &arguments.urls {
        import.file::<ImportLink>(path).await?;
    }
    if let Some(path) = &arguments.events {
        import.file::<ImportEvent>(path).await?;
    }
    if import.bad == 0 { Ok(()) } else { Err(AdminError::BadRows(import.bad)) }
}

struct Importer<'a> {
    settings: &'a Settings,
    store: &'a Store,
    rules: RowRules,
    bad: u64,
}

impl Importer<'_> {
    async fn file<T: Destination>(&mut self, path: &Path) -> Result<(), AdminError> {
        let unreadable = |source| AdminError::File { file: path.to_owned(), source };
        let stopped = |error| match error {
            ReadError::Header(reason) => AdminError::Csv { file: path.to_owned(), reason },
            ReadError::Io(source) => AdminError::File { file: path.to_owned(), source },
        };
        let file = File::open(path).await.map_err(unreadable)?;
        let size = file.metadata().await.map_err(unreadable)?.len();
        let mut reader = CsvReader::open(file, T::REQUIRED, T::OPTIONAL).await.map_err(stopped)?;
        if !reader.unknown_columns().is_empty() {
            let columns = reader.unknown_columns().join(", ");
            say(&format!("{}: passing over unknown columns: {columns}", path.display()));
        }
        let mut progress = Progress::new(T::NAME, "imported", size);
        let mut chunk: Vec<(u64, T)> = Vec::with_capacity(CHUNK);
        loop {
            let row = match reader.next().await.map_err(stopped)? {
                None => break,
                Some(Err(error)) => Err(vec![error]),
                Some(Ok(row)) => T::read(&row, &self.rules).map(|read| (row.line, read)),
            };
            match row {
                Ok(row) => chunk.push(row),
                Err(errors) => self.report(path, &errors),
            }
            if chunk.len() == CHUNK {
                progress.add(self.write(path, &mut chunk).await?, reader.bytes_read());
            }
        }
        progress.add(self.write(path, &mut chunk).await?, reader.bytes_read());
        progress.finish();
        Ok(())
    }

    async fn write<T: Destination>(
        &mut self,
        path: &Path,
        chunk: &mut Vec<(u64, T)>,
    ) -> Result<u64, AdminError> {
        if chunk.is_empty() {
            return Ok(0);
        }
        let (lines, rows): (Vec<u64>, Vec<T>) = chunk.drain(..).unzip();
        let mut written: HashSet<i64> =
            T::write(self.store, &rows).await?.written.into_iter().collect();
        let count = written.len() as u64;
        // A row is written once; a second one with its id, later in the chunk, is left over here.
        let left: Vec<(u64, &T)> =
            lines.into_iter().zip(&rows).filter(|(_, row)| !written.remove(&row.id())).collect();
        if !left.is_empty() {
            self.explain(path, &left).await?;
        }
        self.forget_absence(&rows).await;
        Ok(count)
    }

    /// Tells why rows were left out.
    async fn explain<T: Destination>(
        &mut self,
        path: &Path,
        left: &[(u64, &T)],
    ) -> Result<(), AdminError> {
        let ids: Vec<i64> = left.iter().map(|(_, row)| row.id()).collect();
        let taken: HashSet<i64> = self.store.taken_ids(T::TABLE, &ids).await?.into_iter().collect();
        let codes: Vec<String> =
            left.iter().filter_map(|(_, row)| row.code()).map(ToOwned::to_owned).collect();
        let taken_codes = self.store.taken_codes(&codes).await?.into_iter().collect();
        for (line, row) in left {
            let (column, message) = if taken.contains(&row.id()) {
                ("id", "a row with this id exists".to_owned())
            } else {
                row.other_reason(&taken_codes)
            };
            self.report(path, &[RowError { line: *line, column, code: "taken", message }]);
        }
        Ok(())
    }

    fn report(&mut self, path: &Path, errors: &[RowError]) {
        self.bad += 1;
        if self.bad == MAX_REPORTED + 1 {
            say("further bad rows are only counted");
        }
        if self.bad > MAX_REPORTED {
            return;
        }
        for RowError { line, column, code, message } in errors {
            say(&format!("{}:{line}: {column} {message} ({code})", path.display()));
        }
    }

    /// Somebody may have asked for a code before it was imported, and Redis remembers its absence.
    async fn forget_absence<T: Destination>(&self, rows: &[T]) {
        let keys: Vec<String> =
            rows.iter().filter_map(Destination::code).map(crate::cache::key_of).collect();
        if keys.is_empty() {
            return;
        }
        let forgotten = async {
            let pool = background_redis(self.settings).ok()?;
            let mut connection = pool.get().await.ok()?;
            redis::cmd("UNLINK").arg(&keys).query_async::<i64>(&mut *connection).await.ok()
        };
        if forgotten.await.is_none() {
            let life = self.settings.cache.shared_absent_ttl_s;
            say(&format!(
                "Redis is away: codes that were asked for before may seem absent for {life} s"
            ));
        }
    }
}
