//! Checks whether a running process is ready: the `healthcheck` subcommand, for images without `curl`.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    time::Duration,
};

use crate::listener::Address;

const TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes up to and including the status code; the rest of the response is not read.
const STATUS_LINE_BYTES: usize = 12;

/// Why the process is not ready.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// The admin listener did not respond.
    #[error("{0} does not respond")]
    NoResponse(Address, #[source] io::Error),
    /// The response was not 200.
    #[error("{0} is not ready: {1}")]
    NotReady(Address, String),
}

/// Requests `/readyz` from the admin listener, with a timeout of 3 s for each step.
pub fn healthcheck(admin: &Address) -> Result<(), HealthcheckError> {
    let status = request_status(admin)
        .map_err(|error| HealthcheckError::NoResponse(admin.clone(), error))?;
    if status.ends_with(" 200") {
        Ok(())
    } else {
        Err(HealthcheckError::NotReady(admin.clone(), status))
    }
}

fn request_status(admin: &Address) -> io::Result<String> {
    match admin {
        Address::Tcp(text) => {
            let address = text
                .to_socket_addrs()?
                .next()
                .ok_or_else(|| io::Error::other("the host name has no address"))?;
            let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            read_status(stream)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            read_status(stream)
        }
    }
}

fn read_status(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut line = [0_u8; STATUS_LINE_BYTES];
    stream.read_exact(&mut line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn responding(response: &'static str) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 16];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(response.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn only_status_200_is_ready() {
        assert!(healthcheck(&responding("HTTP/1.1 200 OK\r\n\r\n")).is_ok());
        let error = healthcheck(&responding("HTTP/1.1 503 Service Unavailable\r\n\r\n"));
        assert!(matches!(error, Err(HealthcheckError::NotReady(..))));
        let absent = Address::Unix("/nonexistent/admin.sock".into());
        assert!(matches!(healthcheck(&absent), Err(HealthcheckError::NoResponse(..))));
    }
}
