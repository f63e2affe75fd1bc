//! Asks a process's admin listener whether it is ready: the `healthcheck` subcommand, which stands in
//! for `curl` in an image that holds nothing but the binary.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    time::Duration,
};

use crate::listener::Address;

const TIMEOUT: Duration = Duration::from_secs(3);
/// Enough for a status line; the rest of the answer is not read.
const STATUS_LINE_BYTES: usize = 12;

/// Why the process is not ready.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// Nobody answered.
    #[error("{0} did not answer")]
    NoAnswer(Address, #[source] io::Error),
    /// The answer was not 200.
    #[error("{0} is not ready: {1}")]
    NotReady(Address, String),
}

/// `GET /readyz` on `admin`; waits up to 3 s for each step.
pub fn healthcheck(admin: &Address) -> Result<(), HealthcheckError> {
    let status = ask(admin).map_err(|error| HealthcheckError::NoAnswer(admin.clone(), error))?;
    if status.ends_with(" 200") {
        Ok(())
    } else {
        Err(HealthcheckError::NotReady(admin.clone(), status))
    }
}

fn ask(admin: &Address) -> io::Result<String> {
    match admin {
        Address::Tcp(text) => {
            let address =
                text.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no address"))?;
            let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            status_line(stream)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            status_line(stream)
        }
    }
}

fn status_line(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut line = [0_u8; STATUS_LINE_BYTES];
    stream.read_exact(&mut line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(answer: &'static str) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 16];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn only_200_is_ready() {
        assert!(healthcheck(&answering("HTTP/1.1 200 OK\r\n\r\n")).is_ok());
        let error = healthcheck(&answering("HTTP/1.1 503 Service Unavailable\r\n\r\n"));
        assert!(matches!(error, Err(HealthcheckError::NotReady(..))));
        let nobody = Address::Unix("/nonexistent/admin.sock".into());
        assert!(matches!(healthcheck(&nobody), Err(HealthcheckError::NoAnswer(..))));
    }
}
