//! A fake shortener.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use linnet_platform::listener::{Address, BoundSocket, Listener};
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};

use super::TOKEN;

/// A valid key with the scopes `urls:read urls:write`. Every key whose public id begins with `Ab3xYz` is valid and
/// belongs to the same user, and so does each key of [`State::issued`].
pub(in crate::tests) const KEY: &str = "lnt_Ab3xYz01_0123456789abcdefghijklmnopqrstuvwxyzABCDEF-";
/// A key that the fake does not know.
pub(in crate::tests) const REVOKED: &str =
    "lnt_Zz9xYz99_0123456789abcdefghijklmnopqrstuvwxyzABCDEF-";

/// Observations of the fake, and switches of its behavior.
#[derive(Default)]
pub(in crate::tests) struct State {
    pub(in crate::tests) lookups: AtomicU64,
    pub(in crate::tests) calls: AtomicU64,
    /// Further valid keys.
    pub(in crate::tests) issued: Mutex<Vec<String>>,
    /// Whether [`KEY`] is revoked.
    pub(in crate::tests) revoked: AtomicBool,
    /// The expiry of [`KEY`].
    pub(in crate::tests) expires_at: Mutex<Option<DateTime<Utc>>>,
    /// Whether lookups wait for a permit.
    pub(in crate::tests) hold_lookups: AtomicBool,
    pub(in crate::tests) lookup_permits: PermitBox,
    /// Whether an event stream was dropped before its end.
    pub(in crate::tests) stream_dropped: AtomicBool,
    /// How the last upload ended.
    pub(in crate::tests) upload: Mutex<Option<UploadEnd>>,
    /// Releases the second event of an event stream.
    pub(in crate::tests) next_event: Notify,
    pub(in crate::tests) draining: AtomicBool,
}

/// How an upload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tests) enum UploadEnd {
    Complete,
    Truncated,
}

pub(in crate::tests) struct PermitBox(pub(in crate::tests) Semaphore);

impl Default for PermitBox {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

pub(in crate::tests) struct Shortener {
    pub(in crate::tests) address: String,
    pub(in crate::tests) state: Arc<State>,
}

impl Shortener {
    pub(in crate::tests) fn start() -> Self {
        Self::start_on(&Address::Tcp("127.0.0.1:0".into()))
    }

    pub(in crate::tests) fn start_on(address: &Address) -> Self {
        let listener = Listener::bind(address).unwrap();
        let address = listener.local_address().to_string();
        let state = Arc::new(State::default());
        let data = web::Data::from(Arc::clone(&state));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .route("/internal/v1/health", web::get().to(health))
                .route("/internal/v1/keys/lookup", web::post().to(lookup))
                .route("/api/v1/urls/{id}", web::get().to(by_id))
                .route("/api/v1/urls/{id}/live", web::get().to(live))
                .route("/api/v1/test-stream", web::to(stream))
                .default_service(web::to(echo))
        })
        .workers(1)
        .h1_allow_half_closed(false)
        .client_disconnect_timeout(std::time::Duration::from_secs(2));
        let server = match listener.split().0 {
            BoundSocket::Tcp(socket) => server.listen(socket),
            BoundSocket::Unix(socket) => server.listen_uds(socket),
        };
        actix_web::rt::spawn(server.unwrap().run());
        Self { address, state }
    }

    /// A shortener at this address, without a fake server.
    pub(in crate::tests) fn at(address: String) -> Self {
        Self { address, state: Arc::default() }
    }

    pub(in crate::tests) fn lookups(&self) -> u64 {
        self.state.lookups.load(Ordering::SeqCst)
    }

    pub(in crate::tests) fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::SeqCst)
    }
}

async fn health(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    let token = request.headers().get("x-linnet-service-token");
    if token.is_none_or(|token| token.as_bytes() != TOKEN.as_bytes()) {
        HttpResponse::Unauthorized().finish()
    } else if state.draining.load(Ordering::SeqCst) {
        HttpResponse::ServiceUnavailable().finish()
    } else {
        HttpResponse::Ok().finish()
    }
}

async fn lookup(state: web::Data<State>, request: web::Json<Value>) -> HttpResponse {
    state.lookups.fetch_add(1, Ordering::SeqCst);
    let key = request["key"].as_str().unwrap_or_default();
    let is_issued = state.issued.lock().unwrap().iter().any(|issued| issued == key);
    let is_valid =
        is_issued || (key.starts_with("lnt_Ab3xYz") && !state.revoked.load(Ordering::SeqCst));
    if state.hold_lookups.load(Ordering::SeqCst) {
        state.lookup_permits.0.acquire().await.unwrap().forget();
    }
    if is_valid {
        HttpResponse::Ok().json(json!({
            "key_id": &key[4..12],
            "user_id": 7,
            "scopes": ["urls:read", "urls:write"],
            "expires_at": *state.expires_at.lock().unwrap(),
        }))
    } else {
        HttpResponse::NotFound().finish()
    }
}

/// Responds with the request that arrived. The call is counted when its head arrives.
async fn echo(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    state.calls.fetch_add(1, Ordering::SeqCst);
    let body = payload.to_bytes().await?;
    let headers: serde_json::Map<String, Value> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").into()))
        .collect();
    Ok(HttpResponse::Ok().insert_header(("x-linnet-inside", "1")).json(json!({
        "method": request.method().as_str(),
        "path": request.uri().path_and_query().unwrap().as_str(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    })))
}

/// Some ids select a failure.
async fn by_id(
    id: web::Path<String>,
    request: HttpRequest,
    state: web::Data<State>,
) -> HttpResponse {
    state.calls.fetch_add(1, Ordering::SeqCst);
    match id.as_str() {
        "hang" => std::future::pending().await,
        "missing" => HttpResponse::NotFound()
            .content_type("application/problem+json")
            .body(r#"{"status":404,"code":"not_found"}"#),
        "events" => events(&state),
        _ => HttpResponse::Ok()
            .json(json!({ "path": request.uri().path_and_query().unwrap().as_str() })),
    }
}

struct Dropped(web::Data<State>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.stream_dropped.store(true, Ordering::SeqCst);
    }
}

async fn live(state: web::Data<State>) -> HttpResponse {
    state.calls.fetch_add(1, Ordering::SeqCst);
    events(&state)
}

/// Sends one event immediately, and the second on [`State::next_event`]; never ends.
fn events(state: &web::Data<State>) -> HttpResponse {
    let first = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from("data: 1\n\n"))]);
    let guard = Dropped(state.clone());
    let second = futures::stream::once(async move {
        guard.0.next_event.notified().await;
        // The guard lives as long as the stream waits for the event.
        drop(guard);
        Ok(Bytes::from("data: 2\n\n"))
    });
    let forever = futures::stream::pending();
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .streaming(first.chain(second).chain(forever))
}

/// `?reject` responds before it reads; otherwise each chunk is echoed.
async fn stream(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> HttpResponse {
    state.calls.fetch_add(1, Ordering::SeqCst);
    if request.query_string() == "reject" {
        return HttpResponse::Forbidden()
            .content_type("application/problem+json")
            .body(r#"{"status":403,"code":"early"}"#);
    }
    let echoed = payload.map(Some).chain(futures::stream::iter([None])).filter_map(move |chunk| {
        let state = state.clone();
        async move {
            match chunk {
                Some(Ok(bytes)) => Some(Ok(bytes)),
                Some(Err(error)) => {
                    *state.upload.lock().unwrap() = Some(UploadEnd::Truncated);
                    Some(Err(actix_web::Error::from(error)))
                }
                None => {
                    state.upload.lock().unwrap().get_or_insert(UploadEnd::Complete);
                    None
                }
            }
        }
    });
    HttpResponse::Ok().streaming(echoed)
}
