//! A request that is refused before its body has arrived gets its 4xx, through nginx, however the body is sent.
//!
//! nginx cannot repeat a `POST` that meets a connection which the process behind it closes, and responds 502. So no process
//! may close a connection on which nginx may still be sending.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures::{StreamExt as _, stream};
use linnet_system_tests::Stack;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Repetitions of each request. The fault that this test found occurred in one of twelve.
const ROUNDS: usize = 16;
/// Connections at a time.
const CONNECTIONS: usize = 16;

/// A request that is refused: its name, method and path, headers, and body.
type Refused = (&'static str, &'static str, &'static [&'static str], Vec<u8>);

const JSON: &str = "Content-Type: application/json";
const TEXT: &str = "Content-Type: text/plain";
const KEY: &str = "KEY";

fn refused() -> Vec<Refused> {
    let text = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length)).into_bytes();
    let many: &'static [&'static str] = &["X-Many: 1"; 150];
    vec![
        ("control byte in a header", "POST /api/v1/urls", &[KEY, JSON, "Cookie: \u{1}"], text(10)),
        ("the same, long", "POST /api/v1/urls", &[KEY, JSON, "X-Odd: \u{1}"], text(30_000)),
        ("the same, page", "POST /docs", &["Cookie: \u{1}"], text(20_000)),
        ("the same, code", "POST /no-such-code", &["User-Agent: \u{1}"], text(20_000)),
        ("many headers", "POST /api/v1/urls", many, text(10)),
        ("many headers, long", "POST /api/v1/urls", many, text(30_000)),
        ("many headers, code", "POST /no-such-code", many, text(30_000)),
        ("unparsable path", "POST /api/v1/<urls>", &[KEY, JSON], text(30_000)),
        ("unparsable page", "POST /docs/<x>", &[JSON], text(30_000)),
        ("unparsable problem", "POST /problems/\"x\"", &[JSON], text(10)),
        ("unparsable code", "POST /<x>", &[JSON], text(10)),
        ("unparsable code, long", "POST /\"x\"", &[JSON], text(30_000)),
        ("not ASCII", "POST /\u{e9}", &[JSON], text(30_000)),
        ("odd method", "BREW /api/v1/urls", &[KEY, JSON], text(20_000)),
        ("malformed JSON", "POST /api/v1/urls", &[KEY, JSON], b"{\"a\":".to_vec()),
        ("malformed long JSON", "POST /api/v1/urls", &[KEY, JSON], vec![b'x'; 30_000]),
        ("wrong type", "POST /api/v1/urls", &[KEY, TEXT], text(10)),
        ("wrong type, long", "POST /api/v1/urls", &[KEY, TEXT], text(30_000)),
        ("no type", "PATCH /api/v1/urls/1", &[KEY], text(10)),
        ("encoded", "POST /api/v1/urls", &[KEY, JSON, "Content-Encoding: gzip"], text(10_000)),
        ("no key", "POST /api/v1/urls", &[JSON], text(10)),
        ("no key, long", "POST /api/v1/urls", &[JSON], text(50_000)),
        ("bad key", "POST /api/v1/urls", &["X-Api-Key: x", JSON], text(20_000)),
        ("too long", "POST /api/v1/urls", &[KEY, JSON], text(70_000)),
        ("much too long", "POST /api/v1/urls", &[KEY, JSON], text(1_500_000)),
        ("too long for nginx", "POST /api/v1/urls", &[KEY, JSON], text(3_000_000)),
        ("bulk, too long", "PATCH /api/v1/urls/bulk", &[KEY, JSON], text(1_500_000)),
        ("bulk, malformed", "PATCH /api/v1/urls/bulk", &[KEY, JSON], vec![b'x'; 200_000]),
        ("bulk, wrong type", "DELETE /api/v1/urls/bulk", &[KEY, TEXT], text(200_000)),
        ("upload, no key", "POST /api/v1/urls/bulk", &[JSON], text(300_000)),
        (
            "upload, wrong type",
            "POST /api/v1/urls/bulk",
            &[KEY, "Content-Type: a/b"],
            text(300_000),
        ),
        ("upload, malformed", "POST /api/v1/urls/bulk", &[KEY, JSON], vec![b'x'; 100_000]),
        ("no such path", "POST /api/v1/nothing", &[KEY, JSON], text(20_000)),
        ("no such method", "PUT /api/v1/events", &[KEY, JSON], text(20_000)),
        ("page", "POST /docs", &[JSON], text(20_000)),
        ("unknown code", "POST /no-such-code", &[JSON], text(10)),
        ("unknown code, long", "POST /no-such-code", &[JSON], text(200_000)),
        ("link with 302", "POST /with302", &[JSON], text(20_000)),
        ("link with 307", "POST /with307", &[JSON], text(20_000)),
        ("reserved word", "DELETE /api", &[JSON], text(20_000)),
    ]
}

/// How the body is framed.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Length,
    Chunked,
    /// The size of the second half is not a number.
    MalformedChunk,
}

/// When the body is sent.
#[derive(Debug, Clone, Copy)]
enum Pace {
    WithHead,
    AfterHead(Duration),
    /// In pieces with a pause after each.
    Pieces(usize, Duration),
}

const FRAMINGS: [Framing; 3] = [Framing::Length, Framing::Chunked, Framing::MalformedChunk];
const PACES: [Pace; 5] = [
    Pace::WithHead,
    Pace::AfterHead(Duration::ZERO),
    Pace::AfterHead(Duration::from_micros(500)),
    Pace::AfterHead(Duration::from_millis(3)),
    Pace::Pieces(10, Duration::from_micros(300)),
];

/// The bytes of the head, and of the framed body.
fn bytes_of((_, line, headers, body): &Refused, framing: Framing, key: &str) -> (Vec<u8>, Vec<u8>) {
    let mut head = format!("{line} HTTP/1.1\r\nHost: x\r\n");
    for header in *headers {
        let header =
            if *header == KEY { format!("X-Api-Key: {key}") } else { (*header).to_owned() };
        head.push_str(&format!("{header}\r\n"));
    }
    let (first, second) = body.split_at(body.len() / 2);
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    let (header, body) = match framing {
        Framing::Length => (format!("Content-Length: {}", body.len()), body.clone()),
        Framing::Chunked => {
            let body = [chunk(first), chunk(second), b"0\r\n\r\n".to_vec()].concat();
            ("Transfer-Encoding: chunked".to_owned(), body)
        }
        Framing::MalformedChunk => {
            let body = [&chunk(first), b"zz\r\n".as_slice(), second].concat();
            ("Transfer-Encoding: chunked".to_owned(), body)
        }
    };
    head.push_str(&format!("{header}\r\n\r\n"));
    (head.into_bytes(), body)
}

/// Sends the request. Returns the status; `None` if the connection ends without a response.
async fn status_of(address: SocketAddr, head: &[u8], body: &[u8], pace: Pace) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = stream.split();
    let send = async {
        let pieces: Vec<Vec<u8>> = match pace {
            Pace::WithHead => vec![[head, body].concat()],
            Pace::AfterHead(_) => vec![head.to_vec(), body.to_vec()],
            Pace::Pieces(count, _) => {
                let pieces = body.chunks(body.len().div_ceil(count));
                std::iter::once(head).chain(pieces).map(<[u8]>::to_vec).collect()
            }
        };
        for piece in pieces {
            // The server may close the connection before it has read everything.
            if writer.write_all(&piece).await.is_err() {
                break;
            }
            match pace {
                Pace::WithHead => {}
                Pace::AfterHead(pause) | Pace::Pieces(_, pause) => tokio::time::sleep(pause).await,
            }
        }
        std::future::pending::<()>().await;
    };
    let receive = async {
        let mut text = Vec::new();
        while !text.windows(4).any(|end| end == b"\r\n\r\n") {
            if reader.read_buf(&mut text).await.ok()? == 0 {
                return None;
            }
        }
        std::str::from_utf8(text.get(9..12)?).ok()?.parse().ok()
    };
    tokio::select! {
        () = send => unreachable!(),
        status = tokio::time::timeout(Duration::from_secs(20), receive) => status.ok().flatten(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_23_refused_request_gets_4xx_however_its_body_is_sent() {
    let stack = Stack::start().await;
    for status in [302, 307] {
        let code = format!("with{status}");
        let link = json!({"original_url": "https://example.com/", "short_code": code,
            "redirect_status": status});
        stack.client().shorten(&link).await;
    }
    let address = stack.client().address();
    let requests = refused().into_iter().flat_map(|request| {
        let ways = FRAMINGS.into_iter().flat_map(|framing| PACES.map(|pace| (framing, pace)));
        ways.map(move |(framing, pace)| (request.clone(), framing, pace)).collect::<Vec<_>>()
    });
    let key = stack.admin_key.as_str();
    let mut faults = BTreeMap::<String, usize>::new();
    for (request, framing, pace) in requests {
        let (head, body) = bytes_of(&request, framing, key);
        let statuses = stream::iter(0..ROUNDS).map(|_| status_of(address, &head, &body, pace));
        // Long bodies one after the other: a user has a share of the bytes of bodies in progress.
        let connections = if body.len() > 90_000 { 1 } else { CONNECTIONS };
        let statuses: Vec<_> = statuses.buffer_unordered(connections).collect().await;
        for status in statuses {
            // Only requests that nginx or a process refuses.
            if !status.is_some_and(|status| (300..500).contains(&status)) {
                *faults
                    .entry(format!("{} {framing:?} {pace:?}: {status:?}", request.0))
                    .or_default() += 1;
            }
        }
    }
    assert!(faults.is_empty(), "of {ROUNDS} each: {faults:#?}");
    assert_eq!(stack.client().get("/api/v1/urls").send().await.status, 200);
}
