//! Counts the requests that nginx refuses with 429, so that one metric has every 429 of the installation.
//!
//! nginx has no counters of its limits. It sends a datagram for each refused request, in the form of syslog: the last word
//! is the reason.
//!
//! Invariants:
//! - nginx never waits for this process. A datagram that finds the socket's buffer full is lost, and so is its count.
//! - A datagram only increments one of two counters, so a forged one cannot do more.

use std::{
    io,
    net::{ToSocketAddrs as _, UdpSocket},
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::Path,
    sync::Arc,
    time::Duration,
};

use linnet_platform::listener::Address;

use crate::counters::{Counters, LimitReason};

/// A datagram of nginx has about 50 bytes. Longer ones are truncated and lose their reason.
const DATAGRAM_BYTES: usize = 256;
/// Pause after a failed read, so that a broken socket does not occupy a core.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// The bound socket, not yet read.
#[derive(Debug)]
pub(crate) enum RefusalSocket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl RefusalSocket {
    /// Binds the address. The path of a unix socket is replaced. Its owner and its group may write to it; the group is that
    /// of its directory if the directory has the set-group-ID bit.
    pub(crate) fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(text) => {
                let addresses: Vec<_> = text.to_socket_addrs()?.collect();
                let socket = UdpSocket::bind(&addresses[..])?;
                socket.set_nonblocking(true)?;
                Ok(Self::Udp(socket))
            }
            Address::Unix(path) => {
                let socket = bind_unix(path)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(socket))
            }
        }
    }

    /// Counts datagrams until the future is dropped. Must be called in a Tokio runtime. Fails if the socket cannot be
    /// registered there.
    pub(crate) fn count(
        self,
        counters: Arc<Counters>,
    ) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let socket = match self {
            Self::Udp(socket) => Reader::Udp(tokio::net::UdpSocket::from_std(socket)?),
            Self::Unix(socket) => Reader::Unix(tokio::net::UnixDatagram::from_std(socket)?),
        };
        Ok(async move {
            let mut buffer = [0; DATAGRAM_BYTES];
            loop {
                match socket.receive(&mut buffer).await {
                    Ok(length) => {
                        if let Some(reason) = buffer.get(..length).and_then(reason_of) {
                            counters.limited(reason);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "nginx's refusals could not be read");
                        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    }
                }
            }
        })
    }
}

enum Reader {
    Udp(tokio::net::UdpSocket),
    Unix(tokio::net::UnixDatagram),
}

impl Reader {
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv(buffer).await,
            Self::Unix(socket) => socket.recv(buffer).await,
        }
    }
}

/// nginx always finds the path, because the new socket is renamed over that of an earlier process.
fn bind_unix(path: &Path) -> io::Result<UnixDatagram> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let socket = UnixDatagram::bind(&temporary)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o660))?;
    std::fs::rename(&temporary, path)?;
    Ok(socket)
}

/// The reason in a datagram such as `<190>Nov 27 09:00:00 linnet: nginx_rate`.
fn reason_of(datagram: &[u8]) -> Option<LimitReason> {
    let text = std::str::from_utf8(datagram).ok()?;
    LimitReason::of_nginx(text.trim_end().rsplit(' ').next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_datagram_is_the_reason() {
        let reason = |text: &str| reason_of(text.as_bytes());
        assert_eq!(reason("<190>Nov 27 09:00:00 linnet: nginx_rate"), Some(LimitReason::NginxRate));
        assert_eq!(reason("nginx_connections\n"), Some(LimitReason::NginxConnections));
        for other in ["", "<190>Nov 27 09:00:00 linnet: key", "nginx_rate: ", "nginx_rates"] {
            assert_eq!(reason(other), None, "{other}");
        }
        assert_eq!(reason_of(b"\xff nginx_rate"), None);
    }

    #[actix_web::test]
    async fn datagrams_are_counted_by_reason_over_udp_and_unix_sockets() {
        let counters = Arc::new(Counters::default());
        let udp = RefusalSocket::bind(&Address::Tcp("127.0.0.1:0".into())).unwrap();
        let RefusalSocket::Udp(socket) = &udp else { unreachable!() };
        let to = socket.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("refusals.sock");
        let address = Address::Unix(path.clone());
        // An earlier process has left its socket.
        drop(RefusalSocket::bind(&address).unwrap());
        let unix = RefusalSocket::bind(&address).unwrap();
        let tasks = [udp, unix].map(|one| tokio::spawn(one.count(Arc::clone(&counters)).unwrap()));

        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        for text in ["x nginx_rate", "garbage", "x nginx_rate", "x nginx_connections"] {
            from.send_to(text.as_bytes(), to).unwrap();
        }
        UnixDatagram::unbound().unwrap().send_to(b"x nginx_connections", &path).unwrap();
        let counted = || {
            [LimitReason::NginxRate, LimitReason::NginxConnections]
                .map(|reason| counters.limited_count(reason))
        };
        for _ in 0..500 {
            if counted() == [2, 2] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(counted(), [2, 2]);
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
