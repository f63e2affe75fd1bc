//! Requests that are never finished, and responses that are never read.

use std::{sync::Arc, time::Duration};

use tokio::net::TcpStream;

use crate::arena::{Arena, Tally, attacker, connect, for_each, outcome, send};

/// Number of connections from one address.
const PER_ADDRESS: usize = 50;

/// Opens `count` connections, sends on each the bytes that `request` returns, and holds them for `time`. Returns how
/// they ended.
async fn hold<F>(arena: &Arena, group: u8, count: usize, time: Duration, request: F) -> String
where
    F: Fn(usize) -> Vec<u8> + Send + Sync + 'static,
{
    let (tally, request) = (Tally::default(), Arc::new(request));
    let held: Arc<tokio::sync::Mutex<Vec<TcpStream>>> = Arc::default();
    let target = arena.target();
    for_each(count, 200, |number| {
        let (tally, request, held) = (tally.clone(), request.clone(), held.clone());
        async move {
            match connect(target, attacker(group, number / PER_ADDRESS)).await {
                Ok(mut stream) => {
                    if send(&mut stream, &request(number)).await {
                        held.lock().await.push(stream);
                    } else {
                        tally.add("closed while the request was sent");
                    }
                }
                Err(error) => tally.add(error.kind().to_string()),
            }
        }
    })
    .await;
    tokio::time::sleep(time).await;
    let held = std::mem::take(&mut *held.lock().await);
    let ends = held
        .into_iter()
        .map(|mut stream| async move { outcome(&mut stream, Duration::from_millis(10)).await });
    for end in futures::future::join_all(ends).await {
        tally.add(end);
    }
    tally.text()
}

/// Headers of about `bytes` bytes in total, each of less than 8 KiB.
fn headers(bytes: usize) -> String {
    let line = format!("X-Filler: {}\r\n", "h".repeat(7_900));
    line.repeat(bytes / line.len())
}

/// Whether this nginx has `max_headers`, which 1.30 added and `nginx/render.sh` then sets.
fn limits_headers() -> bool {
    let output = std::process::Command::new("nginx").arg("-v").output().expect("nginx runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text.trim().rsplit('/').next().unwrap_or_default().to_owned();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(1), Some(30))
}

fn small_headers(count: usize) -> String {
    let lines: Vec<_> = (0..count).map(|number| format!("X-{number}: \r\n")).collect();
    lines.concat()
}

/// Heads of up to 32 kB whose last line never arrives, for links and for the API.
pub(crate) async fn unfinished_heads(arena: &Arena) -> String {
    let code = arena.users[0].link.1.clone();
    hold(arena, 2, arena.scale(3_000, 1_500), arena.hold(15, 5), move |number| {
        let path = match number % 4 {
            0 => format!("/{code}"),
            1 => "/api/v1/urls".to_owned(),
            2 => "/".to_owned(),
            _ => format!("/api/v1/urls?search={}", "q".repeat(7_000)),
        };
        // nginx keeps a decoded copy of an encoded path.
        let path = if number % 32 < 16 { path } else { format!("/{}", "%41".repeat(2_600)) };
        let size = [31_000, 16_000, 7_900, 0][number / 4 % 4];
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n{}X-Last: ", headers(size)).into_bytes()
    })
    .await
}

/// Complete heads with many or large headers, on connections that stay open.
pub(crate) async fn header_floods(arena: &Arena) -> String {
    let (code, key) = (arena.users[0].link.1.clone(), arena.users[0].key.clone());
    // Older versions of nginx cannot limit the number of headers, so no sum of settings bounds their memory.
    let small = if limits_headers() { 3_000 } else { 100 };
    hold(arena, 3, arena.scale(2_000, 600), arena.hold(5, 2), move |number| {
        let path =
            if number % 2 == 0 { format!("/{code}") } else { "/api/v1/urls?limit=1".to_owned() };
        let more = match number / 2 % 4 {
            0 => headers(31_000),
            1 => small_headers(small),
            2 => headers(200_000),
            _ => "Cookie: a=b\r\nTracestate: a=b\r\nAccept-Language: de\r\n".repeat(small / 6),
        };
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{more}\r\n")
            .into_bytes()
    })
    .await
}

/// A path of each of nginx's locations that lead to the gateway's pages.
pub(super) const PAGES: [&str; 6] =
    ["/health", "/", "/docs/", "/openapi.json", "/problems/", "/api"];

/// Bodies of which only the first bytes arrive, with every method and on every kind of route.
pub(crate) async fn stalled_bodies(arena: &Arena) -> String {
    let users: Vec<_> =
        arena.users.iter().map(|user| (user.key.clone(), user.link.clone())).collect();
    hold(arena, 4, arena.scale(1_500, 600), arena.hold(15, 4), move |number| {
        let (key, (id, code)) = &users[number % users.len()];
        let method = ["GET", "POST", "PATCH", "PUT", "DELETE", "HEAD"][number % 6];
        let path = match number / 6 % 10 {
            // Other attacks need the link.
            0 if method == "DELETE" => "/api/v1/urls/0".to_owned(),
            0 => format!("/api/v1/urls/{id}"),
            1 => "/api/v1/urls/bulk".to_owned(),
            2 => format!("/{code}"),
            3 => "/api/v1/events".to_owned(),
            page => PAGES[page - 4].to_owned(),
        };
        let length = match number / 30 % 3 {
            0 => "Transfer-Encoding: chunked\r\n\r\n10000\r\n",
            1 => "Content-Length: 65000\r\n\r\n",
            _ => "Content-Length: 1000000\r\n\r\n",
        };
        let content = " ".repeat([1, 60_000][number % 2]);
        format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\n{length}{content}"
        )
        .into_bytes()
    })
    .await
}

/// 20 requests for large responses on each connection. The client reads no byte of them.
pub(crate) async fn unread_responses(arena: &Arena) -> String {
    let users: Vec<_> =
        arena.users.iter().map(|user| (user.key.clone(), user.link.1.clone())).collect();
    hold(arena, 5, arena.scale(600, 200), arena.hold(10, 3), move |number| {
        let (key, code) = &users[number % users.len()];
        let path = match number % 4 {
            0 => "/openapi.json".to_owned(),
            1 => "/docs/".to_owned(),
            2 => "/api/v1/urls?limit=200".to_owned(),
            _ => format!("/{code}"),
        };
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n")
            .repeat(20)
            .into_bytes()
    })
    .await
}
