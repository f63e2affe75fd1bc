//! The listener for metrics and health checks. One thread answers one request at a time.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::{
    BackupError, archive,
    log::{Level, log},
    metrics::{self, Metrics},
    settings::Settings,
};

/// Longest wait for a client, which is Prometheus or the health check.
const CLIENT_LIMIT: Duration = Duration::from_secs(2);
/// The push loop comes round every second, and a push takes at most 2 min.
const ROUND_LIMIT: Duration = Duration::from_mins(3);

/// Opens the listener and answers requests in a thread.
pub(crate) fn start(settings: &Settings, metrics: Metrics) -> Result<(), BackupError> {
    let listener = TcpListener::bind(settings.listen).map_err(|error| {
        BackupError::setting(
            "LINNET_BACKUP_LISTEN",
            format!("{} cannot be opened: {error}", settings.listen),
        )
    })?;
    let settings = settings.clone();
    thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            if let Err(error) = answer(&stream, &settings, &metrics) {
                log(
                    Level::Info,
                    "metrics client disconnected",
                    &[("error", error.to_string().into())],
                );
            }
        }
    });
    Ok(())
}

fn answer(mut stream: &TcpStream, settings: &Settings, metrics: &Metrics) -> std::io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_LIMIT))?;
    stream.set_write_timeout(Some(CLIENT_LIMIT))?;
    // The whole head: closing a connection with unread data would reset it before the client has read the response.
    let mut head = BufReader::new(stream.take(8_192)).lines();
    let line = head.next().transpose()?.unwrap_or_default();
    for more in head {
        if more?.is_empty() {
            break;
        }
    }
    let (status, kind, body) = match line.split(' ').nth(1) {
        Some("/metrics") => {
            // Now, because a push that hangs must not hide what waits behind it.
            if let Ok(backlog) = archive::backlog(settings) {
                metrics.lock().backlog = backlog;
            }
            ("200 OK", "text/plain; version=0.0.4", metrics::render(&metrics.lock()))
        }
        Some("/health") if metrics.lock().last_round.elapsed() < ROUND_LIMIT => {
            ("200 OK", "text/plain", "ok\n".to_owned())
        }
        Some("/health") => {
            ("503 Service Unavailable", "text/plain", "WAL is not being pushed\n".to_owned())
        }
        _ => ("404 Not Found", "text/plain", "not found\n".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Requests `/health` of the `run` in this container.
pub(crate) fn healthcheck(settings: &Settings) -> Result<(), BackupError> {
    let address = SocketAddr::from(([127, 0, 0, 1], settings.listen.port()));
    let response = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, CLIENT_LIMIT)?;
        stream.set_read_timeout(Some(CLIENT_LIMIT))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    match response() {
        Ok(text) if text.starts_with("HTTP/1.1 200 ") => Ok(()),
        Ok(text) => {
            Err(BackupError::Check(text.lines().last().unwrap_or("no response").to_owned()))
        }
        Err(error) => Err(BackupError::Check(format!("{address} does not respond: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::below;

    #[test]
    fn health_fails_when_the_push_loop_hangs() {
        let root = tempfile::tempdir().unwrap();
        let mut settings = below(root.path());
        // Another test may take the port between the two calls, so several are tried.
        let metrics = Metrics::new(false);
        let started = (0..20).any(|_| {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            settings.listen = free;
            start(&settings, metrics.clone()).is_ok()
        });
        assert!(started);
        healthcheck(&settings).unwrap();
        let Some(long_ago) = std::time::Instant::now().checked_sub(ROUND_LIMIT) else { return };
        metrics.lock().last_round = long_ago;
        assert_eq!(healthcheck(&settings).unwrap_err().to_string(), "WAL is not being pushed");
    }
}
