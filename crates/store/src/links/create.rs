//! Creating links.

use std::collections::HashMap;

use crate::observe::observe_query;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};

use linnet_domain::{Link, LinkId, NewLink, OutboxId, ShortCode, TargetUrl, UserId};

use super::{
    super::{Store, StoreError, columns::column},
    LinkRow, generate_code, link_query, status_code,
};

/// Attempts to generate a free code. With a million links, one code in 1.7 million is taken, so five taken codes in a
/// row mean that the random source is broken.
pub(in super::super) const MAX_CODE_ATTEMPTS: usize = 5;

/// The result of creating a link.
#[derive(Debug)]
pub enum LinkCreation {
    /// A new link.
    New(Link),
    /// An existing link that the caller reuses.
    Reused(Link),
    /// The custom code is taken.
    CodeTaken,
}

/// Runs the query macro `$query` for a statement that inserts links and their `created` events.
///
/// `$insert` inserts into `urls`, without `ON CONFLICT`; a row whose code or id is taken is left out. `$event_time` is
/// the time of the events. `$rest` continues after the insertion of the events, so that it can filter them. It reads
/// the inserted links from the CTE `created`.
macro_rules! create_links_statement {
    ($($query:ident)::+, $insert:literal, $event_time:literal, $($rest:tt)*) => {
        $($query)::+!(
            "WITH created AS (" + $insert + " ON CONFLICT DO NOTHING RETURNING *
             ), event AS (
               INSERT INTO events (url_id, user_id, event_type, timestamp, details)
               SELECT id, user_id, 'created', " + $event_time + ", jsonb_build_object(
                   'short_code', short_code, 'original_url', original_url) FROM created "
                + $($rest)*
        )
    };
}
pub(in super::super) use create_links_statement;

impl Store {
    /// Creates a link.
    pub async fn create_link(&self, new: &NewLink) -> Result<LinkCreation, StoreError> {
        if new.short_code.is_none() {
            let mut connection = self.pool.acquire().await?;
            return create_link_on(&mut connection, new).await;
        }
        let mut transaction = self.begin().await?;
        let outcome = create_link_on(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(outcome)
    }

    /// Creates links with generated codes in one statement. `None` for each whose code or id is taken. If a link
    /// violates another constraint, it is an error and no link is created.
    pub(super) async fn create_links(
        &self,
        links: &[NewLink],
    ) -> Result<Vec<Option<Link>>, StoreError> {
        let mut codes = Vec::with_capacity(links.len());
        for _ in links {
            codes.push(generate_code()?.to_string());
        }
        let created = insert_links(&self.pool, links, &codes).await?;
        let mut created: HashMap<String, Link> =
            created.into_iter().map(|link| (link.short_code.clone(), link)).collect();
        Ok(codes.iter().map(|code| created.remove(code)).collect())
    }

    /// Creates a link, or returns an existing one of the same owner that has the same target URL and status, no limits,
    /// and the title if one is given. A link without an owner is never returned, because its creator is unknown.
    /// Concurrent calls with the same owner and target wait for each other.
    pub async fn create_or_reuse_link(&self, new: &NewLink) -> Result<LinkCreation, StoreError> {
        let mut transaction = self.begin().await?;
        let outcome = create_or_reuse_link_on(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(outcome)
    }

    /// Creates links of a user, with their events at the same time. Returns the ids of the links whose code was free.
    pub async fn add_links(
        &self,
        user_id: UserId,
        links: &[(ShortCode, TargetUrl)],
        created_at: DateTime<Utc>,
    ) -> Result<Vec<LinkId>, StoreError> {
        let query = create_links_statement!(
            sqlx::query_scalar,
            "INSERT INTO urls (user_id, short_code, original_url, created_at, updated_at)
             SELECT $1, code, target, $4, $4
               FROM UNNEST($2::text[], $3::text[]) AS row (code, target)",
            "created_at",
            r#") SELECT id AS "id!: LinkId" FROM created"#,
            user_id.get(),
            &column(links, |(code, _)| code.to_string()),
            &column(links, |(_, target)| target.as_str().to_owned()),
            created_at
        );
        Ok(query.fetch_all(&self.pool).await?)
    }

    /// Merges the entries that many new links have left in the pending list of the search index. Otherwise the next link
    /// of a user would wait for the merge.
    pub async fn merge_search_entries(&self) -> Result<(), StoreError> {
        let merge = sqlx::query_scalar!("SELECT gin_clean_pending_list('urls_search_idx')");
        merge.fetch_one(&self.pool).await?;
        Ok(())
    }
}

/// [`Store::create_link`] on a given connection, which must be in a transaction if the link has a custom code.
pub(in super::super) async fn create_link_on(
    connection: &mut PgConnection,
    new: &NewLink,
) -> Result<LinkCreation, StoreError> {
    for _ in 0..MAX_CODE_ATTEMPTS {
        let code = match &new.short_code {
            Some(code) => code.clone(),
            None => generate_code()?,
        };
        if let Some(mut link) = insert_link(connection, new, &code).await? {
            if new.short_code.is_some() {
                link.version = renew_version(connection, link.id).await?;
            }
            return Ok(LinkCreation::New(link));
        }
        // If the custom code is free, an imported row has the next id of the sequence.
        if new.short_code.is_some() && code_exists(connection, &code).await? {
            break;
        }
    }
    Ok(LinkCreation::CodeTaken)
}

/// [`Store::create_or_reuse_link`] on a given connection, which must be in a transaction.
pub(in super::super) async fn create_or_reuse_link_on(
    connection: &mut PgConnection,
    new: &NewLink,
) -> Result<LinkCreation, StoreError> {
    let Some(owner) = new.user_id.map(UserId::get) else {
        return create_link_on(connection, new).await;
    };
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, COALESCE($2::bigint, 0)))",
        new.target.as_str(),
        owner
    )
    .execute(&mut *connection)
    .await?;
    let query = link_query!(
        "SELECT",
        r#"NULL::bigint AS "outbox_id: OutboxId" FROM urls
            WHERE hashtextextended(original_url, 0) = hashtextextended($1, 0)
              AND COALESCE(user_id, 0) = COALESCE($2::bigint, 0)
              AND original_url = $1 AND is_active AND expires_at IS NULL AND max_clicks IS NULL
              AND redirect_status = $3 AND ($4::text IS NULL OR title = $4)
            ORDER BY id LIMIT 1"#,
        new.target.as_str(),
        owner,
        status_code(new.attributes.redirect_status),
        new.attributes.title.as_deref(),
    );
    if let Some(row) = observe_query("reuse_link", query.fetch_optional(&mut *connection)).await? {
        return Ok(LinkCreation::Reused(row.into()));
    }
    create_link_on(connection, new).await
}

async fn code_exists(connection: &mut PgConnection, code: &str) -> Result<bool, StoreError> {
    let query = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM urls WHERE short_code = $1) AS "exists!""#,
        code
    );
    Ok(observe_query("code_exists", query.fetch_one(connection)).await?)
}

/// Gives a new link a version above that of a concurrent deletion of its code. The insertion took its version before it
/// waited for the deletion.
async fn renew_version(connection: &mut PgConnection, id: LinkId) -> Result<i64, StoreError> {
    let query = sqlx::query_scalar!(
        "UPDATE urls SET version = nextval('url_version_seq') WHERE id = $1 RETURNING version",
        id.get()
    );
    Ok(observe_query("renew_version", query.fetch_one(connection)).await?)
}

/// `None` if the code or the next id is taken.
async fn insert_link(
    connection: &mut PgConnection,
    new: &NewLink,
    code: &ShortCode,
) -> Result<Option<Link>, StoreError> {
    let codes = [code.to_string()];
    let insertion = insert_links(connection, std::slice::from_ref(new), &codes);
    Ok(observe_query("create_link", insertion).await?.pop())
}

/// Inserts links with these codes. Returns the links whose code and id were free.
async fn insert_links(
    executor: impl PgExecutor<'_>,
    links: &[NewLink],
    codes: &[String],
) -> Result<Vec<Link>, StoreError> {
    let query = create_links_statement!(
        link_query,
        "INSERT INTO urls (user_id, short_code, original_url, title, is_active,
                           redirect_status, expires_at, max_clicks)
         SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::text[], $5::boolean[],
                              $6::smallint[], $7::timestamptz[], $8::bigint[])",
        "now()",
        ") SELECT",
        r#"NULL::bigint AS "outbox_id: OutboxId" FROM created"#,
        &column(links, |new| new.user_id.map(UserId::get)) as &[Option<i64>],
        codes,
        &column(links, |new| new.target.as_str().to_owned()),
        &column(links, |new| new.attributes.title.clone()) as &[Option<String>],
        &column(links, |new| new.attributes.is_active),
        &column(links, |new| status_code(new.attributes.redirect_status)),
        &column(links, |new| new.attributes.expires_at) as &[Option<DateTime<Utc>>],
        &column(links, |new| new.attributes.max_clicks) as &[Option<i64>],
    );
    let rows = query.fetch_all(executor).await?;
    Ok(rows.into_iter().map(Link::from).collect())
}
