//! Links: create and read. [`super::link_changes`] changes and deletes them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use linnet_telemetry::context::observe_query;
use sqlx::{PgConnection, PgExecutor};

use linnet_domain::{
    Link, LinkFilter, LinkId, NewLink, OutboxId, Page, RedirectStatus, ShortCode, UserId,
    Visibility,
};

use super::{Store, StoreError};

/// Draws of a random code before giving up. With a million links one draw collides once in
/// 1.7 million, so five in a row mean a broken random source.
const MAX_DRAWS: usize = 5;

/// The outcome of making a link.
#[derive(Debug)]
pub enum LinkCreation {
    /// A new link.
    New(Link),
    /// `reuse` found this one.
    Reused(Link),
    /// The chosen code is taken.
    CodeTaken,
}

/// A row of `urls` with a nullable outbox id, which only changes have.
pub(super) struct LinkRow {
    pub(super) id: LinkId,
    pub(super) user_id: Option<UserId>,
    pub(super) short_code: String,
    pub(super) original_url: String,
    pub(super) title: Option<String>,
    pub(super) is_active: bool,
    pub(super) redirect_status: i16,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) max_clicks: Option<i64>,
    pub(super) clicks: i64,
    pub(super) version: i64,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
    pub(super) outbox_id: Option<OutboxId>,
}

impl From<LinkRow> for Link {
    fn from(row: LinkRow) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            short_code: row.short_code,
            original_url: row.original_url,
            title: row.title,
            is_active: row.is_active,
            redirect_status: RedirectStatus::from_code(row.redirect_status.into())
                .unwrap_or_default(),
            expires_at: row.expires_at,
            max_clicks: row.max_clicks,
            clicks: row.clicks,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// `query_as!` for a [`LinkRow`]: the column list stands once, between the two parts of the query.
macro_rules! link_query {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            LinkRow,
            $before + r#" id AS "id!: LinkId", user_id AS "user_id: UserId",
                short_code AS "short_code!", original_url AS "original_url!", title, is_active AS "is_active!",
                redirect_status AS "redirect_status!", expires_at, max_clicks,
                clicks AS "clicks!", version AS "version!", created_at AS "created_at!",
                updated_at AS "updated_at!", "# + $after,
            $($argument),*
        )
    };
}
pub(super) use link_query;

impl Store {
    /// Makes a link.
    pub async fn create_link(&self, new: &NewLink) -> Result<LinkCreation, StoreError> {
        if new.short_code.is_none() {
            let mut connection = self.pool.acquire().await?;
            return create_link_on(&mut connection, new).await;
        }
        let mut transaction = self.pool.begin().await?;
        let outcome = create_link_on(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(outcome)
    }

    /// Makes links with drawn codes in one statement. `None` for each that drew a code or an id that is
    /// taken; an error when any of them breaks a rule, and then none is made.
    pub(super) async fn create_links(
        &self,
        links: &[NewLink],
    ) -> Result<Vec<Option<Link>>, StoreError> {
        let mut codes = Vec::with_capacity(links.len());
        for _ in links {
            codes.push(draw_code()?.to_string());
        }
        let query = link_query!(
            r#"WITH made AS (
                 INSERT INTO urls (user_id, short_code, original_url, title, is_active,
                                   redirect_status, expires_at, max_clicks)
                 SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::text[],
                     $5::boolean[], $6::smallint[], $7::timestamptz[], $8::bigint[])
                 ON CONFLICT DO NOTHING
                 RETURNING *
               ), event AS (
                 INSERT INTO events (url_id, user_id, event_type, details)
                 SELECT id, user_id, 'created', jsonb_build_object(
                     'short_code', short_code, 'original_url', original_url) FROM made
               )
               SELECT"#,
            r#"NULL::bigint AS "outbox_id: OutboxId" FROM made"#,
            &column(links, |new| new.user_id.map(UserId::get)) as &[Option<i64>],
            &codes,
            &column(links, |new| new.target.as_str().to_owned()),
            &column(links, |new| new.title.clone()) as &[Option<String>],
            &column(links, |new| new.is_active),
            &column(links, |new| status_code(new.redirect_status)),
            &column(links, |new| new.expires_at) as &[Option<DateTime<Utc>>],
            &column(links, |new| new.max_clicks) as &[Option<i64>],
        );
        let rows = query.fetch_all(&self.pool).await?;
        let mut made: HashMap<String, Link> =
            rows.into_iter().map(|row| (row.short_code.clone(), row.into())).collect();
        Ok(codes.iter().map(|code| made.remove(code)).collect())
    }

    /// Makes a link, or gives the one that the same user already has for the same target without
    /// limits of its own. Callers with the same target wait for each other.
    pub async fn create_or_reuse_link(&self, new: &NewLink) -> Result<LinkCreation, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = create_or_reuse_link_on(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(outcome)
    }

    /// The link with this id, if `visible_to` may see it.
    pub async fn find_link(
        &self,
        id: LinkId,
        visible_to: Visibility,
    ) -> Result<Option<Link>, StoreError> {
        find_link_with(&self.pool, id, visible_to).await
    }

    /// One page of links.
    pub async fn list_links(
        &self,
        filter: &LinkFilter,
        visible_to: Visibility,
        page: Page,
    ) -> Result<Vec<Link>, StoreError> {
        let pattern = filter.search.as_deref().map(contains_pattern);
        let query = link_query!(
            "SELECT",
            r#"NULL::bigint AS "outbox_id: OutboxId" FROM urls
                WHERE id > $1
                  AND ($2::bigint IS NULL OR user_id = $2)
                  AND ($3::bigint IS NULL OR user_id = $3)
                  AND ($4::boolean IS NULL OR is_active = $4)
                  AND ($5::text IS NULL OR (short_code COLLATE "default" || ' ' || original_url
                       || ' ' || COALESCE(title, '')) ILIKE $5)
                ORDER BY id LIMIT $6 OFFSET $7"#,
            page.after(),
            visible_to.owner_filter(),
            filter.user_id.map(UserId::get),
            filter.is_active,
            pattern,
            page.size,
            page.offset(),
        );
        let rows = observe_query("list_links", query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(Link::from).collect())
    }
}

/// [`Store::find_link`] on a given connection.
pub(super) async fn find_link_with(
    executor: impl PgExecutor<'_>,
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
    Ok(observe_query("find_link", query.fetch_optional(executor)).await?.map(Link::from))
}

/// [`Store::create_link`] on a given connection; within a transaction if the code is chosen.
pub(super) async fn create_link_on(
    connection: &mut PgConnection,
    new: &NewLink,
) -> Result<LinkCreation, StoreError> {
    for _ in 0..MAX_DRAWS {
        let code = match &new.short_code {
            Some(code) => code.clone(),
            None => draw_code()?,
        };
        if let Some(mut link) = insert_link(connection, new, &code).await? {
            if new.short_code.is_some() {
                link.version = renew_version(connection, link.id).await?;
            }
            return Ok(LinkCreation::New(link));
        }
        // A drawn code is drawn again. A chosen one that is free met an id that an import had taken.
        if new.short_code.is_some() && code_exists(connection, &code).await? {
            break;
        }
    }
    Ok(LinkCreation::CodeTaken)
}

/// [`Store::create_or_reuse_link`] within a given transaction.
pub(super) async fn create_or_reuse_link_on(
    connection: &mut PgConnection,
    new: &NewLink,
) -> Result<LinkCreation, StoreError> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, COALESCE($2::bigint, 0)))",
        new.target.as_str(),
        new.user_id.map(UserId::get)
    )
    .execute(&mut *connection)
    .await?;
    let query = link_query!(
        "SELECT",
        r#"NULL::bigint AS "outbox_id: OutboxId" FROM urls
            WHERE hashtextextended(original_url, 0) = hashtextextended($1, 0)
              AND COALESCE(user_id, 0) = COALESCE($2::bigint, 0)
              AND original_url = $1 AND is_active AND expires_at IS NULL AND max_clicks IS NULL
            ORDER BY id LIMIT 1"#,
        new.target.as_str(),
        new.user_id.map(UserId::get),
    );
    if let Some(row) = observe_query("reuse_link", query.fetch_optional(&mut *connection)).await? {
        return Ok(LinkCreation::Reused(row.into()));
    }
    create_link_on(connection, new).await
}

pub(super) fn draw_code() -> Result<ShortCode, StoreError> {
    ShortCode::generate().map_err(|error| StoreError::Failed(sqlx::Error::Io(error.into())))
}

fn column<T>(links: &[NewLink], of: impl Fn(&NewLink) -> T) -> Vec<T> {
    links.iter().map(of).collect()
}

async fn code_exists(connection: &mut PgConnection, code: &str) -> Result<bool, StoreError> {
    let query = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM urls WHERE short_code = $1) AS "exists!""#,
        code
    );
    Ok(observe_query("code_exists", query.fetch_one(connection)).await?)
}

/// Gives a new link a version that is certainly higher than that of a deletion of its code. The
/// insertion took its number before it waited for the deletion to end.
async fn renew_version(connection: &mut PgConnection, id: LinkId) -> Result<i64, StoreError> {
    let query = sqlx::query_scalar!(
        "UPDATE urls SET version = nextval('url_version_seq') WHERE id = $1 RETURNING version",
        id.get()
    );
    Ok(observe_query("renew_version", query.fetch_one(connection)).await?)
}

/// `None` when the code or the next id is taken.
async fn insert_link(
    connection: &mut PgConnection,
    new: &NewLink,
    code: &ShortCode,
) -> Result<Option<Link>, StoreError> {
    let query = link_query!(
        r#"WITH made AS (
             INSERT INTO urls (user_id, short_code, original_url, title, is_active,
                               redirect_status, expires_at, max_clicks)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT DO NOTHING
             RETURNING *
           ), event AS (
             INSERT INTO events (url_id, user_id, event_type, details)
             SELECT id, user_id, 'created', jsonb_build_object(
                 'short_code', short_code, 'original_url', original_url) FROM made
           )
           SELECT"#,
        r#"NULL::bigint AS "outbox_id: OutboxId" FROM made"#,
        new.user_id.map(UserId::get),
        &**code,
        new.target.as_str(),
        new.title,
        new.is_active,
        status_code(new.redirect_status),
        new.expires_at,
        new.max_clicks,
    );
    Ok(observe_query("create_link", query.fetch_optional(connection)).await?.map(Link::from))
}

pub(super) fn status_code(status: RedirectStatus) -> i16 {
    // 301, 302, 307 and 308 fit.
    i16::try_from(status.code()).unwrap_or(302)
}

/// A `LIKE` pattern that finds `text` literally.
pub(super) fn contains_pattern(text: &str) -> String {
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
