//! Long responses and uploads.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use linnet_system_tests::{Client, client::Method};
use tokio::{io::AsyncReadExt as _, net::TcpStream, task::JoinSet};

use crate::arena::{Arena, Tally, attacker, connect, for_each, outcome, send};

/// Live streams: at full size about 100 of each of ten users, together the 1,000 that one process allows, and 200 more
/// of the first user. Half of the clients read nothing. Then visitors open the links.
pub(crate) async fn live(arena: &Arena) -> String {
    let tally = Tally::default();
    let target = arena.target();
    let users: Arc<Vec<_>> = Arc::new(
        arena.users.iter().map(|user| (user.key.clone(), user.link.0, user.address)).collect(),
    );
    let held: Arc<tokio::sync::Mutex<Vec<TcpStream>>> = Arc::default();
    let readers: Arc<tokio::sync::Mutex<JoinSet<()>>> = Arc::default();
    for_each(arena.scale(1_200, 600), 50, |number| {
        let (tally, users) = (tally.clone(), users.clone());
        let (held, readers) = (held.clone(), readers.clone());
        async move {
            // Every sixth stream is the first user's, beyond its share.
            let (key, id, address) = &users[if number % 6 == 5 { 0 } else { number % 10 }];
            let Ok(mut stream) = connect(target, *address).await else { return tally.add("closed") };
            let head = format!(
                "GET /api/v1/urls/{id}/live HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
            );
            if !send(&mut stream, head.as_bytes()).await {
                return tally.add("closed");
            }
            tally.add(outcome(&mut stream, Duration::from_secs(20)).await);
            if number % 2 == 0 {
                held.lock().await.push(stream);
            } else {
                readers.lock().await.spawn(async move {
                    let mut buffer = vec![0; 4096];
                    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
                });
            }
        }
    })
    .await;
    let visits = Tally::default();
    let codes: Arc<Vec<_>> = Arc::new(arena.users.iter().map(|user| user.link.1.clone()).collect());
    let client = Client::new(target).from_address(attacker(6, 0).into());
    for_each(arena.scale(4_000, 1_500), 20, |number| {
        let (visits, codes, client) = (visits.clone(), codes.clone(), client.clone());
        async move {
            let path = format!("/{}", codes[number % codes.len()]);
            let response = client.get(&path).try_send().await;
            visits
                .add(response.map_or("closed".to_owned(), |response| response.status.to_string()));
        }
    })
    .await;
    tokio::time::sleep(arena.hold(10, 2)).await;
    let open = readers.lock().await.len();
    readers.lock().await.abort_all();
    format!("{}; {open} readers; visits: {}", tally.text(), visits.text())
}

/// Imports `rows` links for each of four users, so that an export lasts while its client reads slowly.
async fn fill(arena: &Arena, rows: usize) {
    for user in arena.users.iter().take(4) {
        let mut csv = "original_url,title\n".to_owned();
        for row in 0..rows {
            csv += &format!("https://example.com/{}/{row},{}\n", "p".repeat(200), "t".repeat(100));
        }
        let request = user.client.request(Method::POST, "/api/v1/urls/bulk").body("text/csv", csv);
        let response = request.send().await;
        assert_eq!(response.status, 202, "{}", response.text());
        let path = format!("/api/v1/jobs/{}", response.json()["job"]["id"]);
        let end = Instant::now() + Duration::from_secs(120);
        while user.client.get(&path).send().await.json()["state"] != "succeeded" {
            assert!(Instant::now() < end, "an import of {rows} rows did not end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Exports of several users whose clients read at most four bytes a second.
pub(crate) async fn slow_exports(arena: &Arena) -> String {
    fill(arena, arena.scale(20_000, 2_000)).await;
    let tally = Tally::default();
    let target = arena.target();
    let users: Arc<Vec<_>> =
        Arc::new(arena.users.iter().map(|user| (user.key.clone(), user.address)).collect());
    let time = arena.hold(20, 4);
    for_each(arena.scale(48, 24), 48, |number| {
        let (tally, users) = (tally.clone(), users.clone());
        async move {
            let (key, address) = &users[number % users.len()];
            let Ok(mut stream) = connect(target, *address).await else { return tally.add("closed") };
            let format = ["csv", "ndjson"][number % 2];
            let head = format!(
                "GET /api/v1/urls/export?format={format} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
            );
            if !send(&mut stream, head.as_bytes()).await {
                return tally.add("closed");
            }
            tally.add(outcome(&mut stream, Duration::from_secs(20)).await);
            let end = Instant::now() + time;
            while Instant::now() < end && stream.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
    })
    .await;
    tally.text()
}

/// Uploads that send one byte every few seconds, more of them than there are slots.
pub(crate) async fn slow_uploads(arena: &Arena) -> String {
    let tally = Tally::default();
    let target = arena.target();
    let users: Arc<Vec<_>> =
        Arc::new(arena.users.iter().map(|user| (user.key.clone(), user.address)).collect());
    let (time, pause) = (arena.hold(40, 4), arena.hold(5, 1));
    for_each(48, 48, |number| {
        let (tally, users) = (tally.clone(), users.clone());
        async move {
            let (key, address) = &users[number % users.len()];
            let Ok(mut stream) = connect(target, *address).await else {
                return tally.add("closed");
            };
            let kind = ["urls", "users"][number % 2];
            let head = format!(
                "POST /api/v1/{kind}/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\
                 Content-Type: text/csv\r\nContent-Length: 100000000\r\n\r\noriginal_url\n"
            );
            let end = Instant::now() + time;
            let mut is_open = send(&mut stream, head.as_bytes()).await;
            let mut end_state = "open".to_owned();
            while is_open && Instant::now() < end {
                end_state = outcome(&mut stream, pause).await;
                is_open = end_state == "open" && send(&mut stream, b"h").await;
            }
            tally.add(end_state);
        }
    })
    .await;
    tally.text()
}
