//! Clients that create, edit and delete links, and import files.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::{
    Clients,
    ledger::{ImportRecord, LinkRecord, LinkState},
};
use crate::client::{Method, Response};

/// Links that one writer changes at a time.
const LINKS_PER_WRITER: usize = 15;
const ROWS_PER_IMPORT: i64 = 300;
/// Longest wait for a response, longer than all timeouts of the processes together.
const TIMEOUT: Duration = Duration::from_secs(12);

/// The target of a link's state.
pub(super) fn target(name: &str, revision: u32) -> String {
    format!("https://example.com/k/{name}/{revision}")
}

/// The name of the link that has this target; `None` for a link of another client.
pub(super) fn name_of(target: &str) -> Option<&str> {
    target.strip_prefix("https://example.com/k/")?.split('/').next()
}

/// Waits between two requests, longer after a failure.
async fn pause(rng: &mut StdRng, failed: bool) {
    let ms = if failed { 100 } else { rng.random_range(5..40) };
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Creates, edits and deletes links of its own until the round stops.
pub(super) async fn write_links(clients: Arc<Clients>, number: usize) {
    let mut rng = StdRng::seed_from_u64(clients.seed.wrapping_add(number as u64));
    let mut mine: Vec<usize> = Vec::new();
    let mut created = 0;
    while !clients.is_stopping() {
        let choice = rng.random_range(0..10);
        let succeeded = if mine.len() < 3 || (choice < 3 && mine.len() < LINKS_PER_WRITER) {
            created += 1;
            let name = format!("{}w{number}n{created}", clients.round_name);
            let custom = rng.random_bool(0.5);
            match create(&clients, &name, custom, &mut rng).await {
                Some(index) => {
                    mine.push(index);
                    true
                }
                None => false,
            }
        } else {
            let place = rng.random_range(0..mine.len());
            let index = mine[place];
            let next = match clients.ledger.lock().links[index].current() {
                LinkState::Revision(_) if choice == 9 => LinkState::Deleted,
                LinkState::Revision(revision) => LinkState::Revision(revision + 1),
                LinkState::Deleted => LinkState::Deleted,
            };
            let succeeded = change(&clients, index, next).await;
            if !succeeded || next == LinkState::Deleted {
                mine.swap_remove(place);
            }
            succeeded
        };
        pause(&mut rng, !succeeded).await;
    }
}

/// Creates a link. Repeats the request with its `Idempotency-Key` until it succeeds. Returns its place in the
/// ledger; `None` if the round stops first.
async fn create(clients: &Clients, name: &str, custom: bool, rng: &mut StdRng) -> Option<usize> {
    let mut body = json!({"original_url": target(name, 0)});
    if custom {
        body["short_code"] = json!(format!("k{name}"));
    }
    loop {
        let request = clients.api.post("/api/v1/urls", &body).header("Idempotency-Key", name);
        match request.timeout(TIMEOUT).try_send().await {
            Ok(response) if response.status == 201 => {
                return Some(record_created(clients, name, &response));
            }
            Ok(response)
                if response.status == 422 || response.status == 409 && !is_locked(&response) =>
            {
                panic!("creation of {name}: {} {}", response.status, response.text());
            }
            _ if clients.is_stopping() => {
                clients.ledger.lock().unknown_creations.push(name.to_owned());
                return None;
            }
            _ => pause(rng, true).await,
        }
    }
}

/// Whether another request of the same key, or another statement, is still running.
fn is_locked(response: &Response) -> bool {
    let text = response.text();
    text.contains("\"locked\"") || text.contains("idempotency")
}

fn record_created(clients: &Clients, name: &str, response: &Response) -> usize {
    let link = response.json();
    let record = LinkRecord {
        id: link["id"].as_i64().expect("an id"),
        code: link["short_code"].as_str().expect("a code").to_owned(),
        name: name.to_owned(),
        history: vec![(Instant::now(), LinkState::Revision(0))],
        unacknowledged: None,
    };
    let mut records = clients.ledger.lock();
    records.acknowledged_writes += 1;
    records.links.push(record);
    records.links.len() - 1
}

/// Sends one change. Returns whether it was acknowledged.
async fn change(clients: &Clients, index: usize, next: LinkState) -> bool {
    let (id, name) = {
        let mut records = clients.ledger.lock();
        let link = &mut records.links[index];
        // Readers may see it from now on.
        link.unacknowledged = Some(next);
        (link.id, link.name.clone())
    };
    let path = format!("/api/v1/urls/{id}");
    let request = match next {
        LinkState::Deleted => clients.api.delete(&path),
        LinkState::Revision(revision) => {
            clients.api.patch(&path, &json!({"original_url": target(&name, revision)}))
        }
    };
    let response = request.timeout(TIMEOUT).try_send().await;
    let succeeded = response.is_ok_and(|response| response.status < 300);
    if succeeded {
        let mut records = clients.ledger.lock();
        records.acknowledged_writes += 1;
        let link = &mut records.links[index];
        link.unacknowledged = None;
        link.history.push((Instant::now(), next));
    }
    succeeded
}

/// Uploads files with links until the round stops, each until it is accepted.
pub(super) async fn import_links(clients: Arc<Clients>) {
    let mut rng = StdRng::seed_from_u64(clients.seed.wrapping_add(1_000));
    let mut number = 0;
    while !clients.is_stopping() {
        number += 1;
        let prefix = format!("i{}n{number}r", clients.round_name);
        let mut csv = "short_code,original_url\n".to_owned();
        for row in 0..ROWS_PER_IMPORT {
            csv.push_str(&format!("{prefix}{row},https://example.com/i/{row}\n"));
        }
        upload(&clients, &prefix, csv, &mut rng).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(200..800))).await;
    }
}

async fn upload(clients: &Clients, prefix: &str, csv: String, rng: &mut StdRng) {
    while !clients.is_stopping() {
        let request = clients.api.request(Method::POST, "/api/v1/urls/bulk");
        let request = request.header("Idempotency-Key", prefix).body("text/csv", csv.clone());
        let response = request.timeout(TIMEOUT).try_send().await;
        if let Ok(response) = response
            && response.status == 202
        {
            let job_id = response.json()["job"]["id"].as_i64().expect("a job");
            let record = ImportRecord { job_id, prefix: prefix.to_owned(), rows: ROWS_PER_IMPORT };
            let mut records = clients.ledger.lock();
            records.acknowledged_writes += 1;
            records.imports.push(record);
            return;
        }
        pause(rng, true).await;
    }
}
