//! Writing chunks of links.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use futures::FutureExt;
use sqlx::PgConnection;

use linnet_domain::{LinkAttributePatch, LinkId, OnConflict, ShortCode, TargetUrl, UserId};

use super::{
    super::{
        Constraint, StoreError,
        columns::column,
        links::{MAX_CODE_ATTEMPTS, create_links_statement, generate_code, status_code},
        quotas::{RowKind, Written, count_written},
    },
    RowOutcome, WriteFuture, WriteOptions, WriteRows, assign_ids, unwritten,
};

const SEQUENCE: &str = "urls_id_seq";

/// A link to write.
#[derive(Debug, Clone)]
pub struct ImportLink {
    /// The explicit id.
    pub id: Option<LinkId>,
    /// The owner.
    pub user_id: Option<UserId>,
    /// The custom code; `None` generates one.
    pub short_code: Option<ShortCode>,
    /// The target URL.
    pub target: TargetUrl,
    /// The attributes that the row sets. A new link has defaults for the others, and an update keeps their values.
    pub attributes: LinkAttributePatch,
    /// When it was created; by default now.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last changed; by default when it was created.
    pub updated_at: Option<DateTime<Utc>>,
}

impl ImportLink {
    /// The bytes of its texts, for the owner's quota.
    fn text_bytes(&self) -> usize {
        let title = self.attributes.title.as_ref().and_then(Option::as_ref);
        self.target.as_str().len() + title.map_or(0, String::len)
    }
}

/// A row with its id and code.
struct NumberedRow<'a> {
    id: LinkId,
    code: ShortCode,
    row: &'a ImportLink,
}

/// The conflicts of a row with existing rows.
struct RowConflicts {
    /// The link that has the row's code.
    code_owner: Option<LinkId>,
    is_id_taken: bool,
    is_user_missing: bool,
    /// The kind of row of which the owner has too many.
    exhausted_quota: Option<String>,
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
        self.short_code.as_deref()
    }
}

async fn write(
    connection: &mut PgConnection,
    rows: &[&ImportLink],
    options: &WriteOptions,
) -> Result<Vec<RowOutcome>, StoreError> {
    let mut outcomes = vec![RowOutcome::Written; rows.len()];
    // Indexes of the rows to write. After an attempt, the rows whose generated code or id was taken remain.
    let mut pending: Vec<usize> = (0..rows.len()).collect();
    for _ in 0..MAX_CODE_ATTEMPTS {
        let attempted: Vec<&ImportLink> =
            pending.iter().filter_map(|index| rows.get(*index).copied()).collect();
        let numbered = number(connection, &attempted, options).await?;
        let written = insert(connection, &numbered).await?;
        count(connection, &numbered, &written).await?;
        let unwritten = unwritten(pending.into_iter().zip(numbered), |(_, row)| row.id, written);
        if unwritten.is_empty() {
            return Ok(outcomes);
        }
        pending = resolve_conflicts(connection, unwritten, options, &mut outcomes).await?;
        if pending.is_empty() {
            return Ok(outcomes);
        }
    }
    for index in pending {
        if let Some(outcome) = outcomes.get_mut(index) {
            let message = "must be unique; no free code was found";
            *outcome = RowOutcome::bad(Constraint::CodeTaken, message);
        }
    }
    Ok(outcomes)
}

/// Counts the written links, and the events of those with ids from the sequence.
async fn count(
    connection: &mut PgConnection,
    rows: &[NumberedRow<'_>],
    written: &HashSet<LinkId>,
) -> Result<(), StoreError> {
    let written = || rows.iter().filter(|row| written.contains(&row.id)).map(|row| row.row);
    let links =
        written().map(|row| Written { user_id: row.user_id, rows: 1, bytes: row.text_bytes() });
    count_written(connection, RowKind::Links, links).await?;
    // The event has the target.
    let events = written().filter(|row| row.id.is_none()).map(|row| Written {
        user_id: row.user_id,
        rows: 1,
        bytes: row.target.as_str().len(),
    });
    count_written(connection, RowKind::Events, events).await
}

/// Counts the events of changed links, and the new texts. The next maintenance subtracts the texts that they replace.
async fn count_changes(
    connection: &mut PgConnection,
    actor: Option<UserId>,
    changes: &HashMap<LinkId, &ImportLink>,
    updated: &HashSet<LinkId>,
) -> Result<(), StoreError> {
    let rows = || updated.iter().filter_map(|id| changes.get(id));
    let links = rows().map(|row| Written { user_id: actor, rows: 0, bytes: row.text_bytes() });
    count_written(connection, RowKind::Links, links).await?;
    let events =
        rows().map(|row| Written { user_id: actor, rows: 1, bytes: row.target.as_str().len() });
    count_written(connection, RowKind::Events, events).await
}

async fn number<'a>(
    connection: &mut PgConnection,
    rows: &[&'a ImportLink],
    options: &WriteOptions,
) -> Result<Vec<NumberedRow<'a>>, StoreError> {
    let ids = assign_ids(connection, SEQUENCE, rows.iter().map(|row| row.id), options).await?;
    let with_code = |(id, row): (LinkId, &&'a ImportLink)| {
        let code = row.short_code.clone().map_or_else(generate_code, Ok)?;
        Ok(NumberedRow { id, code, row })
    };
    ids.into_iter().zip(rows).map(with_code).collect()
}

/// Inserts the rows that violate no constraint. Returns their ids. A link with an id from the sequence is new and gets
/// a `created` event, like a link of `POST /urls`. The events of links with explicit ids are imported.
async fn insert(
    connection: &mut PgConnection,
    rows: &[NumberedRow<'_>],
) -> Result<HashSet<LinkId>, StoreError> {
    let explicit: Vec<i64> = rows.iter().filter_map(|row| row.row.id.map(LinkId::get)).collect();
    let attributes = column(rows, |row| row.row.attributes.clone().or_default());
    let query = create_links_statement!(
        sqlx::query_scalar,
        "INSERT INTO urls (id, user_id, short_code, original_url, title, is_active,
                           redirect_status, expires_at, max_clicks, created_at, updated_at)
         SELECT id, user_id, short_code, original_url, title, is_active, redirect_status,
                expires_at, max_clicks, COALESCE(created_at, now()),
                COALESCE(updated_at, created_at, now())
           FROM UNNEST($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[],
                       $6::boolean[], $7::smallint[], $8::timestamptz[], $9::bigint[],
                       $10::timestamptz[], $11::timestamptz[])
             AS row (id, user_id, short_code, original_url, title, is_active, redirect_status,
                     expires_at, max_clicks, created_at, updated_at)
          WHERE (user_id IS NULL OR EXISTS (SELECT FROM users WHERE users.id = row.user_id))
            AND NOT is_at_quota('user:' || user_id, 'links')
            AND NOT is_at_quota('user:' || user_id, 'events')",
        "now()",
        r#" WHERE id <> ALL ($12)) SELECT id AS "id!: LinkId" FROM created"#,
        &column(rows, |row| row.id.get()),
        &column(rows, |row| row.row.user_id.map(UserId::get)) as &[Option<i64>],
        &column(rows, |row| row.code.to_string()),
        &column(rows, |row| row.row.target.as_str().to_owned()),
        &column(&attributes, |new| new.title.clone()) as &[Option<String>],
        &column(&attributes, |new| new.is_active),
        &column(&attributes, |new| status_code(new.redirect_status)),
        &column(&attributes, |new| new.expires_at) as &[Option<DateTime<Utc>>],
        &column(&attributes, |new| new.max_clicks) as &[Option<i64>],
        &column(rows, |row| row.row.created_at) as &[Option<DateTime<Utc>>],
        &column(rows, |row| row.row.updated_at) as &[Option<DateTime<Utc>>],
        &explicit
    );
    Ok(query.fetch_all(connection).await?.into_iter().collect())
}

/// Sets the outcomes of unwritten rows, and updates existing links if the options say so. Returns the indexes of rows
/// whose generated code or id was taken, to be tried again.
async fn resolve_conflicts(
    connection: &mut PgConnection,
    unwritten: Vec<(usize, NumberedRow<'_>)>,
    options: &WriteOptions,
    outcomes: &mut [RowOutcome],
) -> Result<Vec<usize>, StoreError> {
    let conflicts = find_conflicts(connection, &unwritten).await?;
    let mut retries = Vec::new();
    // The changes by link. Of several rows for one link, the last one counts.
    let mut changes: HashMap<LinkId, &ImportLink> = HashMap::new();
    let mut changed_rows = Vec::new();
    for ((index, numbered), conflicts) in unwritten.iter().zip(&conflicts) {
        let row = numbered.row;
        if conflicts.is_retryable(row) {
            retries.push(*index);
            continue;
        }
        let constraint = conflicts.constraint(row);
        if let Some(outcome) = outcomes.get_mut(*index) {
            *outcome = RowOutcome::violates(constraint, options);
        }
        if options.on_conflict == OnConflict::Update
            && let Some(existing) = conflicts.existing_link(row)
        {
            changes.insert(existing, row);
            changed_rows.push((*index, existing));
        }
    }
    let actor = options.visible_to.owner();
    if !changes.is_empty() && is_at_event_quota(connection, actor).await? {
        for (index, _) in changed_rows {
            if let Some(outcome) = outcomes.get_mut(index) {
                *outcome = RowOutcome::violates(Constraint::EventQuota, options);
            }
        }
    } else if !changes.is_empty() {
        let updated = update(connection, &changes, options).await?;
        count_changes(connection, actor, &changes, &updated).await?;
        for (index, existing) in changed_rows {
            if updated.contains(&existing)
                && let Some(outcome) = outcomes.get_mut(index)
            {
                *outcome = RowOutcome::Written;
            }
        }
    }
    Ok(retries)
}

impl RowConflicts {
    /// Whether only the generated code or the id of the sequence is taken.
    fn is_retryable(&self, row: &ImportLink) -> bool {
        let is_code_generated = row.short_code.is_none();
        let is_code_taken = self.code_owner.is_some();
        !self.is_user_missing
            && ((is_code_generated && is_code_taken && !self.is_id_taken)
                || (row.id.is_none() && self.is_id_taken && !is_code_taken))
    }

    fn constraint(&self, row: &ImportLink) -> Constraint {
        if self.is_user_missing {
            Constraint::UserMissing
        } else if let Some(kind) = &self.exhausted_quota
            && self.code_owner.is_none()
            && !self.is_id_taken
        {
            if kind == "links" { Constraint::LinkQuota } else { Constraint::EventQuota }
        } else if row.short_code.is_some() && (self.code_owner.is_some() || !self.is_id_taken) {
            // Without an owner, the code is held or banned.
            Constraint::CodeTaken
        } else {
            Constraint::IdTaken
        }
    }

    /// The existing link that the row identifies by its code, or by its id if the row has no code.
    fn existing_link(&self, row: &ImportLink) -> Option<LinkId> {
        match row.short_code {
            _ if self.is_user_missing => None,
            Some(_) => self.code_owner,
            None if self.is_id_taken => row.id,
            None => None,
        }
    }
}

async fn find_conflicts(
    connection: &mut PgConnection,
    rows: &[(usize, NumberedRow<'_>)],
) -> Result<Vec<RowConflicts>, StoreError> {
    Ok(sqlx::query_as!(
        RowConflicts,
        r#"SELECT (SELECT urls.id FROM urls WHERE urls.short_code = row.short_code)
                    AS "code_owner: LinkId",
                  EXISTS (SELECT FROM urls WHERE urls.id = row.id) AS "is_id_taken!",
                  (row.user_id IS NOT NULL AND NOT EXISTS (
                      SELECT FROM users WHERE users.id = row.user_id)) AS "is_user_missing!",
                  CASE WHEN is_at_quota('user:' || row.user_id, 'links') THEN 'links'
                       WHEN is_at_quota('user:' || row.user_id, 'events') THEN 'events' END
                    AS exhausted_quota
             FROM UNNEST($1::bigint[], $2::text[], $3::bigint[]) WITH ORDINALITY
               AS row (id, short_code, user_id, place) ORDER BY place"#,
        &column(rows, |(_, row)| row.id.get()),
        &column(rows, |(_, row)| row.code.to_string()),
        &column(rows, |(_, row)| row.row.user_id.map(UserId::get)) as &[Option<i64>]
    )
    .fetch_all(connection)
    .await?)
}

/// Whether a user has too many events, so that its changes of links are refused.
async fn is_at_event_quota(
    connection: &mut PgConnection,
    user_id: Option<UserId>,
) -> Result<bool, StoreError> {
    let query = sqlx::query_scalar!(
        r#"SELECT is_at_quota('user:' || $1::bigint, 'events') AS "is_at_quota!""#,
        user_id.map(UserId::get)
    );
    Ok(query.fetch_one(connection).await?)
}

/// Changes the visible links among these to the values of the rows, as `PATCH /urls/{id}` does. Returns their ids.
async fn update(
    connection: &mut PgConnection,
    changes: &HashMap<LinkId, &ImportLink>,
    options: &WriteOptions,
) -> Result<HashSet<LinkId>, StoreError> {
    let mut changes: Vec<(i64, &ImportLink)> =
        changes.iter().map(|(id, row)| (id.get(), *row)).collect();
    // Locks are taken in the order of ids, so that two imports of the same links cannot deadlock.
    changes.sort_unstable_by_key(|(id, _)| *id);
    let (ids, rows): (Vec<i64>, Vec<&ImportLink>) = changes.into_iter().unzip();
    sqlx::query!("SELECT id FROM urls WHERE id = ANY($1) ORDER BY id FOR UPDATE", &ids)
        .fetch_all(&mut *connection)
        .await?;
    let attributes = column(&rows, |row| row.attributes.clone().or_default());
    let updated = sqlx::query_file_scalar!(
        "queries/import_link_updates.sql",
        &ids,
        &column(&rows, |row| row.target.as_str().to_owned()),
        &column(&attributes, |new| new.title.clone()) as &[Option<String>],
        &column(&attributes, |new| new.is_active),
        &column(&attributes, |new| status_code(new.redirect_status)),
        &column(&attributes, |new| new.expires_at) as &[Option<DateTime<Utc>>],
        &column(&attributes, |new| new.max_clicks) as &[Option<i64>],
        &column(&rows, |row| row.attributes.title.is_some()),
        &column(&rows, |row| row.attributes.is_active.is_some()),
        &column(&rows, |row| row.attributes.redirect_status.is_some()),
        &column(&rows, |row| row.attributes.expires_at.is_some()),
        &column(&rows, |row| row.attributes.max_clicks.is_some()),
        options.visible_to.owner_filter()
    )
    .fetch_all(connection)
    .await?;
    Ok(updated.into_iter().collect())
}
