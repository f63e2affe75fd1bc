//! JSON bodies that could take much more memory than their size, on every route and method.

use std::sync::Arc;

use linnet_protocol::routes::{MAX_BODY_BYTES, MAX_BULK_BODY_BYTES, ROUTES, RequestBody};
use linnet_system_tests::{Client, client::Method};

use crate::arena::{Arena, Tally, for_each};

/// Members that at least one route reads, so that it parses their values.
const MEMBERS: &[&str] = &["details", "ids", "original_url", "scopes", "title", "username"];

/// A body: its description, and a function that makes one of about the given number of bytes.
type Body = (&'static str, fn(usize) -> Vec<u8>);

const BODIES: &[Body] = &[
    ("objects", |size| array(size, r#"{"":0}"#)),
    ("arrays", |size| array(size, "[]")),
    ("arrays of arrays", |size| array(size, "[[],[]]")),
    ("empty texts", |size| array(size, r#""""#)),
    ("numbers", |size| array(size, "1")),
    ("objects in each member", |size| in_each_member(size, r#"{"":0}"#)),
    ("arrays in each member", |size| in_each_member(size, "[]")),
    ("numbers in each member", |size| in_each_member(size, "1")),
    ("nested arrays", |size| nested(size, "[", "]")),
    ("nested objects", |size| nested(size, r#"{"":"#, "}")),
    ("unclosed arrays", |size| "[".repeat(size).into_bytes()),
    ("unclosed details", |size| {
        format!(r#"{{"details":{}"#, r#"{"":"#.repeat(size / 4)).into_bytes()
    }),
    ("a long text", |size| text(&"x".repeat(size))),
    ("a long text of escapes", |size| text(&r"\u0000".repeat(size / 6))),
    ("an unclosed text", |size| format!(r#"{{"title":"{}"#, "é".repeat(size / 2)).into_bytes()),
    ("many members", |size| members(size, |number| format!(r#""m{number}":0"#))),
    ("repeated members", |size| members(size, |_| r#""title":"""#.to_owned())),
    ("a long name", |size| format!(r#"{{"{}":0}}"#, "n".repeat(size)).into_bytes()),
    ("a huge number", |size| format!(r#"{{"max_clicks":{}}}"#, "9".repeat(size)).into_bytes()),
    ("a huge exponent", |_| {
        br#"{"max_clicks":1e999999999,"redirect_status":-1e-999999999}"#.to_vec()
    }),
    ("bytes that are not UTF-8", |size| text_bytes(&[0xff, 0, 0xc3].repeat(size / 3))),
    ("zeros", |size| vec![0; size]),
];

fn fill(size: usize, part: &str) -> String {
    let mut list = format!("{part},").repeat(size / (part.len() + 1));
    list.pop();
    list
}

fn array(size: usize, part: &str) -> Vec<u8> {
    format!("[{}]", fill(size, part)).into_bytes()
}

fn in_each_member(size: usize, part: &str) -> Vec<u8> {
    let list = fill(size / MEMBERS.len() - 20, part);
    let members: Vec<_> = MEMBERS.iter().map(|name| format!(r#""{name}":[{list}]"#)).collect();
    format!("{{{}}}", members.join(",")).into_bytes()
}

fn nested(size: usize, open: &str, close: &str) -> Vec<u8> {
    let depth = size / (open.len() + close.len() + 1);
    format!("{}0{}", open.repeat(depth), close.repeat(depth)).into_bytes()
}

fn text(text: &str) -> Vec<u8> {
    text_bytes(text.as_bytes())
}

fn text_bytes(text: &[u8]) -> Vec<u8> {
    [&br#"{"original_url":""#[..], text, br#"","details":""#, b"\"}"].concat()
}

fn members(size: usize, member: impl Fn(usize) -> String) -> Vec<u8> {
    let mut body = "{".to_owned();
    let mut number = 0;
    while body.len() + 16 < size {
        body += &member(number);
        body.push(',');
        number += 1;
    }
    body.pop();
    body.push('}');
    body.into_bytes()
}

/// A request of the attack, without its body.
#[derive(Debug, Clone)]
struct Call {
    method: Method,
    path: String,
    /// The largest body that the route reads.
    limit: usize,
}

fn calls(arena: &Arena) -> Vec<Call> {
    let mut calls = Vec::new();
    for route in ROUTES {
        let id =
            if route.path.contains("/users/") { arena.users[0].id } else { arena.users[0].link.0 };
        let path = route.path.replace("{id}", &id.to_string());
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let known = route.methods.iter().find(|(known, _)| known.as_str() == method.as_str());
            let limit = match known.map(|(known, _)| route.body(known)) {
                Some(RequestBody::Json { max_bytes }) => max_bytes,
                Some(RequestBody::Upload) => MAX_BULK_BODY_BYTES,
                // A body that is not read, or a method that the route lacks.
                _ => MAX_BODY_BYTES,
            };
            // Deletions would remove what the other attacks need.
            if method != Method::DELETE || limit == MAX_BULK_BODY_BYTES {
                calls.push(Call { method, path: path.clone(), limit });
            }
        }
    }
    calls
}

/// Sends each body to each route, at the limit of the route and at twice the limit.
pub(crate) async fn on_every_route(arena: &Arena) -> String {
    let tally = Tally::default();
    let calls = Arc::new(calls(arena));
    let clients: Arc<Vec<Client>> =
        Arc::new(arena.users.iter().map(|user| user.client.clone()).collect());
    let rounds = arena.scale(4, 1);
    // The short form sends each body to a third of the routes, and the next body to another third.
    let step = arena.scale(1, 3);
    // Event streams never end.
    let timeout = arena.hold(20, 2);
    let count = calls.len() * BODIES.len() * rounds / step;
    for_each(count, arena.scale(64, 32), |number| {
        let number = number * step + number / calls.len() % step;
        let (calls, clients, tally) = (calls.clone(), clients.clone(), tally.clone());
        async move {
            let call = &calls[number % calls.len()];
            let (_, body) = BODIES[number / calls.len() % BODIES.len()];
            let is_too_large = number.is_multiple_of(7);
            let size = if is_too_large { call.limit * 2 } else { call.limit - 64 };
            let client = &clients[number % clients.len()];
            let request = client.request(call.method.clone(), &call.path);
            let request = request.body("application/json", body(size)).timeout(timeout);
            match request.try_send().await {
                Ok(response) => tally.add(response.status.to_string()),
                Err(_) => tally.add("closed"),
            }
        }
    })
    .await;
    tally.text()
}
