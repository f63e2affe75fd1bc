//! Sends the requests of visitors and of a user, which no attack may affect.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use linnet_system_tests::{Client, Stack, client::Method};
use serde_json::json;
use tokio::sync::Semaphore;

/// Number of links that are resolved.
const LINKS: usize = 50;
/// Time between two requests: 200 requests a second.
const INTERVAL: Duration = Duration::from_millis(5);
/// Requests between two edits: one edit a second.
const REQUESTS_PER_EDIT: usize = 200;
/// Timeout of a request, which then counts as a failure.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of requests in flight. Further ones are omitted: on a machine that is too slow for the rate, requests
/// do not queue.
const IN_FLIGHT: usize = 64;
/// The guarantee: no target is served that was replaced longer ago than this.
const BOUND: Duration = Duration::from_secs(1);

/// Counts, failures and latencies of the prober's requests.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) resolved: usize,
    pub(crate) edited: usize,
    /// Requests that were not sent, because too many were in flight.
    pub(crate) omitted: usize,
    pub(crate) failures: Vec<String>,
    pub(crate) stale: Vec<String>,
    /// Time from when a request was due to the end of its response.
    pub(crate) latencies: Vec<Duration>,
}

impl Seen {
    /// The latency that `percent` percent of the requests do not exceed.
    pub(crate) fn quantile(&self, percent: usize) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or_default()
    }
}

/// A link whose target names its revision.
#[derive(Debug)]
struct Link {
    id: i64,
    code: String,
    /// When the response to the edit of each revision arrived; `None` for an edit without a successful response.
    edits: Vec<Option<Instant>>,
}

impl Link {
    fn target(&self, revision: usize) -> String {
        format!("https://example.com/{}/{revision}", self.code)
    }

    /// The oldest revision that the response to a request sent at `sent` may have.
    fn oldest(&self, sent: Instant) -> usize {
        let is_due = |edit: &Option<Instant>| edit.is_some_and(|edit| edit + BOUND < sent);
        self.edits.iter().rposition(is_due).unwrap_or(0)
    }
}

#[derive(Debug)]
struct Shared {
    links: Vec<Mutex<Link>>,
    seen: Mutex<Seen>,
    stop: AtomicBool,
}

/// Sends the requests from a thread of its own, so that an attack's tasks do not delay them.
#[derive(Debug)]
pub(crate) struct Prober {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Prober {
    pub(crate) async fn start(stack: &Stack) -> Self {
        let (_, client) = stack.create_user("prober", &["urls:read", "urls:write"]).await;
        let mut links = Vec::new();
        for _ in 0..LINKS {
            let link = client.shorten(&json!({"original_url": "https://example.com/new"})).await;
            let link = Link {
                id: link["id"].as_i64().expect("an id"),
                code: link["short_code"].as_str().expect("a code").to_owned(),
                edits: vec![None],
            };
            let body = json!({"original_url": link.target(0)});
            let path = format!("/api/v1/urls/{}", link.id);
            assert_eq!(client.patch(&path, &body).send().await.status, 200);
            links.push(Mutex::new(link));
        }
        tokio::time::sleep(BOUND).await;
        let shared =
            Arc::new(Shared { links, seen: Mutex::default(), stop: AtomicBool::new(false) });
        let thread = std::thread::spawn({
            let shared = shared.clone();
            // A client's connections belong to the runtime that opened them.
            let (address, key) = (client.address(), client.key().expect("a key").to_owned());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let client = move || Client::new(address).with_key(&key);
                runtime.expect("a runtime").block_on(run(shared, client()));
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// The requests since the last call.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *self.shared.seen.lock().expect("no panic"))
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            assert!(ended.is_none_or(|ended| ended.is_ok()), "the prober panicked");
        }
    }
}

async fn run(shared: Arc<Shared>, client: Client) {
    let mut due = tokio::time::interval(INTERVAL);
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut number = 0;
    let mut edited = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let due = due.tick().await.into_std();
        number += 1;
        if number % REQUESTS_PER_EDIT == 0 {
            edited = (edited + 1) % LINKS;
            tokio::spawn(edit(shared.clone(), client.clone(), edited));
        }
        // Every second request is for the link that was edited last.
        let link = if number % 2 == 0 { edited } else { number / 2 % LINKS };
        // Every fourth request opens a connection, like a new visitor's.
        let client =
            if number % 4 == 0 { Client::new(client.address()) } else { client.anonymous() };
        let Ok(permit) = in_flight.clone().try_acquire_owned() else {
            shared.seen.lock().expect("no panic").omitted += 1;
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            resolve(shared, client, link, due).await;
            drop(permit);
        });
    }
}

async fn edit(shared: Arc<Shared>, client: Client, number: usize) {
    let (path, revision, body) = {
        let mut link = shared.links[number].lock().expect("no panic");
        link.edits.push(None);
        let revision = link.edits.len() - 1;
        let body = json!({"original_url": link.target(revision)});
        (format!("/api/v1/urls/{}", link.id), revision, body)
    };
    let response = client.patch(&path, &body).timeout(TIMEOUT).try_send().await;
    let mut seen = shared.seen.lock().expect("no panic");
    seen.edited += 1;
    match response {
        Ok(response) if response.status == 200 => {
            shared.links[number].lock().expect("no panic").edits[revision] = Some(Instant::now());
        }
        Ok(response) => {
            seen.failures.push(format!("edit: {} {}", response.status, response.text()));
        }
        Err(error) => seen.failures.push(format!("edit: {error}")),
    }
}

async fn resolve(shared: Arc<Shared>, client: Client, number: usize, due: Instant) {
    let (path, oldest) = {
        let link = shared.links[number].lock().expect("no panic");
        (format!("/{}", link.code), link.oldest(Instant::now()))
    };
    let response = client.request(Method::GET, &path).timeout(TIMEOUT).try_send().await;
    let mut seen = shared.seen.lock().expect("no panic");
    seen.resolved += 1;
    seen.latencies.push(due.elapsed());
    match response {
        Ok(response) if response.status == 302 => {
            let target = response.header("location").unwrap_or_default();
            let revision = target.rsplit('/').next().and_then(|text| text.parse::<usize>().ok());
            if revision.is_none_or(|revision| revision < oldest) {
                seen.stale.push(format!("{path}: {target} instead of revision {oldest} or later"));
            }
        }
        Ok(response) => {
            seen.failures.push(format!("{path}: {} {}", response.status, response.text()));
        }
        Err(error) => seen.failures.push(format!("{path}: {error}")),
    }
}
