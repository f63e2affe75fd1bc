//! Streaming export of links in constant memory (ADR 016).
//!
//! * `COPY … TO STDOUT` sends rows while they are read, and waits if the client does not receive them.
//! * `COPY` has no parameters. The filter's values are settings of its transaction, so that no input is part of a
//!   statement.

use std::{io, sync::LazyLock, time::Duration};

use crate::observe::observe_query;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{Postgres, pool::PoolConnection};

use linnet_domain::{LinkField, LinkFilter, Visibility, rules::ValueSchema};

use super::{
    Store, StoreError,
    copy::{BinaryReader, MalformedCopy},
    links::search_patterns,
};

/// The longest export; the server cancels it then. Its open snapshot prevents the vacuuming of dead rows.
const MAX_DURATION: &str = "1h";

/// A column of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportColumn {
    /// The name in files, which is also the name in `urls`.
    pub name: &'static str,
    kind: CellKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CellKind {
    Number,
    Text,
    Boolean,
    Time,
}

/// One value of an exported link. Text borrows from the received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportCell<'a> {
    /// SQL's NULL.
    Null,
    /// A whole number.
    Number(i64),
    /// Text.
    Text(&'a str),
    /// True or false.
    Boolean(bool),
    /// A time.
    Time(DateTime<Utc>),
}

/// The cells of a link, one for each of [`ExportColumn::all`].
pub type ExportedLink<'a> = Vec<ExportCell<'a>>;

impl ExportColumn {
    const fn new(name: &'static str, kind: CellKind) -> Self {
        Self { name, kind }
    }

    /// The columns of an export, in their order.
    pub fn all() -> &'static [Self] {
        static ALL: LazyLock<Vec<ExportColumn>> = LazyLock::new(|| {
            let mut columns = vec![
                ExportColumn::new("id", CellKind::Number),
                ExportColumn::new("user_id", CellKind::Number),
                ExportColumn::new("short_code", CellKind::Text),
                ExportColumn::new("original_url", CellKind::Text),
            ];
            let fields = LinkField::ALL.iter().filter(|field| field.exportable);
            columns.extend(fields.map(ExportColumn::of_field));
            columns.extend([
                ExportColumn::new("clicks", CellKind::Number),
                ExportColumn::new("created_at", CellKind::Time),
                ExportColumn::new("updated_at", CellKind::Time),
                ExportColumn::new("taken_down_at", CellKind::Time),
                ExportColumn::new("takedown_reason", CellKind::Text),
            ]);
            columns
        });
        &ALL
    }

    const fn of_field(field: &LinkField) -> Self {
        let kind = match field.schema {
            ValueSchema::Text { .. } => CellKind::Text,
            ValueSchema::Boolean => CellKind::Boolean,
            ValueSchema::PositiveInteger | ValueSchema::RedirectStatus => CellKind::Number,
            ValueSchema::Time => CellKind::Time,
        };
        Self::new(field.name, kind)
    }

    fn read<'a>(&self, row: &mut BinaryReader<'a>) -> Result<ExportCell<'a>, MalformedCopy> {
        let cell = match self.kind {
            CellKind::Number => row.nullable(BinaryReader::number)?.map(ExportCell::Number),
            CellKind::Text => row.nullable(BinaryReader::text)?.map(ExportCell::Text),
            CellKind::Boolean => row.nullable(BinaryReader::boolean)?.map(ExportCell::Boolean),
            CellKind::Time => row.nullable(BinaryReader::timestamp)?.map(ExportCell::Time),
        };
        Ok(cell.unwrap_or(ExportCell::Null))
    }
}

/// A prepared export. Its connection is closed at the end instead of returned to the pool, because the pool would have
/// to receive and discard the unread rows first.
#[derive(Debug)]
pub struct LinkExport {
    connection: PoolConnection<Postgres>,
    statement: String,
}

impl Store {
    /// Prepares an export of all links that [`Store::list_links`] would list.
    pub async fn begin_export(
        &self,
        filter: &LinkFilter,
        visible_to: Visibility,
    ) -> Result<LinkExport, StoreError> {
        let begin = async |store: &Self| {
            store.on_one_primary(store.begin_export_once(filter, visible_to)).await
        };
        self.read(begin).await
    }

    async fn begin_export_once(
        &self,
        filter: &LinkFilter,
        visible_to: Visibility,
    ) -> Result<LinkExport, StoreError> {
        let mut connection = self.pool.acquire().await?;
        connection.close_on_drop();
        let [text, encoded, host, readable] = search_patterns(filter);
        let query = sqlx::query!(
            "SELECT set_config('statement_timeout', $1, true) AS timeout,
                    set_config('linnet.visible_to', $2, true) AS visible_to,
                    set_config('linnet.user_id', $3, true) AS user_id,
                    set_config('linnet.is_active', $4, true) AS is_active,
                    set_config('linnet.search', $5, true) AS search,
                    set_config('linnet.encoded_search', $6, true) AS encoded_search,
                    set_config('linnet.host_search', $7, true) AS host_search,
                    set_config('linnet.readable_search', $8, true) AS readable_search",
            MAX_DURATION,
            visible_to.owner_filter().map(|owner| owner.to_string()),
            filter.user_id.map(|id| id.to_string()),
            filter.is_active.map(|is_active| is_active.to_string()),
            text,
            encoded,
            host,
            readable,
        );
        sqlx::query("BEGIN READ ONLY").execute(&mut *connection).await?;
        observe_query("begin_export", query.fetch_one(&mut *connection)).await?;
        Ok(LinkExport { connection, statement: copy_statement(filter, visible_to) })
    }
}

impl LinkExport {
    /// Passes every link to `consume`, by id. The server sends no faster than `consume` returns.
    ///
    /// # Errors
    /// The error of `consume`, a database error, or [`StoreError::Unavailable`] if the server sends nothing for
    /// `idle_timeout`.
    pub async fn for_each<E: From<StoreError>>(
        mut self,
        idle_timeout: Duration,
        mut consume: impl AsyncFnMut(&[ExportCell<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let timed_out = |_| StoreError::from(sqlx::Error::Io(io::ErrorKind::TimedOut.into()));
        let begin = self.connection.copy_out_raw(&self.statement);
        let mut messages = tokio::time::timeout(idle_timeout, begin)
            .await
            .map_err(timed_out)?
            .map_err(StoreError::from)?;
        let columns = ExportColumn::all();
        let mut is_first = true;
        loop {
            let message = tokio::time::timeout(idle_timeout, messages.try_next()).await;
            let Some(bytes) = message.map_err(timed_out)?.map_err(StoreError::from)? else {
                return Ok(());
            };
            let mut reader = BinaryReader::new(&bytes);
            if is_first {
                reader.header().map_err(StoreError::from)?;
                is_first = false;
            }
            while reader.begin(columns.len()).map_err(StoreError::from)? {
                let cells = columns.iter().map(|column| column.read(&mut reader));
                let link = cells.collect::<Result<ExportedLink<'_>, _>>();
                consume(&link.map_err(StoreError::from)?).await?;
            }
        }
    }
}

/// The statement with only the conditions that the filter has, so that the planner can use their indexes.
fn copy_statement(filter: &LinkFilter, visible_to: Visibility) -> String {
    let mut conditions = vec!["true"];
    if visible_to != Visibility::All {
        conditions.push("user_id = current_setting('linnet.visible_to')::bigint");
    }
    if filter.user_id.is_some() {
        conditions.push("user_id = current_setting('linnet.user_id')::bigint");
    }
    if filter.is_active.is_some() {
        conditions.push("is_active = current_setting('linnet.is_active')::boolean");
    }
    let text =
        r#"(short_code COLLATE "default" || ' ' || original_url || ' ' || COALESCE(title, ''))"#;
    let readable = "original_url LIKE '%://%xn--%' AND target_for_people(original_url)";
    let settings = [
        (text, "ILIKE", "search"),
        (text, "~*", "encoded_search"),
        (text, "~*", "host_search"),
        (readable, "ILIKE", "readable_search"),
    ];
    let matches: Vec<String> = settings
        .into_iter()
        .zip(search_patterns(filter))
        .filter(|(_, pattern)| pattern.is_some())
        .map(|((text, operator, setting), _)| {
            format!("({text} {operator} current_setting('linnet.{setting}'))")
        })
        .collect();
    let matches = format!("({})", matches.join(" OR "));
    if filter.search.is_some() {
        conditions.push(&matches);
    }
    let columns: Vec<_> = ExportColumn::all().iter().map(|column| column.name).collect();
    format!(
        "COPY (SELECT {} FROM urls WHERE {} ORDER BY id) TO STDOUT (FORMAT binary)",
        columns.join(", "),
        conditions.join(" AND ")
    )
}
