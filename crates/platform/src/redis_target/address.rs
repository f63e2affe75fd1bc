//! An address in `redis.url`.

use std::net::Ipv6Addr;

use super::RedisUrlError;

/// Host and port.
pub(crate) type Address = (String, u16);

/// Parses `host` or `host:port`, with an IPv6 address in brackets.
pub(super) fn parse(text: &str, default_port: u16) -> Result<Address, RedisUrlError> {
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
        None if rest.is_empty() => default_port,
        None => return Err(invalid()),
    };
    Ok((host.to_ascii_lowercase(), port))
}
