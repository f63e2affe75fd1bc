//! Requests whose key ends while the gateway waits for their body.

use std::{net::SocketAddr, time::Duration};

use linnet_protocol::routes::{BodyMode, ROUTES, RequestBody};
use linnet_system_tests::{Stack, within};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Begins a request with a body of two bytes, of which it sends the first.
async fn begin(address: SocketAddr, method: &str, path: &str, key: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: lnt.test\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.expect("the head");
    stream
}

#[tokio::test]
async fn must_27_a_write_whose_body_ends_after_its_key_is_refused_on_every_route() {
    let stack = Stack::start().await;
    let body = json!({"name": "slow", "scopes": ["admin"]});
    let made = stack.client().post("/api/v1/api-keys", &body).send().await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    let (key, id) = (made["key"].as_str().expect("a key"), made["id"].as_str().expect("an id"));
    let client = stack.client().with_key(key);
    let mut held = Vec::new();
    for route in ROUTES.iter().filter(|route| matches!(route.body_mode, BodyMode::Buffered)) {
        for (method, _) in route.methods {
            let RequestBody::Json { .. } = route.body(method) else { continue };
            let segment = |name: &str| if name.starts_with('{') { "1" } else { name }.to_owned();
            let path = route.path.split('/').map(segment).collect::<Vec<_>>().join("/");
            let name = format!("{method} {path}");
            held.push((name, begin(client.address(), method.as_str(), &path, key).await));
        }
    }
    assert!(held.len() > 5, "{}", held.len());
    // The gateway has checked the key of each request before this one, which comes after them.
    assert_eq!(client.get("/api/v1/urls").send().await.status, 200);
    let revoked = stack.client().delete(&format!("/api/v1/api-keys/{id}")).send().await;
    assert_eq!(revoked.status, 204, "{}", revoked.text());
    within(Duration::from_secs(1), "the key to end", || async {
        client.get("/api/v1/urls").send().await.status == 401
    })
    .await;
    for (name, mut stream) in held {
        stream.write_all(b"}").await.expect("the rest of the body");
        let mut response = String::new();
        let read = stream.read_to_string(&mut response);
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("a response").unwrap();
        assert!(response.starts_with("HTTP/1.1 401 "), "{name}: {response}");
    }
}
