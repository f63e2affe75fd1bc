//! An HTTP client that follows nothing, retries nothing and says everything it got.

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
pub use http::Method;
use http::{HeaderMap, HeaderName, HeaderValue, Request as HttpRequest, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use serde_json::Value;

/// Longest wait for a whole answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a person's browser says that it is.
pub const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// A client of one address; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    key: Option<String>,
}

/// A request that is being made.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    client: Client,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    patience: Duration,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// A client without a key.
    pub fn new(address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { http, address, key: None }
    }

    /// The same with a key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// The same without a key.
    pub fn anonymous(&self) -> Self {
        Self { key: None, ..self.clone() }
    }

    /// Where it calls.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A request of any method.
    pub fn request(&self, method: Method, path: &str) -> Request {
        let mut headers = HeaderMap::new();
        // Without one it would be taken for a bot.
        headers.insert(header::USER_AGENT, HeaderValue::from_static(BROWSER));
        if let Some(key) = &self.key {
            let value = HeaderValue::from_str(&format!("Bearer {key}")).expect("a key");
            headers.insert(header::AUTHORIZATION, value);
        }
        let body = Bytes::new();
        let (client, path) = (self.clone(), path.to_owned());
        Request { client, method, path, headers, body, patience: TIMEOUT }
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    /// `HEAD`.
    pub fn head(&self, path: &str) -> Request {
        self.request(Method::HEAD, path)
    }

    /// `POST` of JSON.
    pub fn post(&self, path: &str, body: &Value) -> Request {
        self.request(Method::POST, path).json(body)
    }

    /// `PATCH` of JSON.
    pub fn patch(&self, path: &str, body: &Value) -> Request {
        self.request(Method::PATCH, path).json(body)
    }

    /// `PUT` of JSON.
    pub fn put(&self, path: &str, body: &Value) -> Request {
        self.request(Method::PUT, path).json(body)
    }

    /// `DELETE`.
    pub fn delete(&self, path: &str) -> Request {
        self.request(Method::DELETE, path)
    }

    /// Makes a link and returns it.
    pub async fn shorten(&self, body: &Value) -> Value {
        let answer = self.post("/api/v1/urls", body).send().await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()
    }

    /// The status of `GET /{code}`, and where it leads.
    pub async fn resolve(&self, code: &str) -> (u16, Option<String>) {
        let answer = self.get(&format!("/{code}")).send().await;
        let location = answer.header("location").map(ToOwned::to_owned);
        (answer.status, location)
    }
}

impl Request {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        self.headers.append(name, value.parse().expect("a header value"));
        self
    }

    /// Says what the client is.
    pub fn user_agent(mut self, agent: &str) -> Self {
        self.headers.insert(header::USER_AGENT, agent.parse().expect("a header value"));
        self
    }

    /// Sets a JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// Sets a body; an empty content type leaves the header out.
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        if !content_type.is_empty() {
            let value = HeaderValue::from_str(content_type).expect("a content type");
            self.headers.insert(header::CONTENT_TYPE, value);
        }
        self.body = body.into();
        self
    }

    /// Waits so long for the whole answer, where a large body takes its time.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends it; panics when no whole answer comes in time.
    pub async fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.path);
        self.try_send().await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Sends it.
    pub async fn try_send(self) -> Result<Answer, String> {
        let uri = format!("http://{}{}", self.client.address, self.path);
        let mut request = HttpRequest::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = uri.parse().map_err(|error| format!("{uri}: {error}"))?;
        *request.headers_mut() = self.headers;
        let exchange = async {
            let response = self.client.http.request(request).await.map_err(|e| chain(&e))?;
            read(response).await
        };
        tokio::time::timeout(self.patience, exchange).await.map_err(|_| "no answer in time")?
    }
}

impl Answer {
    /// A header as text; `None` when it is absent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a textual header"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// The body as a problem of this status: checks what every problem has.
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["type", "title", "code", "request_id"] {
            assert!(problem[member].is_string(), "{member}: {problem}");
        }
        problem
    }

    /// The fields that a problem names.
    pub fn problem_fields(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().filter_map(|error| error["field"].as_str().map(ToOwned::to_owned)).collect()
    }
}

/// A GET through a unix socket; `None` when nobody answers.
pub async fn get_unix(socket: &Path, path: &str) -> Option<Answer> {
    request_unix(socket, HttpRequest::get(path).header("host", "admin").body(Full::default()).ok()?)
        .await
}

/// A request through a unix socket; `None` when nobody answers.
pub async fn request_unix(socket: &Path, request: HttpRequest<Full<Bytes>>) -> Option<Answer> {
    let exchange = async {
        let stream = tokio::net::UnixStream::connect(socket).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        read(sender.send_request(request).await.ok()?).await.ok()
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await.ok().flatten()
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Result<Answer, String> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| chain(&error))?.to_bytes();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
