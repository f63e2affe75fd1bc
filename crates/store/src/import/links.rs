//! Links by the chunk.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use futures::FutureExt;
use sqlx::PgConnection;

use linnet_domain::{LinkId, OnConflict, RedirectStatus, ShortCode, TargetUrl, UserId};

use super::{
    super::{
        Store, StoreError,
        links::{draw_code, status_code},
        numbers,
    },
    RowOutcome, WriteFuture, WriteOptions, WriteRows, column, ids_of, pass_ids,
};

const SEQUENCE: &str = "urls_id_seq";
/// Draws of a random code before giving up, as for single links.
const MAX_DRAWS: usize = 5;

/// A link to write.
#[derive(Debug, Clone)]
pub struct ImportLink {
    /// An id of its own.
    pub id: Option<LinkId>,
    /// The owner.
    pub user_id: Option<UserId>,
    /// The code; drawn, if it does not say.
    pub short_code: Option<ShortCode>,
    /// The target.
    pub target: TargetUrl,
    /// A label.
    pub title: Option<String>,
    /// Whether it resolves.
    pub is_active: bool,
    /// How it redirects.
    pub redirect_status: RedirectStatus,
    /// When it stops resolving.
    pub expires_at: Option<DateTime<Utc>>,
    /// After how many clicks it stops resolving.
    pub max_clicks: Option<i64>,
    /// When it was made; now, if it does not say.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last changed.
    pub updated_at: Option<DateTime<Utc>>,
    /// What an update of a link that is there already changes.
    pub given: GivenLinkFields,
}

/// Which fields a row gives, beside the target.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each column of the table")]
pub struct GivenLinkFields {
    /// `title`.
    pub title: bool,
    /// `is_active`.
    pub is_active: bool,
    /// `redirect_status`.
    pub redirect_status: bool,
    /// `expires_at`.
    pub expires_at: bool,
    /// `max_clicks`.
    pub max_clicks: bool,
}

/// A row with the id and the code that it will have.
struct Numbered<'a> {
    id: LinkId,
    code: ShortCode,
    row: &'a ImportLink,
}

/// What stands in the way of a row.
struct Obstacle {
    code_owner: Option<LinkId>,
    is_id_taken: bool,
    is_user_missing: bool,
}

impl WriteRows for ImportLink {
    fn write<'a>(
        connection: &'a mut PgConnection,
        rows: &'a [&'a Self],
        options: &'a WriteOptions,
    ) -> WriteFuture<'a> {
        write(connection, rows, options).boxed()
    }

    fn code(&self) -> Option<&str> {
        // Nobody has asked for a code that was drawn just now.
        self.short_code.as_deref()
    }
}

async fn write(
    connection: &mut PgConnection,
    rows: &[&ImportLink],
    options: &WriteOptions,
) -> Result<Vec<RowOutcome>, StoreError> {
    let mut outcomes = vec![RowOutcome::Written; rows.len()];
    let mut places: Vec<usize> = (0..rows.len()).collect();
    for _ in 0..MAX_DRAWS {
        let tried: Vec<&ImportLink> =
            places.iter().filter_map(|at| rows.get(*at).copied()).collect();
        let numbered = number(connection, &tried).await?;
        let mut written = insert(connection, &numbered).await?;
        let own = tried.iter().filter_map(|row| row.id).filter(|id| written.contains(id));
        pass_ids(connection, SEQUENCE, own, options).await?;
        // A row is written once; a second one with its id, later in the chunk, is left over here.
        let left: Vec<(usize, Numbered<'_>)> =
            places.into_iter().zip(numbered).filter(|(_, row)| !written.remove(&row.id)).collect();
        if left.is_empty() {
            return Ok(outcomes);
        }
        places = explain(connection, left, options, &mut outcomes).await?;
        if places.is_empty() {
            return Ok(outcomes);
        }
    }
    for place in places {
        if let Some(outcome) = outcomes.get_mut(place) {
            *outcome = RowOutcome::bad("short_code", "taken", "no free code was drawn");
        }
    }
    Ok(outcomes)
}

async fn number<'a>(
    connection: &mut PgConnection,
    rows: &[&'a ImportLink],
) -> Result<Vec<Numbered<'a>>, StoreError> {
    let ids = ids_of(connection, SEQUENCE, rows.iter().map(|row| row.id)).await?;
    let with_code = |(id, row): (LinkId, &&'a ImportLink)| {
        let code = row.short_code.clone().map_or_else(draw_code, Ok)?;
        Ok(Numbered { id, code, row })
    };
    ids.into_iter().zip(rows).map(with_code).collect()
}

/// Writes what breaks no rule, and tells the ids. Links with ids of the sequence are new, and get an
/// event as those of `POST /urls` do; the others bring their history along.
async fn insert(
    connection: &mut PgConnection,
    rows: &[Numbered<'_>],
) -> Result<HashSet<LinkId>, StoreError> {
    let rows: Vec<&Numbered<'_>> = rows.iter().collect();
    let rows = rows.as_slice();
    let written = sqlx::query_scalar!(
        r#"WITH row AS (
             SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[],
                 $6::boolean[], $7::smallint[], $8::timestamptz[], $9::bigint[],
                 $10::timestamptz[], $11::timestamptz[])
               AS row (id, user_id, short_code, original_url, title, is_active, redirect_status,
                       expires_at, max_clicks, created_at, updated_at)
           ), made AS (
             INSERT INTO urls (id, user_id, short_code, original_url, title, is_active,
                               redirect_status, expires_at, max_clicks, created_at, updated_at)
             SELECT id, user_id, short_code, original_url, title, is_active, redirect_status,
                    expires_at, max_clicks, COALESCE(created_at, now()),
                    COALESCE(updated_at, created_at, now())
               FROM row
              WHERE user_id IS NULL OR EXISTS (SELECT FROM users WHERE users.id = row.user_id)
             ON CONFLICT DO NOTHING
             RETURNING id, user_id, short_code, original_url
           ), event AS (
             INSERT INTO events (url_id, user_id, event_type, details)
             SELECT id, user_id, 'created', jsonb_build_object(
                 'short_code', short_code, 'original_url', original_url)
               FROM made WHERE id <> ALL ($12)
           )
           SELECT id AS "id!: LinkId" FROM made"#,
        &column(rows, |row| row.id.get()),
        &column(rows, |row| row.row.user_id.map(UserId::get)) as &[Option<i64>],
        &column(rows, |row| row.code.to_string()),
        &column(rows, |row| row.row.target.as_str().to_owned()),
        &column(rows, |row| row.row.title.clone()) as &[Option<String>],
        &column(rows, |row| row.row.is_active),
        &column(rows, |row| status_code(row.row.redirect_status)),
        &column(rows, |row| row.row.expires_at) as &[Option<DateTime<Utc>>],
        &column(rows, |row| row.row.max_clicks) as &[Option<i64>],
        &column(rows, |row| row.row.created_at) as &[Option<DateTime<Utc>>],
        &column(rows, |row| row.row.updated_at) as &[Option<DateTime<Utc>>],
        &rows.iter().filter_map(|row| row.row.id.map(LinkId::get)).collect::<Vec<i64>>()
    )
    .fetch_all(connection)
    .await?;
    Ok(written.into_iter().collect())
}

/// Finds out why rows were left out, and changes what is there if that is asked for. The places of
/// rows that only had bad luck with their codes, to be tried again.
async fn explain(
    connection: &mut PgConnection,
    left: Vec<(usize, Numbered<'_>)>,
    options: &WriteOptions,
    outcomes: &mut [RowOutcome],
) -> Result<Vec<usize>, StoreError> {
    let rows: Vec<&Numbered<'_>> = left.iter().map(|(_, row)| row).collect();
    let obstacles = obstacles(connection, &rows).await?;
    let mut again = Vec::new();
    // What is to be changed, by its id: of rows that mean the same link the last one counts.
    let mut changes: HashMap<LinkId, &ImportLink> = HashMap::new();
    let mut targets = Vec::with_capacity(left.len());
    for ((place, row), obstacle) in left.iter().zip(&obstacles) {
        let chosen = row.row.short_code.is_some();
        let target = match (chosen, obstacle.code_owner) {
            (true, owner) => owner,
            (false, _) if obstacle.is_id_taken => row.row.id,
            (false, _) => None,
        };
        let is_change = options.on_conflict == OnConflict::Update && !obstacle.is_user_missing;
        if let Some(target) = target.filter(|_| is_change) {
            changes.insert(target, row.row);
        }
        targets.push(target);
        let is_unlucky = !obstacle.is_user_missing
            && ((!chosen && obstacle.code_owner.is_some() && !obstacle.is_id_taken)
                || (row.row.id.is_none() && obstacle.is_id_taken && obstacle.code_owner.is_none()));
        let Some(outcome) = outcomes.get_mut(*place) else { continue };
        if is_unlucky {
            again.push(*place);
        } else if obstacle.is_user_missing {
            *outcome = RowOutcome::bad("user_id", "not_found", "there is no such user");
        } else if chosen && obstacle.code_owner.is_some() {
            *outcome = RowOutcome::taken(options, "short_code", "another link has this code");
        } else {
            *outcome = RowOutcome::taken(options, "id", "a row with this id exists");
        }
    }
    if !changes.is_empty() {
        let updated = update(connection, &changes, options).await?;
        for ((place, _), target) in left.iter().zip(targets) {
            if target.is_some_and(|target| updated.contains(&target))
                && let Some(outcome) = outcomes.get_mut(*place)
            {
                *outcome = RowOutcome::Written;
            }
        }
    }
    Ok(again)
}

async fn obstacles(
    connection: &mut PgConnection,
    rows: &[&Numbered<'_>],
) -> Result<Vec<Obstacle>, StoreError> {
    Ok(sqlx::query_as!(
        Obstacle,
        r#"SELECT (SELECT urls.id FROM urls WHERE urls.short_code = row.short_code)
                    AS "code_owner: LinkId",
                  EXISTS (SELECT FROM urls WHERE urls.id = row.id) AS "is_id_taken!",
                  (row.user_id IS NOT NULL AND NOT EXISTS (
                      SELECT FROM users WHERE users.id = row.user_id)) AS "is_user_missing!"
             FROM UNNEST($1::bigint[], $2::text[], $3::bigint[]) WITH ORDINALITY
               AS row (id, short_code, user_id, place) ORDER BY place"#,
        &column(rows, |row| row.id.get()),
        &column(rows, |row| row.code.to_string()),
        &column(rows, |row| row.row.user_id.map(UserId::get)) as &[Option<i64>]
    )
    .fetch_all(connection)
    .await?)
}

/// Changes links to what the rows give, as far as the options allow it, as `PATCH /urls/{id}` does.
/// The ids of those that were changed.
async fn update(
    connection: &mut PgConnection,
    changes: &HashMap<LinkId, &ImportLink>,
    options: &WriteOptions,
) -> Result<HashSet<LinkId>, StoreError> {
    let mut ids: Vec<LinkId> = changes.keys().copied().collect();
    // In the order of ids, so that two imports of the same links wait for each other and not in a ring.
    ids.sort_unstable();
    let rows: Vec<&ImportLink> = ids.iter().filter_map(|id| changes.get(id).copied()).collect();
    let rows = rows.as_slice();
    let ids = numbers(&ids);
    sqlx::query!("SELECT id FROM urls WHERE id = ANY($1) ORDER BY id FOR UPDATE", &ids)
        .fetch_all(&mut *connection)
        .await?;
    let updated = sqlx::query_scalar!(
        r#"WITH changed AS (
             UPDATE urls SET
               original_url = row.original_url,
               title = CASE WHEN row.has_title THEN row.title ELSE urls.title END,
               is_active = CASE WHEN row.has_active THEN row.is_active ELSE urls.is_active END,
               redirect_status = CASE WHEN row.has_status THEN row.redirect_status
                                      ELSE urls.redirect_status END,
               expires_at = CASE WHEN row.has_expiry THEN row.expires_at ELSE urls.expires_at END,
               max_clicks = CASE WHEN row.has_limit THEN row.max_clicks ELSE urls.max_clicks END,
               version = nextval('url_version_seq'),
               updated_at = now()
              FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::boolean[], $5::smallint[],
                          $6::timestamptz[], $7::bigint[], $8::boolean[], $9::boolean[],
                          $10::boolean[], $11::boolean[], $12::boolean[])
                AS row (id, original_url, title, is_active, redirect_status, expires_at, max_clicks,
                        has_title, has_active, has_status, has_expiry, has_limit)
             WHERE urls.id = row.id AND ($13::bigint IS NULL OR urls.user_id = $13)
             RETURNING urls.id, urls.short_code, urls.original_url, urls.version
           ), event AS (
             INSERT INTO events (url_id, user_id, event_type, details)
             SELECT id, $13, 'updated', jsonb_build_object('original_url', original_url)
               FROM changed
           ), news AS (
             INSERT INTO cache_invalidations (kind, subject, version)
             SELECT 'link', short_code, version FROM changed
           )
           SELECT id AS "id!: LinkId" FROM changed"#,
        &ids,
        &column(rows, |row| row.target.as_str().to_owned()),
        &column(rows, |row| row.title.clone()) as &[Option<String>],
        &column(rows, |row| row.is_active),
        &column(rows, |row| status_code(row.redirect_status)),
        &column(rows, |row| row.expires_at) as &[Option<DateTime<Utc>>],
        &column(rows, |row| row.max_clicks) as &[Option<i64>],
        &column(rows, |row| row.given.title),
        &column(rows, |row| row.given.is_active),
        &column(rows, |row| row.given.redirect_status),
        &column(rows, |row| row.given.expires_at),
        &column(rows, |row| row.given.max_clicks),
        options.visible_to.owner_filter()
    )
    .fetch_all(connection)
    .await?;
    Ok(updated.into_iter().collect())
}

impl Store {
    /// Makes links of a user and their events, with ids of the database's own; those whose code is
    /// taken are left out. The ids of the others.
    pub async fn add_links(
        &self,
        user_id: UserId,
        links: &[(ShortCode, TargetUrl)],
        created_at: DateTime<Utc>,
    ) -> Result<Vec<LinkId>, StoreError> {
        let codes: Vec<String> = links.iter().map(|(code, _)| code.to_string()).collect();
        let targets: Vec<String> =
            links.iter().map(|(_, target)| target.as_str().to_owned()).collect();
        Ok(sqlx::query_scalar!(
            r#"WITH made AS (
               INSERT INTO urls (user_id, short_code, original_url, created_at, updated_at)
               SELECT $1, code, target, $4, $4
                 FROM UNNEST($2::text[], $3::text[]) AS row (code, target)
               ON CONFLICT DO NOTHING
               RETURNING id, user_id, short_code, original_url
             ), event AS (
               INSERT INTO events (url_id, user_id, event_type, timestamp, details)
               SELECT id, user_id, 'created', $4,
                      jsonb_build_object('short_code', short_code, 'original_url', original_url)
                 FROM made
             )
             SELECT id AS "id: LinkId" FROM made"#,
            user_id.get(),
            &codes,
            &targets,
            created_at
        )
        .fetch_all(&self.pool)
        .await?)
    }
}
