//! No route and no method waits for a body that it does not read, through nginx.

use std::time::Duration;

use linnet_system_tests::Stack;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"];

/// Framings of a body whose end never arrives, with its beginning. JSON bodies of this size are too large.
fn framings() -> [(&'static str, String); 3] {
    let beginning = " ".repeat(4 * 1024 * 1024);
    let chunk = format!("{:x}\r\n{beginning}\r\n", beginning.len());
    [
        ("Content-Length: 900000000\r\n", " ".repeat(1_000)),
        ("Content-Length: 900000000\r\nExpect: 100-continue\r\n", String::new()),
        ("Transfer-Encoding: chunked\r\n", chunk),
    ]
}

/// Sends a request with a body that stalls. Returns the status of the final response.
async fn status_of(stack: &Stack, head: &str, beginning: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(stack.client().address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let send = async {
        // The server may close the connection before it has read everything.
        let _ = writer.write_all(beginning.as_bytes()).await;
        std::future::pending::<()>().await;
    };
    let receive = async {
        let (mut text, mut buffer) = (String::new(), [0; 4_096]);
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            let last = text.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
            if last.contains("\r\n\r\n") {
                return last[9..12].parse().ok();
            }
        }
        None
    };
    tokio::select! {
        () = send => unreachable!(),
        status = tokio::time::timeout(Duration::from_secs(8), receive) => status.ok().flatten(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_25_no_route_waits_for_a_body_that_it_does_not_read() {
    let stack = Stack::start().await;
    let document: Value = stack.client().get("/openapi.json").send().await.json();
    let operations = document["paths"].as_object().unwrap();
    let other = [
        "/",
        "/docs",
        "/docs/x",
        "/health",
        "/openapi.json",
        "/problems/not_found",
        "/api",
        "/api/v1/no-such",
        "/api/v2/urls",
        "/no-such-code",
        "/favicon.ico",
        "/a/b",
    ];
    let paths = operations.keys().map(String::as_str).chain(other);
    let mut tried = 0;
    for path in paths {
        for method in METHODS {
            let is_upload =
                method == "POST" && operations.get(path).is_some() && path.ends_with("/bulk");
            if is_upload {
                continue;
            }
            for (framing, beginning) in framings() {
                let head = format!(
                    "{method} {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
                     Content-Type: application/json\r\n{framing}\r\n",
                    path.replace("{id}", "987654321"),
                    stack.admin_key
                );
                let status = status_of(&stack, &head, &beginning).await;
                let what = format!("{method} {path} {framing:?}: {status:?}");
                let status = status.unwrap_or_else(|| panic!("{what}: no response in time"));
                assert!((200..500).contains(&status), "{what}");
                tried += 1;
            }
        }
    }
    assert!(tried > 700, "{tried}");
    // The processes still serve requests.
    assert_eq!(stack.client().get("/api/v1/urls").send().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_25_a_slow_or_stalled_body_is_a_body_timeout() {
    // Two thirds of this is the time for a body.
    let stack = Stack::builder().env("LINNET__SHORTENER__REQUEST_TIMEOUT_MS", 6_000).start().await;
    for method in ["PATCH", "DELETE"] {
        for framing in
            ["Content-Length: 1000\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]
        {
            for piece in [None, Some("1\r\n \r\n")] {
                let head = format!(
                    "{method} /api/v1/urls/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
                     Content-Type: application/json\r\n{framing}",
                    stack.admin_key
                );
                let response = response_to_slow_body(&stack, &head, piece).await;
                let what = format!("{method} {framing:?} {piece:?}: {response}");
                assert!(response.starts_with("HTTP/1.1 408"), "{what}");
                assert!(response.contains("\"code\":\"body_timeout\""), "{what}");
            }
        }
    }
}

/// Sends a head, and then the piece again and again or nothing. Returns the response.
async fn response_to_slow_body(stack: &Stack, head: &str, piece: Option<&str>) -> String {
    let mut stream = TcpStream::connect(stack.client().address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let send = async {
        let mut interval = tokio::time::interval(Duration::from_millis(200));
        while let Some(piece) = piece {
            interval.tick().await;
            if writer.write_all(piece.as_bytes()).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let receive = async {
        let mut text = Vec::new();
        while !text.ends_with(b"}") && reader.read_buf(&mut text).await.is_ok_and(|count| count > 0)
        {
        }
        String::from_utf8(text).unwrap()
    };
    tokio::select! {
        () = send => unreachable!(),
        text = tokio::time::timeout(Duration::from_secs(25), receive) => text.expect("a response"),
    }
}
