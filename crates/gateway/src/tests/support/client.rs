//! An HTTP client, and one that sends raw bytes.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, uri::Authority};
use http_body_util::{BodyExt as _, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Http, Error},
    rt::TokioExecutor,
};
use linnet_platform::listener::Address;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::in_time;
use crate::upstream::{Connector, authority_of};

pub(in crate::tests) type Body = BoxBody<Bytes, std::io::Error>;

/// An HTTP client of one address; clones share connections.
#[derive(Clone)]
pub(in crate::tests) struct Client {
    http: Http<Connector, Body>,
    authority: Authority,
}

/// A complete response.
#[derive(Debug)]
pub(in crate::tests) struct TestResponse {
    pub(in crate::tests) status: u16,
    pub(in crate::tests) headers: HeaderMap,
    pub(in crate::tests) body: Bytes,
}

impl TestResponse {
    pub(in crate::tests) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(in crate::tests) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of a problem. Panics unless it is one of the gateway's own.
    #[track_caller]
    pub(in crate::tests) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.header("x-linnet-origin"), "gateway");
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl Client {
    pub(in crate::tests) fn new(address: &Address) -> Self {
        let connector = Connector::new(Duration::from_secs(5));
        Self {
            http: Http::builder(TokioExecutor::new()).build(connector),
            authority: authority_of(address).unwrap(),
        }
    }

    pub(in crate::tests) fn request(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Request<Body> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .unwrap();
        Request::builder().method(method).uri(uri).body(body).unwrap()
    }

    pub(in crate::tests) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        in_time("a response", self.http.request(request)).await
    }

    pub(in crate::tests) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &[u8],
    ) -> TestResponse {
        let mut request = self.request(method, path, full(body));
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let response = self.send(request).await.expect("a response");
        let (parts, body) = response.into_parts();
        let body = in_time("a body", body.collect()).await.unwrap().to_bytes();
        TestResponse { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(in crate::tests) async fn get(&self, path: &str) -> TestResponse {
        self.call(Method::GET, path, &[], b"").await
    }

    pub(in crate::tests) async fn get_as(&self, key: &str, path: &str) -> TestResponse {
        self.call(Method::GET, path, &[("x-api-key", key)], b"").await
    }

    pub(in crate::tests) async fn post_as(
        &self,
        key: &str,
        path: &str,
        body: &[u8],
    ) -> TestResponse {
        self.call(Method::POST, path, &[("x-api-key", key)], body).await
    }
}

pub(in crate::tests) fn full(body: &[u8]) -> Body {
    http_body_util::Full::new(Bytes::copy_from_slice(body)).map_err(|never| match never {}).boxed()
}

/// Sends bytes, and returns what arrives until the server closes the connection.
pub(in crate::tests) async fn raw(address: &str, bytes: &[u8]) -> String {
    raw_until(address, bytes, None).await
}

/// Sends bytes, and returns what arrives until it contains `mark` or the connection closes.
pub(in crate::tests) async fn raw_until(address: &str, bytes: &[u8], mark: Option<&str>) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let send = async {
        // The server may reject the request before it has read everything.
        let _ = writer.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    let receive = async {
        let mut response = Vec::new();
        let mut buffer = [0; 4_096];
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            response.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&response);
            if mark.is_some_and(|mark| text.contains(mark)) {
                break;
            }
        }
        String::from_utf8_lossy(&response).into_owned()
    };
    tokio::select! {
        () = send => unreachable!(),
        response = in_time("the end of the connection", receive) => response,
    }
}
