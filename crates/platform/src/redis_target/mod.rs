//! The target of `redis.url`: a Redis server, the sentinels that name it, or nodes of a Redis Cluster.

mod address;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, io};

use linnet_tls::CaFile;
use percent_encoding::percent_decode_str;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisError, RedisResult, TlsCertificates, io::tcp::TcpSettings,
};

use crate::redis_keys::KeyLayout;

pub(crate) use address::Address;

/// Default port of a sentinel.
const SENTINEL_PORT: u16 = 26_379;
/// Default port of a node of a cluster.
const NODE_PORT: u16 = 6_379;
const SENTINEL_SCHEMES: [(&str, bool); 2] =
    [("redis+sentinel://", false), ("rediss+sentinel://", true)];
const CLUSTER_SCHEMES: [(&str, bool); 2] =
    [("redis+cluster://", false), ("rediss+cluster://", true)];

/// The target of `redis.url`.
#[derive(Debug, Clone)]
pub(crate) enum RedisTarget {
    /// One server.
    Server(Box<ConnectionInfo>),
    /// The master that these voters name.
    Voters(VoterTarget),
}

/// The kind of the voters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VoterKind {
    /// Sentinels that monitor the master under this name.
    Sentinels {
        /// The master's name.
        name: String,
    },
    /// Nodes of a Redis Cluster.
    Nodes,
}

/// The voters that name a master, and how to log in to that master.
#[derive(Debug, Clone)]
pub(crate) struct VoterTarget {
    /// At least one, none twice.
    pub(crate) voters: Vec<Address>,
    pub(crate) kind: VoterKind,
    /// User, password and database of the master.
    pub(crate) redis: RedisConnectionInfo,
    /// Whether voters and servers are reached with TLS only.
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
    #[error("must have nothing after the last host: a cluster has no name and no databases")]
    RestOfCluster,
    #[error("must have no query and no fragment; write ? and # in credentials as %3F and %23")]
    Query,
    #[error("a host between commas is empty")]
    EmptyHost,
    #[error("`{0}` must be host or host:port, with an IPv6 address in brackets")]
    Host(String),
    #[error("`{0}` is listed twice; each host counts once")]
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
                return VoterTarget::parse_sentinels(rest, has_tls).map(Self::Voters);
            }
        }
        for (scheme, has_tls) in CLUSTER_SCHEMES {
            if let Some(rest) = url.strip_prefix(scheme) {
                return VoterTarget::parse_nodes(rest, has_tls).map(Self::Voters);
            }
        }
        let info = url.into_connection_info()?;
        // The default delays small writes.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Self::Server(Box::new(info)))
    }
}

/// How keys are named at this URL.
pub(crate) fn key_layout(url: &str) -> KeyLayout {
    let is_cluster = CLUSTER_SCHEMES.iter().any(|(scheme, _)| url.starts_with(scheme));
    if is_cluster { KeyLayout::Cluster } else { KeyLayout::Server }
}

impl VoterTarget {
    /// Parses what follows the scheme: `[user:password@]host[:port][,host[:port]…]/name[/database]`.
    fn parse_sentinels(rest: &str, has_tls: bool) -> Result<Self, RedisUrlError> {
        let (authority, path) = split_path(rest)?;
        let path = path.ok_or(RedisUrlError::NoName)?;
        let (mut redis, voters) = parse_authority(authority, SENTINEL_PORT)?;
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
        Ok(Self { voters, kind: VoterKind::Sentinels { name }, redis, has_tls })
    }

    /// Parses what follows the scheme: `[user:password@]host[:port][,host[:port]…]`, and maybe a slash.
    fn parse_nodes(rest: &str, has_tls: bool) -> Result<Self, RedisUrlError> {
        let (authority, path) = split_path(rest)?;
        if path.is_some_and(|path| !path.is_empty()) {
            return Err(RedisUrlError::RestOfCluster);
        }
        let (redis, voters) = parse_authority(authority, NODE_PORT)?;
        Ok(Self { voters, kind: VoterKind::Nodes, redis, has_tls })
    }

    /// How to connect to one of the voters. `credentials` are user and password of the sentinels, each maybe empty; nodes
    /// of a cluster have those of the URL.
    pub(crate) fn voter(
        &self,
        address: &Address,
        (user, password): (&str, &str),
    ) -> RedisResult<ConnectionInfo> {
        if self.kind == VoterKind::Nodes {
            return self.master(address);
        }
        let mut redis = RedisConnectionInfo::default();
        if !user.is_empty() {
            redis = redis.set_username(user);
        }
        if !password.is_empty() {
            redis = redis.set_password(password);
        }
        Ok(self.info(address)?.set_redis_settings(redis))
    }

    /// How to connect to the master at an address that a voter returned.
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

/// The part before the first slash, and the part after it.
fn split_path(rest: &str) -> Result<(&str, Option<&str>), RedisUrlError> {
    if rest.contains(['?', '#']) {
        return Err(RedisUrlError::Query);
    }
    match rest.split_once('/') {
        // Otherwise a part of a password would be read as a host, and shown.
        Some((_, path)) if path.contains('@') => Err(RedisUrlError::Separator),
        Some((authority, path)) => Ok((authority, Some(path))),
        None => Ok((rest, None)),
    }
}

/// The credentials and the addresses of `[user:password@]host[:port][,host[:port]…]`.
fn parse_authority(
    authority: &str,
    default_port: u16,
) -> Result<(RedisConnectionInfo, Vec<Address>), RedisUrlError> {
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
    let mut seen = HashSet::new();
    let mut addresses = Vec::new();
    for host in hosts.split(',') {
        let address = address::parse(host, default_port)?;
        if !seen.insert(address.clone()) {
            return Err(RedisUrlError::Twice(host.to_owned()));
        }
        addresses.push(address);
    }
    Ok((redis, addresses))
}
