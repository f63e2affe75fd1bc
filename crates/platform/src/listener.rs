//! Listening sockets, TCP or unix, that are bound before anything starts and retired before anything stops.
//!
//! Retiring a unix socket removes its path, while connections in the backlog are still accepted. A later client fails to
//! connect, which a proxy may retry elsewhere for any method. Closing a listener would reset the connections in its backlog.

use std::{
    fmt, io,
    net::{TcpListener, ToSocketAddrs},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that may wait to be accepted. The kernel caps it at `somaxconn` (4,096).
const BACKLOG: i32 = 4_096;

/// An address to listen on or to connect to: `host:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or IP address with a port.
    Tcp(String),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// The text is neither `host:port` nor `unix:/path`.
#[derive(Debug, thiserror::Error)]
#[error("must be host:port or unix:/absolute/path, not `{0}`")]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseAddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            return path.is_absolute().then(|| Self::Unix(path.into())).ok_or_else(error);
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(error());
        }
        Ok(Self::Tcp(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    socket: BoundSocket,
    address: Address,
}

/// The socket of a [`Listener`], for an HTTP server.
#[derive(Debug)]
pub enum BoundSocket {
    /// A TCP listener.
    Tcp(TcpListener),
    /// A unix listener.
    Unix(UnixListener),
}

/// Retires a listener: removes the path of a unix socket, and does nothing for TCP.
#[derive(Debug, Clone)]
pub struct RetireHandle(Option<(PathBuf, u64)>);

impl RetireHandle {
    /// Makes the address unreachable for new clients, unless another process has bound the path since.
    pub fn retire(&self) {
        let Some((path, inode)) = &self.0 else { return };
        if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == *inode) {
            // A path that remains is harmless: the next process replaces it.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Listener {
    /// Binds the address. The unix socket of a dead process is replaced; for that of a live process the error is
    /// [`io::ErrorKind::AddrInUse`]. Only the owner and the group of a unix socket may connect to it. The group is
    /// that of its directory if the directory has the set-group-ID bit.
    pub fn bind(address: &Address) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(text) => BoundSocket::Tcp(bind_tcp(text)?),
            Address::Unix(path) => BoundSocket::Unix(bind_unix(path)?),
        };
        Ok(Self { socket, address: address.clone() })
    }

    /// The address for clients, with the port that the system chose for port 0.
    pub fn local_address(&self) -> Address {
        match &self.socket {
            BoundSocket::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| self.address.clone(), |addr| Address::Tcp(addr.to_string())),
            BoundSocket::Unix(_) => self.address.clone(),
        }
    }

    /// Returns the socket, and the handle that retires it.
    pub fn split(self) -> (BoundSocket, RetireHandle) {
        let retire = match &self.address {
            Address::Unix(path) => RetireHandle(
                std::fs::symlink_metadata(path).ok().map(|meta| (path.clone(), meta.ino())),
            ),
            Address::Tcp(_) => RetireHandle(None),
        };
        (self.socket, retire)
    }
}

fn bind_tcp(text: &str) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in text.to_socket_addrs()? {
        let bound = (|| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket)
        })();
        match bound {
            Ok(socket) => return Ok(socket.into()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if path.exists() && UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens on this path",
        ));
    }
    // The socket is bound to a temporary path, which is renamed over the final one once its permissions are set. Clients
    // never find the path missing or with the wrong mode.
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&temporary)?)?;
    socket.listen(BACKLOG)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o660))?;
    std::fs::rename(&temporary, path)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_port_or_an_absolute_path_is_an_address() {
        for good in ["127.0.0.1:0", "localhost:80", "[::1]:443", "unix:/run/linnet.sock"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in ["", "80", "host", "host:port", ":80", "host:70000", "unix:relative"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::Unix(dir.path().join("s.sock"));
        drop(Listener::bind(&address).unwrap());
        let live = Listener::bind(&address).unwrap();
        let error = Listener::bind(&address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(live);
    }

    #[test]
    fn retiring_leaves_the_successors_path_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let address = Address::Unix(path.clone());
        let (old, retire_old) = Listener::bind(&address).unwrap().split();
        drop(old);
        let (_new, retire_new) = Listener::bind(&address).unwrap().split();
        retire_old.retire();
        assert!(path.exists());
        retire_new.retire();
        assert!(!path.exists());
    }
}
