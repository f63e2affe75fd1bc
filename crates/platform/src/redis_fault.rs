//! Why a client does not use Redis.

use linnet_tls::TlsFault;
use redis::{ErrorKind, RedisError};

/// Errors of a server that refuses writes: memory full, a replica, a failing disk, too few replicas. A node of a cluster
/// refuses them when its slot moves or has moved to another node, or when the cluster is down.
pub(crate) const WRITE_REFUSALS: [&str; 8] =
    ["OOM", "READONLY", "MISCONF", "NOREPLICAS", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"];

/// Why a client does not use Redis, for readiness. Every process reports the same words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisFault {
    /// Redis responds and refuses writes. The text is its error code, such as `OOM`.
    #[error("refuses writes: {0}")]
    RefusesWrites(String),
    /// Redis refuses the login, or a command that the user may not run.
    #[error("refuses the user: {0}")]
    RefusesUser(String),
    /// Redis accepts connections and does not respond in time.
    #[error("does not respond")]
    TimedOut,
    /// The TLS handshake failed, for example because of the server's certificate.
    #[error("{0}")]
    Tls(TlsFault),
    /// Redis responds, but the `before_use` hook failed.
    #[error("connected, but missed changes are not published")]
    Unprepared,
    /// No majority of the sentinels, or of the nodes of a cluster, names a master, or the named one is a replica.
    #[error("no master that a majority of sentinels or nodes names")]
    NoMaster,
    /// No connection can be opened, or it broke.
    #[error("unreachable")]
    Unreachable,
}

impl From<&RedisError> for RedisFault {
    fn from(error: &RedisError) -> Self {
        if error.kind() == ErrorKind::MasterNameNotFoundBySentinel {
            return Self::NoMaster;
        }
        match error.code() {
            Some(code) if WRITE_REFUSALS.contains(&code) => Self::RefusesWrites(code.to_owned()),
            Some(code @ ("NOAUTH" | "NOPERM" | "WRONGPASS")) => Self::RefusesUser(code.to_owned()),
            _ if error.is_timeout() => Self::TimedOut,
            _ => TlsFault::find(error).map_or(Self::Unreachable, Self::Tls),
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn server_error(reply: &str) -> RedisError {
        redis::parse_redis_value(format!("-{reply}\r\n").as_bytes())
            .and_then(Value::extract_error)
            .unwrap_err()
    }

    #[test]
    fn a_fault_names_the_code_with_which_redis_refuses_writes() {
        for (reply, words) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", "refuses writes: OOM"),
            ("READONLY You can't write against a read only replica.", "refuses writes: READONLY"),
            ("MISCONF Redis is configured to save RDB snapshots", "refuses writes: MISCONF"),
            ("MOVED 7365 10.0.0.2:6379", "refuses writes: MOVED"),
            ("ASK 7365 10.0.0.2:6379", "refuses writes: ASK"),
            ("CLUSTERDOWN The cluster is down", "refuses writes: CLUSTERDOWN"),
            ("NOAUTH Authentication required.", "refuses the user: NOAUTH"),
            ("NOPERM this user has no permissions", "refuses the user: NOPERM"),
        ] {
            assert_eq!(RedisFault::from(&server_error(reply)).to_string(), words);
        }
        let refused = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(RedisFault::from(&refused), RedisFault::Unreachable);
        let timed_out = RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        assert_eq!(RedisFault::from(&timed_out), RedisFault::TimedOut);
    }
}
