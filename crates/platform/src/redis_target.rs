//! The target of `redis.url`: a Redis server, or the sentinels that name it.

use std::{collections::HashSet, io, net::Ipv6Addr};

use linnet_tls::CaFile;
use percent_encoding::percent_decode_str;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisError, RedisResult, TlsCertificates, io::tcp::TcpSettings,
};

/// Default port of a sentinel.
const SENTINEL_PORT: u16 = 26_379;
const SENTINEL_SCHEMES: [(&str, bool); 2] =
    [("redis+sentinel://", false), ("rediss+sentinel://", true)];

/// Host and port.
pub(crate) type Address = (String, u16);

/// The target of `redis.url`.
#[derive(Debug, Clone)]
pub(crate) enum RedisTarget {
    /// One server.
    Server(Box<ConnectionInfo>),
    /// The master that these sentinels name.
    Sentinels(SentinelTarget),
}

/// The sentinels of a master, and how to log in to that master.
#[derive(Debug, Clone)]
pub(crate) struct SentinelTarget {
    /// At least one, none twice.
    pub(crate) sentinels: Vec<Address>,
    /// The master's name.
    pub(crate) name: String,
    /// User, password and database of the master.
    pub(crate) redis: RedisConnectionInfo,
    /// Whether sentinels and servers are reached with TLS only.
    pub(crate) has_tls: bool,
}

/// Why a URL is not valid. No message contains a part of the credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedisUrlError {
    #[error(transparent)]
    Server(#[from] RedisError),
    #[error("must end with the master's name, as in redis+sentinel://host:26379/mymaster/0")]
    NoName,
    #[error("the database after the master's name must be a whole number from 0")]
    Database,
    #[error("must have nothing after the database")]
    Rest,
    #[error("must have no query and no fragment; write ? and # in credentials as %3F and %23")]
    Query,
    #[error("a host between commas is empty")]
    EmptyHost,
    #[error("`{0}` must be host or host:port, with an IPv6 address in brackets")]
    Host(String),
    #[error("`{0}` is listed twice; each sentinel counts once")]
    Twice(String),
    #[error("user, password and the master's name must be percent-encoded UTF-8")]
    Encoding,
    #[error("a / or @ in the user, the password or the master's name must be percent-encoded")]
    Separator,
}

impl RedisTarget {
    /// Parses `redis.url`.
    pub(crate) fn parse(url: &str) -> Result<Self, RedisUrlError> {
        for (scheme, has_tls) in SENTINEL_SCHEMES {
            if let Some(rest) = url.strip_prefix(scheme) {
                return SentinelTarget::parse(rest, has_tls).map(Self::Sentinels);
            }
        }
        let info = url.into_connection_info()?;
        // The default delays small writes.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Self::Server(Box::new(info)))
    }
}

impl SentinelTarget {
    /// Parses what follows the scheme: `[user:password@]host[:port][,host[:port]…]/name[/database]`.
    fn parse(rest: &str, has_tls: bool) -> Result<Self, RedisUrlError> {
        if rest.contains(['?', '#']) {
            return Err(RedisUrlError::Query);
        }
        let (authority, path) = rest.split_once('/').ok_or(RedisUrlError::NoName)?;
        // Otherwise a part of a password would be read as a host, and shown.
        if path.contains('@') {
            return Err(RedisUrlError::Separator);
        }
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let mut redis = RedisConnectionInfo::default();
        if let Some(credentials) = credentials {
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            if !user.is_empty() {
                redis = redis.set_username(decoded(user)?);
            }
            if let Some(password) = password {
                redis = redis.set_password(decoded(password)?);
            }
        }
        let mut segments = path.split('/');
        let name = decoded(segments.next().unwrap_or_default())?;
        if name.is_empty() {
            return Err(RedisUrlError::NoName);
        }
        if let Some(database) = segments.next().filter(|text| !text.is_empty()) {
            let database: u32 = database.parse().map_err(|_| RedisUrlError::Database)?;
            redis = redis.set_db(database.into());
        }
        if segments.next().is_some() {
            return Err(RedisUrlError::Rest);
        }
        let mut seen = HashSet::new();
        let mut sentinels = Vec::new();
        for host in hosts.split(',') {
            let address = address(host)?;
            if !seen.insert(address.clone()) {
                return Err(RedisUrlError::Twice(host.to_owned()));
            }
            sentinels.push(address);
        }
        Ok(Self { sentinels, name, redis, has_tls })
    }

    /// How to connect to one of the sentinels. `credentials` are user and password of the sentinels, each maybe empty.
    pub(crate) fn sentinel(
        &self,
        address: &Address,
        (user, password): (&str, &str),
    ) -> RedisResult<ConnectionInfo> {
        let mut redis = RedisConnectionInfo::default();
        if !user.is_empty() {
            redis = redis.set_username(user);
        }
        if !password.is_empty() {
            redis = redis.set_password(password);
        }
        Ok(self.info(address)?.set_redis_settings(redis))
    }

    /// How to connect to the master at an address that a sentinel returned.
    pub(crate) fn master(&self, address: &Address) -> RedisResult<ConnectionInfo> {
        Ok(self.info(address)?.set_redis_settings(self.redis.clone()))
    }

    fn info(&self, (host, port): &Address) -> RedisResult<ConnectionInfo> {
        let (host, port) = (host.clone(), *port);
        let address = if self.has_tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = address.into_connection_info()?;
        Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
    }
}

/// A client. With TLS it trusts these CAs, or the public CAs that browsers trust. It verifies the host name, and never
/// connects without TLS.
pub(crate) fn client(info: ConnectionInfo, ca_file: Option<&CaFile>) -> RedisResult<Client> {
    match ca_file {
        None => Client::open(info),
        Some(roots) => {
            let certificates =
                TlsCertificates { client_tls: None, root_cert: Some(roots.pem().to_vec()) };
            Client::build_with_tls(info, certificates)
        }
    }
}

/// Reads the CAs of `redis.ca_file`.
pub(crate) fn read_ca_file(path: Option<&std::path::Path>) -> RedisResult<Option<CaFile>> {
    let file = path.map(CaFile::read).transpose().map_err(io::Error::other)?;
    Ok(file)
}

fn decoded(text: &str) -> Result<String, RedisUrlError> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| RedisUrlError::Encoding)?;
    Ok(text.into_owned())
}

fn address(text: &str) -> Result<Address, RedisUrlError> {
    if text.is_empty() {
        return Err(RedisUrlError::EmptyHost);
    }
    let invalid = || RedisUrlError::Host(text.to_owned());
    let (host, rest) = match text.strip_prefix('[') {
        Some(text) => {
            let (host, rest) = text.split_once(']').ok_or_else(invalid)?;
            let _: Ipv6Addr = host.parse().map_err(|_| invalid())?;
            (host, rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.is_empty() || (!text.starts_with('[') && !host.chars().all(is_host)) {
        return Err(invalid());
    }
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?,
        None if rest.is_empty() => SENTINEL_PORT,
        None => return Err(invalid()),
    };
    Ok((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentinels(url: &str) -> SentinelTarget {
        match RedisTarget::parse(url) {
            Ok(RedisTarget::Sentinels(target)) => target,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn sentinel_url_has_hosts_credentials_name_and_database() {
        let target = sentinels(
            "redis+sentinel://user:p%40ss%2Fword@s1:26380,S2.example.com,10.0.0.3:1/my%20master/3",
        );
        let address = |host: &str, port| (host.to_owned(), port);
        let expected =
            [address("s1", 26_380), address("s2.example.com", 26_379), address("10.0.0.3", 1)];
        assert_eq!(target.sentinels, expected);
        assert_eq!((target.name.as_str(), target.has_tls), ("my master", false));
        assert_eq!(target.redis.username(), Some("user"));
        assert_eq!(target.redis.password(), Some("p@ss/word"));
        assert_eq!(target.redis.db(), 3);
    }

    #[test]
    fn sentinel_url_may_leave_out_credentials_ports_and_database() {
        for url in ["redis+sentinel://s1/m", "redis+sentinel://s1/m/"] {
            let target = sentinels(url);
            assert_eq!(target.sentinels, [("s1".to_owned(), 26_379)]);
            assert_eq!((target.redis.username(), target.redis.password()), (None, None));
            assert_eq!((target.redis.db(), target.name.as_str()), (0, "m"));
        }
        let password_only = sentinels("redis+sentinel://:pw@s1/m");
        let redis = &password_only.redis;
        assert_eq!((redis.username(), redis.password()), (None, Some("pw")));
        // The last `@` ends the credentials, and the first `:` ends the user.
        let special = sentinels("redis+sentinel://u:a@b:c@s1/m");
        assert_eq!(special.redis.password(), Some("a@b:c"));
    }

    #[test]
    fn ipv6_sentinels_are_written_in_brackets() {
        let target = sentinels("redis+sentinel://[::1]:26380,[2001:db8::2]/m");
        let expected = [("::1".to_owned(), 26_380), ("2001:db8::2".to_owned(), 26_379)];
        assert_eq!(target.sentinels, expected);
        for host in ["::1", "[::1", "[::1]26379", "[::1]:", "[zz]:1", "[]:1", "2001:db8::2:26379"] {
            let error = RedisTarget::parse(&format!("redis+sentinel://{host}/m")).unwrap_err();
            assert!(matches!(error, RedisUrlError::Host(_)), "{host}: {error}");
        }
    }

    #[test]
    fn tls_applies_to_sentinels_and_masters() {
        let target = sentinels("rediss+sentinel://u:p@s1/m/2");
        let sentinel = target.sentinel(&target.sentinels[0], ("su", "sp")).unwrap();
        assert!(matches!(sentinel.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
        assert_eq!(sentinel.redis_settings().username(), Some("su"));
        assert_eq!(sentinel.redis_settings().db(), 0, "a sentinel has no databases");
        let master = target.master(&("10.0.0.1".into(), 6_379)).unwrap();
        assert!(matches!(master.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
        assert_eq!(
            (master.redis_settings().db(), master.redis_settings().password()),
            (2, Some("p"))
        );
        let plain = sentinels("redis+sentinel://s1/m");
        let sentinel = plain.sentinel(&plain.sentinels[0], ("", "")).unwrap();
        assert!(matches!(sentinel.addr(), ConnectionAddr::Tcp(..)));
        assert_eq!(sentinel.redis_settings().password(), None);
    }

    #[test]
    fn invalid_sentinel_urls_are_rejected_with_the_reason() {
        for (rest, reason) in [
            ("s1:26379", "master's name"),
            ("s1:26379/", "master's name"),
            ("s1//0", "master's name"),
            ("/m", "is empty"),
            ("s1,,s2/m", "is empty"),
            ("s1,/m", "is empty"),
            ("u:p@/m", "is empty"),
            ("s1:0/m", "`s1:0`"),
            ("s1:port/m", "`s1:port`"),
            ("s1:70000/m", "`s1:70000`"),
            ("s 1/m", "`s 1`"),
            ("s1/m/x", "database"),
            ("s1/m/-1", "database"),
            ("s1/m/0/1", "nothing after"),
            ("s1/m?db=1", "no query"),
            ("s1/m#insecure", "no query"),
            ("s1,S1:26379/m", "listed twice"),
            ("%ff:p@s1/m", "percent-encoded"),
            ("u:secret/x@s1/m", "a / or @"),
        ] {
            for scheme in ["redis+sentinel://", "rediss+sentinel://"] {
                let error = RedisTarget::parse(&format!("{scheme}{rest}")).unwrap_err().to_string();
                assert!(error.contains(reason), "{rest}: {error}");
            }
        }
        let secret = RedisTarget::parse("redis+sentinel://u:secret@s1").unwrap_err().to_string();
        assert!(!secret.contains("secret"), "{secret}");
    }

    #[test]
    fn other_schemes_are_read_as_before() {
        for url in ["redis://127.0.0.1:6379/0", "rediss://u:p@[::1]:6380/1", "unix:///run/redis"] {
            assert!(matches!(RedisTarget::parse(url), Ok(RedisTarget::Server(_))), "{url}");
        }
        for url in ["http://h", "redis+cluster://h:1", "redis+sentinel:/s1/m", ""] {
            assert!(matches!(RedisTarget::parse(url), Err(RedisUrlError::Server(_))), "{url}");
        }
    }
}
