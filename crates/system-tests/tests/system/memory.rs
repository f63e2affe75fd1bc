//! Attacks on a process with the memory limit of its container, and settings that exceed this limit.
//!
//! Each test runs processes in memory control groups with the limits and settings of `deploy/compose.yaml`.

use std::{net::SocketAddr, path::Path, time::Duration};

use linnet_system_tests::{Client, MemoryGroup, Process, Stack, client::get_unix, services::local};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, UnixStream},
};

/// Heads that are never finished, as long as their reader accepts them: lines of `line` bytes up to `total` bytes, with
/// `short` headers of 4 bytes before them. nginx 1.30 accepts 100 headers.
fn unfinished_head(short: usize, line: usize, total: usize) -> Vec<u8> {
    let mut head = b"GET /absent HTTP/1.1\r\nHost: a\r\n".to_vec();
    head.extend(b"A:\r\n".repeat(short));
    while head.len() < total {
        head.extend(b"X: ");
        head.extend(std::iter::repeat_n(b'a', line.min(total - head.len().min(total))));
        if head.len() < total {
            head.extend(b"\r\n");
        }
    }
    head
}

/// The heads that take the most memory of nginx: long lines that fill each buffer, many headers, and both.
fn heads_for_nginx() -> [Vec<u8>; 3] {
    [
        unfinished_head(0, 8_100, 16_800),
        unfinished_head(96, 8_100, 16_800),
        unfinished_head(90, 900, 9_000),
    ]
}

/// Raises this process's limit of open files to the maximum that the machine allows.
fn allow_many_connections() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a higher limit of open files");
}

/// Sends as much as the socket accepts within a second, because a full listener does not read.
async fn send<T: tokio::io::AsyncWrite + Unpin>(mut stream: T, head: &[u8]) -> T {
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(head)).await;
    stream
}

async fn hold_tcp(address: SocketAddr, heads: &[Vec<u8>], count: usize) -> Vec<TcpStream> {
    let mut held = Vec::with_capacity(count);
    for head in heads.iter().cycle().take(count) {
        let stream = TcpStream::connect(address).await.expect("a connection");
        held.push(send(stream, head).await);
    }
    held
}

async fn hold_unix(path: &Path, head: &[u8], count: usize) -> Vec<UnixStream> {
    let connections = (0..count).map(|_| async {
        let stream = tokio::time::timeout(Duration::from_secs(1), UnixStream::connect(path)).await;
        match stream {
            Ok(Ok(stream)) => Some(send(stream, head).await),
            // The backlog is full.
            _ => None,
        }
    });
    futures::future::join_all(connections).await.into_iter().flatten().collect()
}

/// Fails if the kernel killed a process of the group. Prints the peak memory.
#[track_caller]
fn assert_alive(process: &mut Process, pids: &[u32]) {
    let name = process.name().to_owned();
    assert!(process.is_running(), "{name} has ended");
    let group = process.memory_group().expect("a memory group");
    let mib = |bytes: u64| bytes / 1024 / 1024;
    println!("{name}: {} of {} MiB", mib(group.peak_bytes()), mib(group.limit()));
    assert_eq!(group.oom_kills(), 0, "{name}: processes killed");
    assert_eq!(group.pids(), pids, "{name}: processes replaced");
}

fn pids(process: &Process) -> Vec<u32> {
    process.memory_group().expect("a memory group").pids()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_25_unfinished_heads_of_3000_visitors_leave_nginx_alive_and_redirects_working() {
    if !MemoryGroup::is_available() {
        return;
    }
    allow_many_connections();
    let mut stack = Stack::builder().containers().start().await;
    let link = json!({"original_url": "https://example.com/", "short_code": "probed"});
    stack.client().shorten(&link).await;
    let nginx = pids(&stack.nginx);
    let address = stack.client().address();
    let held = hold_tcp(address, &heads_for_nginx(), 3_000).await;
    // Each redirect needs a new connection.
    for _ in 0..50 {
        let visit = Client::new(address).anonymous().get("/probed").send().await;
        assert_eq!(visit.status, 302);
    }
    assert_alive(&mut stack.nginx, &nginx);
    drop(held);
    let visit = stack.client().anonymous().get("/probed").send().await;
    assert_eq!(visit.status, 302);
    assert_alive(&mut stack.nginx, &nginx);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_25_unfinished_heads_on_each_listener_leave_its_process_alive() {
    if !MemoryGroup::is_available() {
        return;
    }
    allow_many_connections();
    let mut stack = Stack::builder().workers(1).containers().start().await;
    let folder = stack.folder().to_owned();
    let before = [&stack.gateways[0], &stack.shorteners[0], &stack.workers[0]].map(pids);
    for (head, is_refused) in
        [(unfinished_head(0, 19_000, 19_000), false), (unfinished_head(0, 120_000, 120_000), true)]
    {
        let listeners =
            [("g0", 3_000), ("r0", 3_000), ("a0", 600), ("ga0", 60), ("sa0", 60), ("wa0", 60)];
        for (listener, count) in listeners {
            let held = hold_unix(&folder.join(listener), &head, count).await;
            assert!(held.len() > count / 3, "{listener}: {}", held.len());
            if is_refused {
                let mut answer = [0; 12];
                held[0].readable().await.unwrap();
                let count = held[0].try_read(&mut answer).unwrap_or(0);
                assert_eq!(&answer[..count], b"HTTP/1.1 431", "{listener}");
            }
        }
    }
    for (process, pids) in [&mut stack.gateways[0], &mut stack.shorteners[0], &mut stack.workers[0]]
        .into_iter()
        .zip(&before)
    {
        assert_alive(process, pids);
    }
    linnet_system_tests::within(
        Duration::from_secs(20),
        "the listeners to serve again",
        || async {
            get_unix(&folder.join("r0"), "/absent")
                .await
                .is_some_and(|response| response.status == 404)
                && get_unix(&folder.join("g0"), "/health")
                    .await
                    .is_some_and(|health| health.status == 200)
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_25_slow_readers_of_large_pages_leave_the_gateway_alive() {
    if !MemoryGroup::is_available() {
        return;
    }
    allow_many_connections();
    let mut stack = Stack::builder().containers().start().await;
    let gateway = pids(&stack.gateways[0]);
    let socket = stack.folder().join("g0");
    // The script of the API reference has more than a megabyte.
    let request = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n";
    let held = hold_unix(&socket, request, 200).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_alive(&mut stack.gateways[0], &gateway);
    drop(held);
    let page = Client::new(local(stack.client().address().port())).get("/docs/").send().await;
    assert_eq!(page.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_25_process_refuses_settings_that_exceed_its_memory() {
    if !MemoryGroup::is_available() {
        return;
    }
    let stack = Stack::builder().start().await;
    // The limit of the control group counts if no setting names one. The default settings need more than 96 MiB.
    let group = MemoryGroup::create(96 * 1024 * 1024);
    let program = linnet_system_tests::services::binary("linnet-shortener");
    let (program, args) = group.wrap(&program, &["serve".into()]);
    let run = std::process::Command::new(program)
        .args(args)
        .env("LINNET__SERVICE__TOKEN", "0".repeat(32))
        .env("LINNET__SHORTENER__API_LISTEN", format!("unix:{}/none", stack.folder().display()))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(64), "{errors}");
    assert!(
        errors.contains("shortener.memory_bytes (LINNET__SHORTENER__MEMORY_BYTES)"),
        "{errors}"
    );
    // Together with every other problem if a setting names it.
    let mut command =
        std::process::Command::new(linnet_system_tests::services::binary("linnet-gateway"));
    let run = command
        .env("LINNET__SERVICE__TOKEN", "short")
        .env("LINNET__GATEWAY__MEMORY_BYTES", "50331648")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(64), "{errors}");
    assert!(errors.contains("2 problem(s)") && errors.contains("gateway.memory_bytes"), "{errors}");
}
