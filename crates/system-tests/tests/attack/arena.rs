//! The installation under attack, its users, and the attackers' connections.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use linnet_system_tests::{Client, Postgres, Stack};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

/// The scopes of each user.
const SCOPES: &[&str] = &["urls:read", "urls:write", "users:read", "users:write", "jobs:write"];
/// Users that attack.
const USERS: usize = 12;

/// An attacker with an account.
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) key: String,
    /// A client with the key, from the user's own address.
    pub(crate) client: Client,
    /// The user's address.
    pub(crate) address: Ipv4Addr,
    /// The id and the code of a link of the user.
    pub(crate) link: (i64, String),
}

/// The installation with its users.
pub(crate) struct Arena {
    pub(crate) stack: Stack,
    pub(crate) users: Vec<User>,
    /// Whether each attack has its full size.
    pub(crate) is_full: bool,
}

impl Arena {
    pub(crate) async fn start() -> Self {
        let stack = Stack::builder()
            .shorteners(2)
            .workers(1)
            .postgres(Postgres::Own)
            .product_defaults()
            .containers()
            .redis_env("LINNET_REDIS_MAXMEMORY", "40mb")
            // By default, nginx does not limit the addresses of the machine itself, which the attackers use.
            .nginx_env("LINNET_NGINX_UNLIMITED", "")
            .nginx_env("LINNET_NGINX_RESOLVE_LOG_SAMPLE", "1%")
            .nginx_env("LINNET_NGINX_ERROR_LEVEL", "alert")
            // With the default rates, the gateway would reject most of an attack before it reaches other processes.
            .env("LINNET__LIMITS__KEY_PER_MINUTE", 60_000_000)
            .env("LINNET__LIMITS__KEY_BURST", 1_000_000)
            .env("LINNET__LIMITS__USER_PER_MINUTE", 60_000_000)
            .env("LINNET__LIMITS__USER_BURST", 1_000_000)
            // 256 MiB, so that a small disk of the test machine does not reject uploads.
            .env("LINNET__JOBS__FREE_BYTES", 268_435_456)
            .start()
            .await;
        let mut users = Vec::new();
        for number in 0..USERS {
            users.push(user(&stack, number).await);
        }
        let is_full = std::env::var("LINNET_ATTACK").is_ok_and(|form| form == "full");
        Self { stack, users, is_full }
    }

    /// `full` at full size, otherwise `short`.
    pub(crate) fn scale(&self, full: usize, short: usize) -> usize {
        if self.is_full { full } else { short }
    }

    /// How long connections are held: `full_s` seconds at full size, otherwise `short_s`.
    pub(crate) fn hold(&self, full_s: u64, short_s: u64) -> Duration {
        Duration::from_secs(if self.is_full { full_s } else { short_s })
    }

    /// nginx's address.
    pub(crate) fn target(&self) -> SocketAddr {
        self.stack.client().address()
    }
}

/// Opens a connection with a small buffer for responses, so that unread ones fill the server's.
pub(crate) async fn connect(to: SocketAddr, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let connected = tokio::time::timeout(Duration::from_secs(10), socket.connect(to)).await;
    connected.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

async fn user(stack: &Stack, number: usize) -> User {
    let (id, client) = stack.create_user(&format!("attacker-{number}"), SCOPES).await;
    let body = json!({"name": "attack", "scopes": SCOPES});
    let made = client.post("/api/v1/api-keys", &body).send().await;
    assert_eq!(made.status, 201, "{}", made.text());
    let key = made.json()["key"].as_str().expect("a key").to_owned();
    let link = client.shorten(&json!({"original_url": "https://example.com/attacked"})).await;
    let link = (
        link["id"].as_i64().expect("an id"),
        link["short_code"].as_str().expect("a code").to_owned(),
    );
    let address = attacker(1, number);
    let client = client.from_address(IpAddr::V4(address)).with_key(&key);
    User { id, key, client, address, link }
}

/// The address of an attacker. Each group has its own addresses.
pub(crate) fn attacker(group: u8, number: usize) -> Ipv4Addr {
    let [.., high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(127, 10 + group, high, low)
}

/// How often each outcome occurred.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<BTreeMap<String, usize>>>);

impl Tally {
    pub(crate) fn add(&self, outcome: impl Into<String>) {
        *self.0.lock().expect("no panic").entry(outcome.into()).or_default() += 1;
    }

    /// The outcomes as text.
    pub(crate) fn text(&self) -> String {
        let counts = self.0.lock().expect("no panic");
        let counts: Vec<_> =
            counts.iter().map(|(what, count)| format!("{count} × {what}")).collect();
        counts.join(", ")
    }
}

/// Runs a task for each number, at most `at_once` at a time.
pub(crate) async fn for_each<F, Fut>(count: usize, at_once: usize, task: F)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut running = JoinSet::new();
    for number in 0..count {
        if running.len() >= at_once {
            running.join_next().await;
        }
        running.spawn(task(number));
    }
    running.join_all().await;
}

/// Sends bytes. Returns whether the kernel accepted all of them within 10 s. If not, the server has closed the
/// connection or reads nothing.
pub(crate) async fn send(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    let sent = tokio::time::timeout(Duration::from_secs(10), stream.write_all(bytes)).await;
    sent.is_ok_and(|sent| sent.is_ok())
}

/// The outcome of a connection: the status that the server has sent, `closed`, or `open` if it sends nothing for `wait`.
pub(crate) async fn outcome(stream: &mut TcpStream, wait: Duration) -> String {
    let mut head = [0; 12];
    match tokio::time::timeout(wait, stream.read_exact(&mut head)).await {
        Err(_) => "open".to_owned(),
        Ok(Err(_)) => "closed".to_owned(),
        Ok(Ok(_)) => String::from_utf8_lossy(&head[9..]).into_owned(),
    }
}
