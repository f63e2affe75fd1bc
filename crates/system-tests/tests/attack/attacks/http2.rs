//! Requests over HTTP/2 whose bodies and responses stall, against an nginx with TLS in the memory of its container.

use std::{sync::Arc, time::Duration};

use linnet_system_tests::{http2::Http2Connection, https};

use super::connections::PAGES;
use crate::arena::{Arena, Tally, for_each};

/// More connections than nginx accepts.
const CONNECTIONS: usize = 600;
/// Streams on each: more than nginx accepts.
const STREAMS: usize = 9;

/// The heads and paths that take the most memory.
fn largest_heads() -> Vec<(String, Vec<(String, String)>)> {
    let header = |name: &str, length| (name.to_owned(), "h".repeat(length));
    let encoded = format!("/metrics/{}", "%41".repeat(2_600));
    vec![
        (encoded.clone(), vec![header("x-a", 7_900)]),
        ("/metrics".to_owned(), vec![header("cookie", 7_900), header("cookie", 7_900)]),
        (encoded, (0..90).map(|number| header(&format!("x-{number:02}"), 70)).collect()),
        ("/absent1".to_owned(), vec![header("user-agent", 7_900), header("referer", 7_900)]),
    ]
}

/// Holds connections whose streams neither send the end of a body nor accept a response. Panics if nginx's memory does
/// not suffice, or if it then serves no visitor.
pub(crate) async fn stalled_streams(arena: &Arena) -> String {
    let server = arena.stack.start_https(&[("LINNET_NGINX_UNLIMITED", "")]).await;
    let (tally, held) = (Tally::default(), Arc::new(tokio::sync::Mutex::new(Vec::new())));
    let (key, code) = (arena.users[0].key.clone(), arena.users[0].link.1.clone());
    for_each(CONNECTIONS, 50, |number| {
        let (tally, held, key, code) = (tally.clone(), held.clone(), key.clone(), code.clone());
        let address = server.address;
        async move {
            let opened = Http2Connection::open(address).await;
            let Ok(mut connection) = opened else { return tally.add("refused") };
            for stream in 0..STREAMS {
                let sent = request(&mut connection, number * STREAMS + stream, &key, &code).await;
                if sent.is_err() {
                    return tally.add("closed while requests were sent");
                }
            }
            held.lock().await.push(connection);
            tally.add("held");
        }
    })
    .await;
    tokio::time::sleep(arena.hold(15, 4)).await;
    let group = server.nginx.memory_group().expect("a memory group");
    let peak = group.peak_bytes() / 1024 / 1024;
    assert_eq!(group.oom_kills(), 0, "a process of nginx was killed");
    let stored = server.stored_body_bytes();
    assert!(stored < 65_536, "{stored} bytes of bodies are in files");
    drop(held);
    // The connections of the attack end with their streams, at the latest after `client_body_timeout`.
    let visit = format!("/{code}");
    linnet_system_tests::within(Duration::from_secs(40), "a redirect over HTTPS", || async {
        match https::connect(server.address, "localhost", &[]).await {
            Ok(mut connection) => {
                connection.get(&visit).await.is_ok_and(|head| head.starts_with("HTTP/1.1 302"))
            }
            Err(_) => false,
        }
    })
    .await;
    format!("{}; nginx with TLS: {peak} MiB", tally.text())
}

async fn request(
    connection: &mut Http2Connection,
    number: usize,
    key: &str,
    code: &str,
) -> std::io::Result<()> {
    if number.is_multiple_of(2) {
        let heads = largest_heads();
        let (path, headers) = &heads[number / 2 % heads.len()];
        return connection.request("GET", path, headers, None).await;
    }
    let link = format!("/{code}");
    let paths: Vec<&str> = PAGES
        .into_iter()
        .chain([link.as_str(), "/api/v1/urls", "/api/v1/urls/bulk", "/api/v1/events"])
        .collect();
    let method = ["GET", "POST", "PUT", "DELETE"][number / 2 % 4];
    let mut headers = vec![("authorization".to_owned(), format!("Bearer {key}"))];
    if number.is_multiple_of(3) {
        headers.push(("content-length".to_owned(), "1000000".to_owned()));
    }
    let body = vec![b' '; [1, 60_000][number / 8 % 2]];
    connection.request(method, paths[number / 2 % paths.len()], &headers, Some(&body)).await
}
