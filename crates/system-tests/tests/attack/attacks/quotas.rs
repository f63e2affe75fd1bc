//! One user who uses up every quota.

use std::{sync::Arc, time::Duration};

use linnet_system_tests::client::Method;
use serde_json::json;
use tokio::net::TcpStream;

use crate::arena::{Arena, Tally, attacker, connect, for_each, outcome, send};

/// Opens `count` streams, which is more than the user's share, and holds those that the server accepts.
async fn streams(arena: &Arena, path: &str, count: usize) -> (Vec<TcpStream>, Tally) {
    let tally = Tally::default();
    let (target, key) = (arena.target(), arena.users[0].key.clone());
    let held: Arc<tokio::sync::Mutex<Vec<TcpStream>>> = Arc::default();
    let head = format!("GET {path} HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n");
    for_each(count, 20, |number| {
        let (tally, held, head) = (tally.clone(), held.clone(), head.clone());
        async move {
            let Ok(mut stream) = connect(target, attacker(7, number / 100)).await else {
                return tally.add("closed");
            };
            send(&mut stream, head.as_bytes()).await;
            tally.add(outcome(&mut stream, Duration::from_secs(20)).await);
            held.lock().await.push(stream);
        }
    })
    .await;
    let held = std::mem::take(&mut *held.lock().await);
    (held, tally)
}

/// Keys, jobs, streams of clicks and of jobs, exports and requests, all by one user at once.
pub(crate) async fn all(arena: &Arena) -> String {
    let user = &arena.users[0];
    let (keys, jobs, requests) = (Tally::default(), Tally::default(), Tally::default());
    for _ in 0..60 {
        let body = json!({"name": "more", "scopes": ["urls:read"]});
        let response = user.client.post("/api/v1/api-keys", &body).send().await;
        keys.add(response.status.to_string());
    }
    let mut last_job = 0;
    for number in 0..arena.scale(2_100, 100) {
        let row = format!("original_url\nhttps://example.com/{number}\n");
        let request = user.client.request(Method::POST, "/api/v1/urls/bulk").body("text/csv", row);
        let response = request.send().await;
        jobs.add(response.status.to_string());
        if response.status == 202 {
            last_job = response.json()["job"]["id"].as_i64().expect("an id");
        }
    }
    let live = format!("/api/v1/urls/{}/live", user.link.0);
    let (live, live_tally) = streams(arena, &live, 220).await;
    let events = format!("/api/v1/jobs/{last_job}/events");
    let (events, event_tally) = streams(arena, &events, 220).await;
    let client = user.client.clone();
    for_each(arena.scale(4_000, 500), 50, |number| {
        let (client, requests) = (client.clone(), requests.clone());
        async move {
            let path = [
                "/api/v1/urls?limit=200",
                "/api/v1/urls/export",
                "/api/v1/stats",
                "/api/v1/events?limit=200",
            ];
            let response = client.get(path[number % path.len()]).try_send().await;
            requests
                .add(response.map_or("closed".to_owned(), |response| response.status.to_string()));
        }
    })
    .await;
    drop((live, events));
    format!(
        "keys: {}; jobs: {}; live streams: {}; streams of a job: {}; requests: {}",
        keys.text(),
        jobs.text(),
        live_tally.text(),
        event_tally.text(),
        requests.text()
    )
}
