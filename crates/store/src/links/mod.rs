//! Links: reading them, and the rows and queries that all their modules share.
//!
//! * A statement that creates, changes or deletes links also writes their events, in the same transaction.
//! * A statement that changes or deletes links also writes an outbox row for each, from which caches are invalidated.

mod change;
mod create;
mod expiry;
mod grouped;
mod takedowns;

use crate::observe::observe_query;
use chrono::{DateTime, Utc};

use linnet_domain::{
    Link, LinkAttributes, LinkFilter, LinkId, OutboxId, Page, RedirectStatus, ShortCode, UserId,
    Visibility,
};

use super::{Store, StoreError};

pub use change::ChangedLink;
pub use create::LinkCreation;
pub use grouped::GroupedCreates;

pub(super) use change::delete_links_statement;
pub(super) use create::{
    MAX_CODE_ATTEMPTS, create_link_on, create_links_statement, create_or_reuse_link_on,
};
pub(super) use takedowns::take_down_links_of_host;

/// The most links that one page of a search compares with its text if no index bounds the search.
pub const LINK_SEARCH_WINDOW: i64 = 20_000;

/// One page of links.
#[derive(Debug)]
pub struct LinkPage {
    /// The links, by id.
    pub links: Vec<Link>,
    /// The last link that the search has read, if it has not read all. A page that is not full continues after it.
    pub cut_after: Option<LinkId>,
}

/// A row of `urls`, with its outbox row if it was changed.
struct LinkRow {
    id: LinkId,
    user_id: Option<UserId>,
    short_code: String,
    original_url: String,
    title: Option<String>,
    is_active: bool,
    redirect_status: i16,
    expires_at: Option<DateTime<Utc>>,
    max_clicks: Option<i64>,
    clicks: i64,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    taken_down_at: Option<DateTime<Utc>>,
    takedown_reason: Option<String>,
    outbox_id: Option<OutboxId>,
}

impl From<LinkRow> for Link {
    fn from(row: LinkRow) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            short_code: row.short_code,
            original_url: row.original_url,
            attributes: LinkAttributes {
                title: row.title,
                is_active: row.is_active,
                redirect_status: RedirectStatus::from_code(row.redirect_status.into())
                    .unwrap_or_default(),
                expires_at: row.expires_at,
                max_clicks: row.max_clicks,
            },
            clicks: row.clicks,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            taken_down_at: row.taken_down_at,
            takedown_reason: row.takedown_reason,
        }
    }
}

/// `query_as!` for a [`LinkRow`]: the query before the columns, the outbox id with the query after it, and the
/// arguments.
macro_rules! link_query {
    (
        $before:literal $(+ $more_before:literal)*, $after:literal $(, $argument:expr)* $(,)?
    ) => {
        sqlx::query_as!(
            LinkRow,
            $before $(+ $more_before)* + r#" id AS "id!: LinkId", user_id AS "user_id: UserId",
                short_code AS "short_code!", original_url AS "original_url!", title,
                is_active AS "is_active!", redirect_status AS "redirect_status!", expires_at,
                max_clicks, clicks AS "clicks!", version AS "version!", created_at AS "created_at!",
                updated_at AS "updated_at!", taken_down_at, takedown_reason, "# + $after,
            $($argument),*
        )
    };
}
use link_query;

impl Store {
    /// The link with this id, if it is visible.
    pub async fn find_link(
        &self,
        id: LinkId,
        visible_to: Visibility,
    ) -> Result<Option<Link>, StoreError> {
        let query = link_query!(
            "SELECT",
            r#"NULL::bigint AS "outbox_id: OutboxId" FROM urls
                WHERE id = $1 AND ($2::bigint IS NULL OR user_id = $2)"#,
            id.get(),
            visible_to.owner_filter(),
        );
        let row = observe_query("find_link", query.fetch_optional(&self.pool)).await?;
        Ok(row.map(Link::from))
    }

    /// One page of the visible links, by id. A search that no index bounds reads at most [`LINK_SEARCH_WINDOW`] links.
    pub async fn list_links(
        &self,
        filter: &LinkFilter,
        visible_to: Visibility,
        page: Page,
    ) -> Result<LinkPage, StoreError> {
        self.read(async |store| store.list_links_once(filter, visible_to, page).await).await
    }

    async fn list_links_once(
        &self,
        filter: &LinkFilter,
        visible_to: Visibility,
        page: Page,
    ) -> Result<LinkPage, StoreError> {
        let [text, encoded, host, readable] = search_patterns(filter);
        let is_windowed = filter.search.as_ref().is_some_and(|search| !search.is_selective());
        let cut_after = if is_windowed {
            self.end_of_search_window(filter.user_id, visible_to, page.after()).await?
        } else {
            None
        };
        let query = link_query!(
            "SELECT",
            r#"NULL::bigint AS "outbox_id: OutboxId" FROM urls
                WHERE id > $1 AND id <= $11
                  AND ($2::bigint IS NULL OR user_id = $2)
                  AND ($3::bigint IS NULL OR user_id = $3)
                  AND ($4::boolean IS NULL OR is_active = $4)
                  AND ($5::text IS NULL OR (short_code COLLATE "default" || ' ' || original_url
                       || ' ' || COALESCE(title, '')) ILIKE $5
                    OR (short_code COLLATE "default" || ' ' || original_url
                       || ' ' || COALESCE(title, '')) ~* $8
                    OR (short_code COLLATE "default" || ' ' || original_url
                       || ' ' || COALESCE(title, '')) ~* $9
                    OR (original_url LIKE '%://%xn--%' AND target_for_people(original_url) ILIKE $10))
                ORDER BY id LIMIT $6 OFFSET $7"#,
            page.after(),
            visible_to.owner_filter(),
            filter.user_id.map(UserId::get),
            filter.is_active,
            text,
            page.size,
            page.offset(),
            encoded,
            host,
            readable,
            cut_after.map_or(i64::MAX, LinkId::get),
        );
        let rows = observe_query("list_links", query.fetch_all(&self.pool)).await?;
        Ok(LinkPage { links: rows.into_iter().map(Link::from).collect(), cut_after })
    }

    /// The last of the [`LINK_SEARCH_WINDOW`] links after an id; `None` if there are fewer.
    async fn end_of_search_window(
        &self,
        user_id: Option<UserId>,
        visible_to: Visibility,
        after: i64,
    ) -> Result<Option<LinkId>, StoreError> {
        let query = sqlx::query_scalar!(
            r#"SELECT id AS "id: LinkId" FROM urls
                WHERE id > $1
                  AND ($2::bigint IS NULL OR user_id = $2)
                  AND ($3::bigint IS NULL OR user_id = $3)
                ORDER BY id LIMIT 1 OFFSET $4"#,
            after,
            visible_to.owner_filter(),
            user_id.map(UserId::get),
            LINK_SEARCH_WINDOW - 1,
        );
        Ok(observe_query("end_of_search_window", query.fetch_optional(&self.pool)).await?)
    }
}

/// Generates a short code.
pub(super) fn generate_code() -> Result<ShortCode, StoreError> {
    ShortCode::generate().map_err(|error| StoreError::Failed(sqlx::Error::Io(error.into())))
}

/// The status code as a `smallint`.
pub(super) fn status_code(status: RedirectStatus) -> i16 {
    // 301, 302, 307 and 308 fit.
    i16::try_from(status.code()).unwrap_or(302)
}

/// The spellings of a search: a pattern for `ILIKE`, two for `~*`, and one for `ILIKE`.
pub(super) fn search_patterns(filter: &LinkFilter) -> [Option<String>; 4] {
    let Some(search) = &filter.search else { return [None, None, None, None] };
    let text = Some(contains_pattern(&search.text));
    let readable = search.readable.as_deref().map(contains_pattern);
    [text, search.encoded.clone(), search.host.clone(), readable]
}

/// A `LIKE` pattern for rows that contain `text` literally.
fn contains_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
