//! Streaming export of links in constant memory (ADR 016).
//!
//! * `COPY … TO STDOUT` sends rows while they are read, and waits if the client does not receive them.
//! * `COPY` has no parameters. The filter's values are settings of its transaction, so that no input is part of a
//!   statement.

use std::{io, time::Duration};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use linnet_telemetry::context::observe_query;
use sqlx::{Postgres, pool::PoolConnection};

use linnet_domain::{LinkFilter, LinkId, UserId, Visibility};

use super::{
    Store, StoreError,
    copy::{BinaryReader, MalformedCopy},
    links::contains_pattern,
};

/// The server cancels a longer export, because an open snapshot prevents the vacuuming of dead rows.
const MAX_DURATION: &str = "1h";
const COLUMNS: usize = 12;

/// A link that borrows from the received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportedLink<'a> {
    /// The link's id.
    pub id: LinkId,
    /// The owner; `None` for a link that was created without a key.
    pub user_id: Option<UserId>,
    /// The short code.
    pub short_code: &'a str,
    /// The target URL.
    pub original_url: &'a str,
    /// A label.
    pub title: Option<&'a str>,
    /// Whether it resolves.
    pub is_active: bool,
    /// The status of the redirect.
    pub redirect_status: i16,
    /// The expiry.
    pub expires_at: Option<DateTime<Utc>>,
    /// The number of clicks after which it no longer resolves.
    pub max_clicks: Option<i64>,
    /// The number of clicks.
    pub clicks: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl<'a> ExportedLink<'a> {
    /// Reads the columns of [`copy_statement`].
    fn read(row: &mut BinaryReader<'a>) -> Result<Self, MalformedCopy> {
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

/// A prepared export. Its connection is closed at the end, because unread rows would have to be received and discarded.
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
        Ok(LinkExport { connection, statement: copy_statement(filter, visible_to) })
    }
}

impl LinkExport {
    /// Passes every link to `consume`, by id, until `consume` fails. It is an error if the server sends nothing for
    /// `idle_timeout`. The server sends no faster than `consume` returns.
    pub async fn for_each<E: From<StoreError>>(
        mut self,
        idle_timeout: Duration,
        mut consume: impl AsyncFnMut(&ExportedLink<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let timed_out = |_| StoreError::from(sqlx::Error::Io(io::ErrorKind::TimedOut.into()));
        let begin = self.connection.copy_out_raw(&self.statement);
        let mut messages = tokio::time::timeout(idle_timeout, begin)
            .await
            .map_err(timed_out)?
            .map_err(StoreError::from)?;
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
            while reader.begin(COLUMNS).map_err(StoreError::from)? {
                consume(&ExportedLink::read(&mut reader).map_err(StoreError::from)?).await?;
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
