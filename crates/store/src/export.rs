//! All links of a list, one after the other, in constant memory (ADR 016).
//!
//! `COPY … TO STDOUT` sends rows as they are read, and waits when they are not taken. It takes no
//! parameters, so they are settings of its transaction: no text from outside is ever part of a
//! statement.

use std::{io, time::Duration};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use linnet_telemetry::context::observe_query;
use sqlx::{Postgres, pool::PoolConnection};

use linnet_domain::{LinkFilter, LinkId, UserId, Visibility};

use super::{
    Store, StoreError,
    copy::{BinaryReader, Malformed},
    links::contains_pattern,
};

/// The server ends the longest export after this. It would hold back the clean-up of dead rows for as
/// long as somebody takes a little from time to time.
const MAX_DURATION: &str = "1h";
const COLUMNS: usize = 12;

/// A link as it is exported, without what it would cost to keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportedLink<'a> {
    /// Unique number.
    pub id: LinkId,
    /// The owner; absent for a link made without a key.
    pub user_id: Option<UserId>,
    /// The code.
    pub short_code: &'a str,
    /// The target.
    pub original_url: &'a str,
    /// A label.
    pub title: Option<&'a str>,
    /// Whether it resolves.
    pub is_active: bool,
    /// The redirect's status code.
    pub redirect_status: i16,
    /// When it stops resolving.
    pub expires_at: Option<DateTime<Utc>>,
    /// After how many clicks it stops resolving.
    pub max_clicks: Option<i64>,
    /// Clicks so far.
    pub clicks: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl<'a> ExportedLink<'a> {
    /// Reads the columns of [`statement`].
    fn read(row: &mut BinaryReader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            id: row.id(LinkId::new)?,
            user_id: row.nullable(|row| row.id(UserId::new))?,
            short_code: row.text()?,
            original_url: row.text()?,
            title: row.nullable(BinaryReader::text)?,
            is_active: row.boolean()?,
            redirect_status: row.smallint()?,
            expires_at: row.nullable(BinaryReader::timestamp)?,
            max_clicks: row.nullable(BinaryReader::bigint)?,
            clicks: row.bigint()?,
            created_at: row.timestamp()?,
            updated_at: row.timestamp()?,
        })
    }
}

/// An export that is about to begin. Its connection is closed at its end: what was not read could
/// only be thrown away, row by row.
#[derive(Debug)]
pub struct LinkExport {
    connection: PoolConnection<Postgres>,
    statement: String,
}

impl Store {
    /// Prepares to export what [`Store::list_links`] would list, on all its pages.
    pub async fn begin_export(
        &self,
        filter: &LinkFilter,
        visible_to: Visibility,
    ) -> Result<LinkExport, StoreError> {
        let mut connection = self.pool.acquire().await?;
        connection.close_on_drop();
        let query = sqlx::query!(
            "SELECT set_config('statement_timeout', $1, true) AS timeout,
                    set_config('linnet.visible_to', $2, true) AS visible_to,
                    set_config('linnet.user_id', $3, true) AS user_id,
                    set_config('linnet.is_active', $4, true) AS is_active,
                    set_config('linnet.search', $5, true) AS search",
            MAX_DURATION,
            visible_to.owner_filter().map(|owner| owner.to_string()),
            filter.user_id.map(|id| id.to_string()),
            filter.is_active.map(|is_active| is_active.to_string()),
            filter.search.as_deref().map(contains_pattern),
        );
        sqlx::query("BEGIN READ ONLY").execute(&mut *connection).await?;
        observe_query("begin_export", query.fetch_one(&mut *connection)).await?;
        Ok(LinkExport { connection, statement: statement(filter, visible_to) })
    }
}

impl LinkExport {
    /// Gives every link to `take`, in the order of their ids, until it fails. The server may be silent
    /// for `patience`; it sends no faster than links are taken.
    pub async fn for_each<E: From<StoreError>>(
        mut self,
        patience: Duration,
        mut take: impl AsyncFnMut(&ExportedLink<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let is_late = |_| StoreError::from(sqlx::Error::Io(io::ErrorKind::TimedOut.into()));
        let begin = self.connection.copy_out_raw(&self.statement);
        let mut messages = tokio::time::timeout(patience, begin)
            .await
            .map_err(is_late)?
            .map_err(StoreError::from)?;
        let mut is_first = true;
        loop {
            let message = tokio::time::timeout(patience, messages.try_next()).await;
            let Some(bytes) = message.map_err(is_late)?.map_err(StoreError::from)? else {
                return Ok(());
            };
            let mut reader = BinaryReader::new(&bytes);
            if is_first {
                reader.header().map_err(StoreError::from)?;
                is_first = false;
            }
            while reader.begin(COLUMNS).map_err(StoreError::from)? {
                take(&ExportedLink::read(&mut reader).map_err(StoreError::from)?).await?;
            }
        }
    }
}

/// Only the conditions that there are, so that the planner sees them.
fn statement(filter: &LinkFilter, visible_to: Visibility) -> String {
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
    if filter.search.is_some() {
        conditions.push(
            r#"(short_code COLLATE "default" || ' ' || original_url || ' ' || COALESCE(title, ''))
               ILIKE current_setting('linnet.search')"#,
        );
    }
    format!(
        "COPY (SELECT id, user_id, short_code, original_url, title, is_active, redirect_status,
                      expires_at, max_clicks, clicks, created_at, updated_at
                 FROM urls WHERE {} ORDER BY id) TO STDOUT (FORMAT binary)",
        conditions.join(" AND ")
    )
}
