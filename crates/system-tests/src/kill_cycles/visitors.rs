//! Clients that open short links: readers that check freshness, counted visitors, and visitors of limited links.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use http::header::USER_AGENT;
use http_body_util::Full;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::{
    Clients,
    ledger::{LimitedRecord, LinkState},
    writers::target,
};
use crate::client::{BROWSER, Response, request_unix};

/// Clicks of each limited link.
const MAX_CLICKS: u64 = 40;
const VISIT_TIMEOUT: Duration = Duration::from_secs(8);
/// Concurrent visitors of a limited link.
pub(super) const LIMITED_VISITORS: u64 = 4;

/// The way of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Straight to one shortener's resolve listener.
    Shortener(usize),
    /// Through nginx, to any shortener.
    Nginx,
}

impl Route {
    /// The name of its set of links.
    pub(super) fn name(self) -> String {
        match self {
            Self::Shortener(number) => format!("shortener {number}"),
            Self::Nginx => "nginx".to_owned(),
        }
    }
}

async fn open(clients: &Clients, route: Route, code: &str) -> Option<Response> {
    match route {
        Route::Shortener(number) => get(&clients.folder.join(format!("r{number}")), code).await,
        Route::Nginx => {
            let visit = clients.visitor.get(&format!("/{code}")).timeout(VISIT_TIMEOUT);
            visit.try_send().await.ok()
        }
    }
}

async fn get(socket: &Path, code: &str) -> Option<Response> {
    let request = http::Request::get(format!("/{code}")).header("host", "lnt.test");
    request_unix(socket, request.header(USER_AGENT, BROWSER).body(Full::default()).ok()?).await
}

/// Opens links of the writers and checks that no response is older than the bound.
pub(super) async fn read_links(clients: Arc<Clients>, number: usize) {
    let mut rng = StdRng::seed_from_u64(clients.seed.wrapping_add(2_000 + number as u64));
    while !clients.is_stopping() {
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..15))).await;
        let picked = {
            let records = clients.ledger.lock();
            // Mostly opens the latest links, which the writers change.
            let count = records.links.len();
            let from = if rng.random_bool(0.8) { count.saturating_sub(120) } else { 0 };
            (count > 0).then(|| rng.random_range(from..count))
        };
        let Some(index) = picked else { continue };
        let code = clients.ledger.lock().links[index].code.clone();
        let route = match rng.random_range(0..3) {
            2 => Route::Nginx,
            number => Route::Shortener(number),
        };
        let began = Instant::now();
        if let Some(response) = open(&clients, route, &code).await {
            check(&clients, index, route, began, &response);
        }
    }
}

fn check(clients: &Clients, index: usize, route: Route, began: Instant, response: &Response) {
    let mut records = clients.ledger.lock();
    let link = &records.links[index];
    let state = match (response.status, response.header("location")) {
        (404, _) => LinkState::Deleted,
        (302, Some(location)) => {
            let revision = location.rsplit('/').next().and_then(|number| number.parse().ok());
            let revision = revision.unwrap_or(u32::MAX);
            if location != target(&link.name, revision) {
                let text = format!("{} leads to {location}", link.code);
                records.stale.push(text);
                return;
            }
            LinkState::Revision(revision)
        }
        // Not answered: 502, 503.
        _ => return,
    };
    let stale = (!link.allows(state, began)).then(|| {
        let age = link.history.last().map(|(at, _)| began.saturating_duration_since(*at));
        format!(
            "{} through {} at {began:?}: {state:?} instead of {:?}, acknowledged {age:?} before the request",
            link.code,
            route.name(),
            link.current(),
        )
    });
    records.checked_reads += 1;
    records.stale.extend(stale);
}

/// Visits the links of one route, whose clicks are counted at the end.
pub(super) async fn visit_links(clients: Arc<Clients>, route: Route, codes: Vec<String>) {
    let mut rng = StdRng::seed_from_u64(clients.seed.wrapping_add(3_000));
    let name = route.name();
    let mut next = 0;
    while !clients.is_stopping() {
        next += 1;
        let response = open(&clients, route, &codes[next % codes.len()]).await;
        let redirected = response.is_some_and(|response| response.status == 302);
        {
            let mut records = clients.ledger.lock();
            let visits = records.visits.entry(name.clone()).or_default();
            if redirected {
                visits.redirects.push(Instant::now());
            } else {
                visits.failed += 1;
            }
        }
        let ms = if redirected { rng.random_range(1..8) } else { 50 };
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// Uses up links with `max_clicks`, one after the other, with four visitors at once.
pub(super) async fn use_up_links(clients: Arc<Clients>) {
    let mut number = 0;
    while !clients.is_stopping() {
        number += 1;
        let key = format!("{}limited{number}", clients.round_name);
        let body = json!({"original_url": target(&key, 0), "max_clicks": MAX_CLICKS});
        let request = clients.api.post("/api/v1/urls", &body).header("Idempotency-Key", &key);
        let created = request.timeout(VISIT_TIMEOUT).try_send().await;
        let Some(link) = created.ok().filter(|response| response.status == 201) else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let link = link.json();
        let (id, code) = (link["id"].as_i64().expect("an id"), link["short_code"].as_str());
        let code = code.expect("a code").to_owned();
        let visits = (0..LIMITED_VISITORS).map(|_| use_up(&clients, &code));
        let results = futures::future::join_all(visits).await;
        let mut record = LimitedRecord { id, max_clicks: MAX_CLICKS, ..LimitedRecord::default() };
        for (redirects, failed, is_used_up) in results {
            record.redirects += redirects;
            record.failed += failed;
            record.is_used_up |= is_used_up;
        }
        let mut records = clients.ledger.lock();
        records.acknowledged_writes += 1;
        records.limited.push(record);
    }
}

/// Visits a link until it is used up. Returns the redirects, the visits without a response of the link, and whether
/// it was used up.
async fn use_up(clients: &Clients, code: &str) -> (u64, u64, bool) {
    let (mut redirects, mut failed) = (0, 0);
    while !clients.is_stopping() {
        match open(clients, Route::Nginx, code).await.map(|response| response.status) {
            Some(302) => redirects += 1,
            Some(404) => return (redirects, failed, true),
            _ => {
                failed += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (redirects, failed, false)
}
