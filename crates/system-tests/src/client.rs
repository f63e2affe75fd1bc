//! An HTTP client that follows no redirect, retries nothing and returns whole responses.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
pub use http::Method;
use http::{HeaderMap, HeaderName, HeaderValue, Request as HttpRequest, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use serde_json::Value;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// Longest wait for a whole response, unless [`Request::timeout`] sets another.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The `User-Agent` of a person's browser.
pub const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// A client of one server. Clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    key: Option<String>,
}

/// A request that has not been sent yet.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    client: Client,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// Creates a client without an API key.
    pub fn new(address: SocketAddr) -> Self {
        Self { http: connections(None), address, key: None }
    }

    /// This client with another API key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// This client without an API key.
    pub fn anonymous(&self) -> Self {
        Self { key: None, ..self.clone() }
    }

    /// This client with connections of its own, from an address of this machine.
    pub fn from_address(&self, address: IpAddr) -> Self {
        Self { http: connections(Some(address)), ..self.clone() }
    }

    /// The API key, if the client has one.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts a request with any method.
    pub fn request(&self, method: Method, path: &str) -> Request {
        let mut headers = HeaderMap::new();
        // A request without `User-Agent` counts as a bot.
        headers.insert(header::USER_AGENT, HeaderValue::from_static(BROWSER));
        if let Some(key) = &self.key {
            let value = HeaderValue::from_str(&format!("Bearer {key}")).expect("a key");
            headers.insert(header::AUTHORIZATION, value);
        }
        let body = Bytes::new();
        let (client, path) = (self.clone(), path.to_owned());
        Request { client, method, path, headers, body, timeout: TIMEOUT }
    }

    /// Starts a `GET`.
    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    /// Starts a `HEAD`.
    pub fn head(&self, path: &str) -> Request {
        self.request(Method::HEAD, path)
    }

    /// Starts a `POST` with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Request {
        self.request(Method::POST, path).json(body)
    }

    /// Starts a `PATCH` with a JSON body.
    pub fn patch(&self, path: &str, body: &Value) -> Request {
        self.request(Method::PATCH, path).json(body)
    }

    /// Starts a `PUT` with a JSON body.
    pub fn put(&self, path: &str, body: &Value) -> Request {
        self.request(Method::PUT, path).json(body)
    }

    /// Starts a `DELETE`.
    pub fn delete(&self, path: &str) -> Request {
        self.request(Method::DELETE, path)
    }

    /// Creates a link and returns it.
    pub async fn shorten(&self, body: &Value) -> Value {
        let response = self.post("/api/v1/urls", body).send().await;
        assert_eq!(response.status, 201, "{}", response.text());
        response.json()
    }

    /// Sends `GET /{code}` and returns the status and the `Location` header.
    pub async fn resolve(&self, code: &str) -> (u16, Option<String>) {
        let response = self.get(&format!("/{code}")).send().await;
        let location = response.header("location").map(ToOwned::to_owned);
        (response.status, location)
    }
}

/// A pool of connections, which begin at this address of the machine.
fn connections(from: Option<IpAddr>) -> legacy::Client<HttpConnector, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_local_address(from);
    legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
}

impl Request {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        self.headers.append(name, value.parse().expect("a header value"));
        self
    }

    /// Replaces the `User-Agent`.
    pub fn user_agent(mut self, agent: &str) -> Self {
        self.headers.insert(header::USER_AGENT, agent.parse().expect("a header value"));
        self
    }

    /// Sets a JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// Sets a body. An empty content type omits the header.
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        if !content_type.is_empty() {
            let value = HeaderValue::from_str(content_type).expect("a content type");
            self.headers.insert(header::CONTENT_TYPE, value);
        }
        self.body = body.into();
        self
    }

    /// Sets the longest wait for the whole response.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends the request. Panics without a whole response in time.
    pub async fn send(self) -> Response {
        let what = format!("{} {}", self.method, self.path);
        self.try_send().await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Sends the request. Returns an error without a whole response in time.
    pub async fn try_send(self) -> Result<Response, String> {
        let uri = format!("http://{}{}", self.client.address, self.path);
        let mut request = HttpRequest::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = uri.parse().map_err(|error| format!("{uri}: {error}"))?;
        *request.headers_mut() = self.headers;
        let exchange = async {
            let response = self.client.http.request(request).await.map_err(|e| chain(&e))?;
            read(response).await
        };
        tokio::time::timeout(self.timeout, exchange).await.map_err(|_| "no response in time")?
    }
}

impl Response {
    /// A header as text; `None` if it is absent.
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

    /// The body as a problem with this status. Checks the members that every problem has.
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

    /// The fields that a problem's `errors` name.
    pub fn problem_fields(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().filter_map(|error| error["field"].as_str().map(ToOwned::to_owned)).collect()
    }
}

/// Reads the status line and the headers of a response to a request that was written by hand.
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(TIMEOUT, stream.read_u8()).await;
        head.push(byte.expect("a head in time").expect("a head"));
    }
    String::from_utf8(head).expect("a textual head")
}

/// Sends `GET` through a Unix socket. Returns `None` without a response.
pub async fn get_unix(socket: &Path, path: &str) -> Option<Response> {
    request_unix(socket, HttpRequest::get(path).header("host", "admin").body(Full::default()).ok()?)
        .await
}

/// Sends a request through a Unix socket. Returns `None` without a response.
pub async fn request_unix(socket: &Path, request: HttpRequest<Full<Bytes>>) -> Option<Response> {
    let exchange = async {
        let stream = tokio::net::UnixStream::connect(socket).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        read(sender.send_request(request).await.ok()?).await.ok()
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await.ok().flatten()
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Result<Response, String> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| chain(&error))?.to_bytes();
    Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
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
