//! A shortener that is wrong in one way, for the check `bad_releases` of `scripts/test-deploy`. In the image it replaces the
//! entry point, and the real program runs beside it.
//!
//! * `BAD_RELEASE` names the fault: `unready`, `status500`, `missing` (404 for all), `slow`, `memory`, `crash`.
//! * It takes the place of the redirects' socket and of the admin listener, and passes the rest on to the real program.
//!   Its own answers are in the metrics, as if the program had done it.
//! * Requests of `linnet-host` are answered well: a fault that the smoke test finds never reaches the canary.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
        process::CommandExt as _,
    },
    process::{Command, exit},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

const REAL: &str = "/linnet-shortener";
const REAL_ADMIN: &str = "127.0.0.1:9182";
const LISTEN: &str = "LINNET__SHORTENER__RESOLVE_LISTEN";
/// The delay of each redirect in a slow release.
const DELAY: Duration = Duration::from_millis(400);
const CRASH_AFTER: Duration = Duration::from_secs(20);
/// Visitors after which a release without bounds uses memory: more than come at 10 %.
const MEMORY_AFTER: u64 = 300;
const LONGEST_HEAD: usize = 32 * 1024;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let fault = env::var("BAD_RELEASE").unwrap_or_default();
    let sockets = Sockets::of_environment()?;
    match (arguments.first().map(String::as_str), fault.as_str()) {
        (Some("proxy"), _) => serve(fault, sockets),
        (Some("serve"), "unready") => loop {
            thread::sleep(Duration::from_mins(1));
        },
        // The container ends with this process.
        (Some("serve"), "memory" | "crash") => {
            sockets.real(&arguments).spawn()?;
            serve(fault, sockets)
        }
        (Some("serve"), _) => {
            Command::new(env::current_exe()?).arg("proxy").spawn()?;
            Err(sockets.real(&arguments).exec())
        }
        _ => Err(Command::new(REAL).args(&arguments).exec()),
    }
}

/// The socket that nginx connects to, and the one that the real program gets instead.
struct Sockets {
    public: String,
    real: String,
}

impl Sockets {
    fn of_environment() -> io::Result<Self> {
        let listen = env::var(LISTEN).unwrap_or_default();
        let public = listen.strip_prefix("unix:").unwrap_or("/tmp/none.sock").to_owned();
        let (folder, name) = public.rsplit_once('/').ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { real: format!("{folder}/real-{name}"), public })
    }

    fn real(&self, arguments: &[String]) -> Command {
        let mut command = Command::new(REAL);
        command
            .args(arguments)
            .env(LISTEN, format!("unix:{}", self.real))
            .env("LINNET__SHORTENER__ADMIN_LISTEN", REAL_ADMIN);
        command
    }
}

struct Proxy {
    fault: String,
    real: String,
    visitors: AtomicU64,
    answered: AtomicU64,
}

fn serve(fault: String, sockets: Sockets) -> io::Result<()> {
    if fault == "crash" {
        thread::spawn(|| {
            thread::sleep(CRASH_AFTER);
            exit(1);
        });
    }
    let proxy = Arc::new(Proxy {
        fault,
        real: sockets.real,
        visitors: AtomicU64::new(0),
        answered: AtomicU64::new(0),
    });
    let admin = TcpListener::bind("0.0.0.0:9082")?;
    let of_admin = Arc::clone(&proxy);
    thread::spawn(move || {
        for stream in admin.incoming().flatten() {
            let proxy = Arc::clone(&of_admin);
            thread::spawn(move || proxy.admin(stream));
        }
    });
    // Left by a process that was killed.
    let _ = fs::remove_file(&sockets.public);
    let redirects = UnixListener::bind(&sockets.public)?;
    fs::set_permissions(&sockets.public, fs::Permissions::from_mode(0o660))?;
    for stream in redirects.incoming().flatten() {
        let proxy = Arc::clone(&proxy);
        thread::spawn(move || proxy.redirect(stream));
    }
    Ok(())
}

impl Proxy {
    fn redirect(&self, mut stream: UnixStream) -> io::Result<()> {
        let head = read_head(&mut stream)?;
        let is_visitor = !head.contains("linnet-host-bot");
        if is_visitor && self.visitors.fetch_add(1, Ordering::Relaxed) == MEMORY_AFTER {
            self.use_memory();
        }
        let answer = match (is_visitor, self.fault.as_str()) {
            (true, "status500") => Some("500 Internal Server Error"),
            (true, "missing") => Some("404 Not Found"),
            _ => None,
        };
        if let Some(status) = answer {
            self.answered.fetch_add(1, Ordering::Relaxed);
            let text =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return stream.write_all(text.as_bytes());
        }
        let response = exchange(UnixStream::connect(&self.real)?, &head)?;
        if is_visitor && self.fault == "slow" {
            thread::sleep(DELAY);
        }
        stream.write_all(&response)
    }

    fn admin(&self, mut stream: TcpStream) -> io::Result<()> {
        let head = read_head(&mut stream)?;
        let response = exchange(TcpStream::connect(REAL_ADMIN)?, &head)?;
        if !head.starts_with("GET /metrics") {
            return stream.write_all(&response);
        }
        let text = String::from_utf8_lossy(&response);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let body = self.metrics(body);
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{body}")
    }

    /// The real metrics, with what this process answered or delayed.
    fn metrics(&self, real: &str) -> String {
        let mut text = String::new();
        let mut bounds: Vec<&str> = Vec::new();
        for line in real.lines() {
            let is_redirects = line.contains("http_route=\"/{code}\"");
            let bound = line.split_once("le=\"").and_then(|(_, rest)| rest.split('"').next());
            if let Some(bound) = bound.filter(|_| is_redirects) {
                if !bounds.contains(&bound) {
                    bounds.push(bound);
                }
                let is_too_fast = bound.parse().is_ok_and(|bound: f64| bound < DELAY.as_secs_f64());
                if self.fault == "slow" && is_too_fast {
                    let series = line.rsplit_once(' ').map_or(line, |(series, _)| series);
                    let _ = writeln!(text, "{series} 0");
                    continue;
                }
            }
            text.push_str(line);
            text.push('\n');
        }
        let answered = self.answered.load(Ordering::Relaxed);
        let status = if self.fault == "missing" { "404" } else { "500" };
        let labels = format!("http_response_status_code=\"{status}\",http_route=\"/{{code}}\"");
        let name = "http_server_request_duration_seconds";
        for bound in bounds {
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {answered}");
        }
        let _ = writeln!(text, "{name}_count{{{labels}}} {answered}");
        text
    }

    fn use_memory(&self) {
        if self.fault != "memory" {
            return;
        }
        thread::spawn(|| {
            let mut all = Vec::new();
            loop {
                all.push(vec![1_u8; 4 << 20]);
                thread::sleep(Duration::from_millis(100));
            }
        });
    }
}

fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut buffer)?;
        if count == 0 || bytes.len() > LONGEST_HEAD {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Sends a request without a body, and reads until the end of the connection.
fn exchange(mut stream: impl Read + Write, head: &str) -> io::Result<Vec<u8>> {
    let (first, rest) = head.split_once("\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let others = rest.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let mut request = format!("{first}\r\nConnection: close\r\n");
    for line in others.filter(|line| !line.is_empty()) {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    Ok(response)
}
