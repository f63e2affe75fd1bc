//! The other side of the proxy.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use futures::StreamExt as _;
use linnet_platform::listener::{Address, Bound, Listener};
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};

use super::TOKEN;

/// A valid key with the scopes `urls:read urls:write`.
pub(in crate::tests) const KEY: &str = "lnt_Ab3xYz01_0123456789abcdefghijklmnopqrstuvwxyzABCDEF-";
/// A key that nobody knows.
pub(in crate::tests) const REVOKED: &str =
    "lnt_Zz9xYz99_0123456789abcdefghijklmnopqrstuvwxyzABCDEF-";

/// What a test can see and steer.
#[derive(Default)]
pub(in crate::tests) struct State {
    pub(in crate::tests) lookups: AtomicU64,
    pub(in crate::tests) calls: AtomicU64,
    /// [`KEY`] is no longer valid.
    pub(in crate::tests) revoked: AtomicBool,
    /// Set: look-ups wait for a permit.
    pub(in crate::tests) hold_lookups: AtomicBool,
    pub(in crate::tests) lookup_permits: PermitBox,
    /// An event stream was dropped before its end.
    pub(in crate::tests) stream_dropped: AtomicBool,
    /// What an upload turned out to be: `whole` or `cut off`.
    pub(in crate::tests) upload: Mutex<Option<&'static str>>,
    /// Lets a held answer go on.
    pub(in crate::tests) go_on: Notify,
    pub(in crate::tests) draining: AtomicBool,
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
                .route("/api/v1/test-stream", web::to(stream))
                .default_service(web::to(echo))
        })
        .workers(1)
        .h1_allow_half_closed(false)
        .client_disconnect_timeout(std::time::Duration::from_secs(2));
        let server = match listener.split().0 {
            Bound::Tcp(socket) => server.listen(socket),
            Bound::Unix(socket) => server.listen_uds(socket),
        };
        actix_web::rt::spawn(server.unwrap().run());
        Self { address, state }
    }

    /// An address where there is nobody, in the shape of a shortener.
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

async fn lookup(state: web::Data<State>, question: web::Json<Value>) -> HttpResponse {
    state.lookups.fetch_add(1, Ordering::SeqCst);
    let valid = question["key"] == KEY && !state.revoked.load(Ordering::SeqCst);
    if state.hold_lookups.load(Ordering::SeqCst) {
        state.lookup_permits.0.acquire().await.unwrap().forget();
    }
    if valid {
        HttpResponse::Ok().json(json!({
            "key_id": "Ab3xYz01",
            "user_id": 7,
            "scopes": ["urls:read", "urls:write"],
            "expires_at": null,
        }))
    } else {
        HttpResponse::NotFound().finish()
    }
}

/// Tells what arrived.
async fn echo(request: HttpRequest, state: web::Data<State>, body: Bytes) -> HttpResponse {
    state.calls.fetch_add(1, Ordering::SeqCst);
    let headers: serde_json::Map<String, Value> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").into()))
        .collect();
    HttpResponse::Ok().insert_header(("x-linnet-inside", "1")).json(json!({
        "method": request.method().as_str(),
        "path": request.uri().path_and_query().unwrap().as_str(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }))
}

/// Special ids misbehave.
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

/// One event at once, the next when the test says so, then no more.
fn events(state: &web::Data<State>) -> HttpResponse {
    let first = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from("data: 1\n\n"))]);
    let guard = Dropped(state.clone());
    let second = futures::stream::once(async move {
        guard.0.go_on.notified().await;
        // The guard lives as long as the stream waits.
        drop(guard);
        Ok(Bytes::from("data: 2\n\n"))
    });
    let forever = futures::stream::pending();
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .streaming(first.chain(second).chain(forever))
}

/// `?refuse` answers before it reads; otherwise what comes in goes out, piece by piece.
async fn stream(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> HttpResponse {
    state.calls.fetch_add(1, Ordering::SeqCst);
    if request.query_string() == "refuse" {
        return HttpResponse::Forbidden()
            .content_type("application/problem+json")
            .body(r#"{"status":403,"code":"early"}"#);
    }
    let echoed = payload.map(Some).chain(futures::stream::iter([None])).filter_map(move |piece| {
        let state = state.clone();
        async move {
            match piece {
                Some(Ok(bytes)) => Some(Ok(bytes)),
                Some(Err(error)) => {
                    *state.upload.lock().unwrap() = Some("cut off");
                    Some(Err(actix_web::Error::from(error)))
                }
                None => {
                    state.upload.lock().unwrap().get_or_insert("whole");
                    None
                }
            }
        }
    });
    HttpResponse::Ok().streaming(echoed)
}
