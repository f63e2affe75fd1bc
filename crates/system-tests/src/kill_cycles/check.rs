//! Compares a round's ledger with the database and the API after all clients have stopped.

use std::{collections::BTreeMap, time::Duration};

use sqlx::PgConnection;

use super::{
    Clients, ROUTES, Totals, is_before,
    ledger::{LinkRecord, LinkState, Records, VisitRecord},
    victims::{Kill, Victim},
    visitors::{LIMITED_VISITORS, Route},
    writers::{name_of, target},
};
use crate::{Stack, eventually, within};

/// Longest wait until jobs have ended and clicks are recorded.
const DRAIN_TIMEOUT: Duration = Duration::from_mins(10);
/// A killed shortener loses the clicks of its flush interval (0.2 s) and of the batch that it was sending.
const SHORTENER_LOSES_S: f64 = 1.0;
/// A killed Redis loses at most the last second of its append-only file. The clicks in it are up to a flush interval
/// older.
const REDIS_LOSES_S: f64 = 1.5;

/// Waits until every job has ended and every click is recorded.
pub(super) async fn wait_until_idle(stack: &Stack) {
    stack.wait_until_ready().await;
    let mut database = stack.database().await;
    wait_for_jobs(&mut database).await;
    wait_for_clicks(&mut database).await;
}

/// Compares the records with an idle installation. Returns the totals, except the numbers of kills.
pub(super) async fn check(stack: &Stack, clients: &Clients, kills: &[Kill]) -> Totals {
    let mut database = stack.database().await;
    let records = std::mem::take(&mut *clients.ledger.lock());
    let rows: i64 = records.imports.iter().map(|import| import.rows).sum();
    let mut totals = Totals {
        writes: records.acknowledged_writes,
        imported_rows: u64::try_from(rows).unwrap_or_default(),
        checked_reads: records.checked_reads,
        violations: records.stale.iter().map(|stale| format!("stale: {stale}")).collect(),
        ..Totals::default()
    };
    check_links(&mut database, &records, &mut totals).await;
    check_resolution(stack, &records, &mut totals).await;
    check_imports(&mut database, &records, &mut totals).await;
    check_limits(&mut database, &records, kills, &mut totals).await;
    check_clicks(&mut database, &records, kills, &mut totals).await;
    check_outbox(&mut database, &mut totals).await;
    totals
}

async fn wait_for_jobs(database: &mut PgConnection) {
    let database = tokio::sync::Mutex::new(database);
    within(DRAIN_TIMEOUT, "every job to end", || async {
        let active = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')";
        let mut database = database.lock().await;
        sqlx::query_scalar::<_, i64>(active).fetch_one(&mut **database).await.expect("a count") == 0
    })
    .await;
}

/// Waits until no more clicks are recorded for three seconds, longer than a worker's takeover takes.
async fn wait_for_clicks(database: &mut PgConnection) {
    let database = tokio::sync::Mutex::new((database, -1));
    eventually(DRAIN_TIMEOUT, "all clicks to be recorded", || async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut state = database.lock().await;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM all_clicks")
            .fetch_one(&mut *state.0)
            .await
            .expect("a count");
        (std::mem::replace(&mut state.1, count) == count).then_some(())
    })
    .await;
}

/// The targets of the writers' links, and their events by type.
async fn check_links(database: &mut PgConnection, records: &Records, totals: &mut Totals) {
    let links: Vec<(i64, String)> = sqlx::query_as("SELECT id, original_url FROM urls")
        .fetch_all(&mut *database)
        .await
        .expect("the links");
    let by_id: BTreeMap<i64, &str> = links.iter().map(|(id, url)| (*id, url.as_str())).collect();
    let events: Vec<(i64, String, i64)> = sqlx::query_as(
        "SELECT url_id, event_type, count(*) FROM events WHERE url_id IS NOT NULL GROUP BY 1, 2",
    )
    .fetch_all(&mut *database)
    .await
    .expect("the events");
    let events: BTreeMap<(i64, &str), i64> =
        events.iter().map(|(id, kind, count)| ((*id, kind.as_str()), *count)).collect();
    for link in &records.links {
        let is = |state| match state {
            LinkState::Deleted => !by_id.contains_key(&link.id),
            LinkState::Revision(number) => {
                by_id.get(&link.id) == Some(&target(&link.name, number).as_str())
            }
        };
        if !is(link.current()) && !link.unacknowledged.is_some_and(is) {
            let found = by_id.get(&link.id);
            totals.violations.push(format!("lost write: {link:?} is {found:?}"));
        }
        let count = |kind| events.get(&(link.id, kind)).copied().unwrap_or_default();
        let acknowledged = |deleted: bool| {
            let states = link.history.iter().skip(1);
            let count = states.filter(|(_, state)| (*state == LinkState::Deleted) == deleted);
            i64::try_from(count.count()).unwrap_or(i64::MAX)
        };
        let unknown = |deleted: bool| {
            i64::from(
                link.unacknowledged.is_some_and(|state| (state == LinkState::Deleted) == deleted),
            )
        };
        let found = [count("created"), count("updated"), count("deleted")];
        let least = [1, acknowledged(false), acknowledged(true)];
        let most = [1, least[1] + unknown(false), least[2] + unknown(true)];
        if (0..3).any(|n| found[n] < least[n] || found[n] > most[n]) {
            let targets = targets_of_events(&mut *database, link.id).await;
            totals.violations.push(format!(
                "events of {link:?}: {found:?} not in {least:?} to {most:?}; events: {targets:?}"
            ));
        }
    }
    check_executed_once(&links, records, totals);
}

/// The targets of a link's events, and when they were recorded.
async fn targets_of_events(database: &mut PgConnection, id: i64) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT concat_ws(' ', event_type, details->>'original_url', timestamp) FROM events
          WHERE url_id = $1 ORDER BY timestamp, id",
    )
    .bind(id)
    .fetch_all(database)
    .await
    .expect("the events")
}

/// A creation whose response was lost is repeated with its `Idempotency-Key`, so one link at most has its targets.
fn check_executed_once(links: &[(i64, String)], records: &Records, totals: &mut Totals) {
    let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
    for name in links.iter().filter_map(|(_, url)| name_of(url)) {
        *by_name.entry(name).or_default() += 1;
    }
    let allowed = |link: &LinkRecord| usize::from(link.current() != LinkState::Deleted);
    let known = records.links.iter().map(|link| (&link.name, allowed(link)));
    let unknown = records.unknown_creations.iter().map(|name| (name, 1));
    for (name, allowed) in known.chain(unknown) {
        let count = by_name.get(name.as_str()).copied().unwrap_or_default();
        if count > allowed {
            totals.violations.push(format!("{count} links of one creation: {name}"));
        }
    }
}

/// Every shortener resolves every link to its last state.
async fn check_resolution(stack: &Stack, records: &Records, totals: &mut Totals) {
    for link in &records.links {
        for shortener in 0..stack.shorteners.len() {
            let (status, location) = stack.resolve_at(shortener, &link.code).await;
            let is = |state| match state {
                LinkState::Deleted => status == 404,
                LinkState::Revision(number) => {
                    location.as_deref() == Some(&target(&link.name, number))
                }
            };
            if !is(link.current()) && !link.unacknowledged.is_some_and(is) {
                totals.violations.push(format!(
                    "stale after the round: {link:?} is {status} {location:?} at shortener {shortener}"
                ));
            }
        }
    }
}

async fn check_imports(database: &mut PgConnection, records: &Records, totals: &mut Totals) {
    for import in &records.imports {
        let job: Option<(String, i64, i64, i64, i64)> = sqlx::query_as(
            "SELECT state, rows_read, rows_written, rows_skipped, rows_failed FROM jobs WHERE id = $1",
        )
        .bind(import.job_id)
        .fetch_optional(&mut *database)
        .await
        .expect("the job");
        let rows = import.rows;
        if job != Some(("succeeded".to_owned(), rows, rows, 0, 0)) {
            totals.violations.push(format!("import {import:?}: {job:?}"));
        }
        let (links, events): (i64, i64) = sqlx::query_as(
            "SELECT count(DISTINCT urls.id), count(events.id)
               FROM urls LEFT JOIN events ON url_id = urls.id AND event_type = 'created'
              WHERE starts_with(short_code, $1)",
        )
        .bind(&import.prefix)
        .fetch_one(&mut *database)
        .await
        .expect("the links");
        if (links, events) != (rows, rows) {
            totals.violations.push(format!("import {import:?}: {links} links, {events} events"));
        }
    }
    let jobs: i64 =
        sqlx::query_scalar("SELECT count(*) FROM jobs").fetch_one(database).await.expect("a count");
    // Each file is uploaded with an `Idempotency-Key`, and the last one may not have been acknowledged.
    let accepted = i64::try_from(records.imports.len()).unwrap_or(i64::MAX);
    if jobs > accepted + 1 {
        totals.violations.push(format!("{jobs} jobs, but {accepted} accepted uploads"));
    }
}

async fn check_limits(
    database: &mut PgConnection,
    records: &Records,
    kills: &[Kill],
    totals: &mut Totals,
) {
    // A killed process cannot give a click back, and nginx repeats the visit at another shortener.
    let unsent = LIMITED_VISITORS * repeating_kills(kills);
    for limited in &records.limited {
        if limited.redirects > limited.max_clicks {
            totals.violations.push(format!("beyond max_clicks: {limited:?}"));
        }
        if limited.is_used_up && limited.redirects + limited.failed + unsent < limited.max_clicks {
            totals.violations.push(format!("used up too early: {limited:?}"));
        }
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM urls WHERE id = $1)")
            .bind(limited.id)
            .fetch_one(&mut *database)
            .await
            .expect("the link");
        if !exists {
            totals.violations.push(format!("lost write: {limited:?}"));
        }
    }
}

/// Compares the clicks of each route: at least the redirects minus the stated losses, at most the redirects plus the
/// visits without a response.
async fn check_clicks(
    database: &mut PgConnection,
    records: &Records,
    kills: &[Kill],
    totals: &mut Totals,
) {
    for route in ROUTES {
        let visits = &records.visits[&route.name()];
        let recorded: i64 =
            sqlx::query_scalar("SELECT count(*) FROM all_clicks WHERE url_id = ANY($1)")
                .bind(&visits.links)
                .fetch_one(&mut *database)
                .await
                .expect("a count");
        let recorded = u64::try_from(recorded).unwrap_or_default();
        let redirects = visits.redirects.len() as u64;
        let allowed = losable(route, visits, kills);
        let lost = redirects.saturating_sub(recorded);
        totals.clicks += redirects;
        totals.clicks_lost_as_stated += lost.min(allowed);
        if lost > allowed {
            totals.violations.push(format!(
                "clicks of {}: {recorded} of {redirects} recorded, {allowed} may be lost",
                route.name()
            ));
        }
        let most = redirects + visits.failed + repeating_kills(kills);
        if recorded > most {
            totals.violations.push(format!(
                "clicks of {}: {recorded} recorded, at most {most} happened",
                route.name()
            ));
        }
    }
    let sums: (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM all_clicks),
                (SELECT coalesce(sum(clicks + bots + prefetches + heads), 0)::bigint
                   FROM click_hours WHERE subject = 0),
                (SELECT coalesce(sum(clicks + bots + prefetches + heads), 0)::bigint
                   FROM click_totals_by_day WHERE subject > 0)",
    )
    .fetch_one(database)
    .await
    .expect("the sums");
    if sums.0 != sums.1 || sums.0 != sums.2 {
        totals.violations.push(format!("raw clicks, hours, days of links differ: {sums:?}"));
    }
}

/// Kills after which nginx may repeat a visit at another shortener, although the first one has recorded the click.
fn repeating_kills(kills: &[Kill]) -> u64 {
    kills
        .iter()
        .filter(|kill| matches!(kill.victim, Victim::Shortener(_) | Victim::Postgres))
        .count() as u64
}

/// The number of redirects whose clicks a kill may have lost.
fn losable(route: Route, visits: &VisitRecord, kills: &[Kill]) -> u64 {
    let seconds = |kill: &Kill| match (kill.victim, route) {
        (Victim::Redis, _) => Some(REDIS_LOSES_S),
        (Victim::Shortener(number), Route::Shortener(visited)) if number != visited => None,
        (Victim::Shortener(_), _) => Some(SHORTENER_LOSES_S),
        _ => None,
    };
    let is_losable = |at| {
        kills.iter().any(|kill| seconds(kill).is_some_and(|seconds| is_before(at, kill, seconds)))
    };
    visits.redirects.iter().filter(|at| is_losable(**at)).count() as u64
}

/// The relays have published every change.
async fn check_outbox(database: &mut PgConnection, totals: &mut Totals) {
    let left: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM cache_invalidations WHERE created_at < now() - interval '2 s'",
    )
    .fetch_one(database)
    .await
    .expect("a count");
    if left > 0 {
        totals.violations.push(format!("{left} outbox rows were never published"));
    }
}
