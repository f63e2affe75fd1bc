//! The hosts of a URL of PostgreSQL: one URL, or one for each of several hosts.
//!
//! A connection knows one host. libpq's forms of several hosts are therefore split here: `a:5432,b:5433` in
//! the authority, or `host=a,b` and `port=5432,5433` as parameters. Everything else is the same in every URL.

use url::form_urlencoded;

/// The URLs of all hosts.
#[derive(Debug, PartialEq, Eq)]
pub struct HostUrls {
    /// One URL for each host, in the order of the setting.
    pub urls: Vec<String>,
    /// Whether only a server that accepts writes may be used, as `target_session_attrs` demands.
    pub is_primary_required: bool,
}

/// A reason why the URL is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// The scheme is another one.
    #[error("must begin with postgres:// or postgresql://")]
    Scheme,
    /// The number of ports is neither 1 nor that of the hosts.
    #[error("must have one port, or one for each host: {hosts} host(s), {ports} port(s)")]
    PortCount {
        /// The number of hosts.
        hosts: usize,
        /// The number of ports.
        ports: usize,
    },
    /// A port is out of range.
    #[error("must have ports from 1 to 65535: {0:?}")]
    Port(String),
    /// One of several hosts is empty.
    #[error("must have a host before and after each comma")]
    EmptyHost,
    /// An address in brackets does not end.
    #[error("must have a closing bracket after an IPv6 address")]
    Bracket,
    /// Any of several servers would be accepted.
    #[error(
        "must have target_session_attrs=read-write if it names several hosts, so that psql and \
         pg_dump choose the same server"
    )]
    AnyOfSeveral,
    /// A server that refuses writes would be accepted.
    #[error("target_session_attrs must be read-write or primary, or any with one host")]
    SessionAttributes,
    /// The addresses are those of one host.
    #[error("must not have hostaddr if it names several hosts; name the addresses as hosts")]
    HostAddress,
}

/// Splits the URL by host.
///
/// # Errors
/// All reasons for which the URL is not valid.
// Long because it reads each part of the URL once, in the order of the parts.
pub fn split(url: &str) -> Result<HostUrls, Vec<HostsError>> {
    let Some((scheme @ ("postgres" | "postgresql"), rest)) = url.split_once("://") else {
        return Err(vec![HostsError::Scheme]);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (user, authority) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let parameters = Parameters::of(query);
    let mut problems = Vec::new();

    let mut addresses = Vec::new();
    for address in authority.split(',') {
        match HostPort::of(address) {
            Ok(address) => addresses.push(address),
            Err(problem) => problems.push(problem),
        }
    }
    let (mut hosts, mut ports): (Vec<String>, Vec<String>) =
        addresses.into_iter().map(|address| (address.host, address.port)).unzip();
    // As in libpq, a parameter replaces what the authority names.
    if let Some(list) = &parameters.host {
        hosts = list.split(',').map(ToOwned::to_owned).collect();
        if ports.iter().all(String::is_empty) || ports.len() != hosts.len() {
            ports.truncate(1);
        }
    }
    if let Some(list) = &parameters.port {
        ports = list.split(',').map(ToOwned::to_owned).collect();
    }
    let is_primary_required = match parameters.session_attributes.as_deref() {
        Some("read-write" | "primary") => true,
        None | Some("any") => {
            if hosts.len() > 1 {
                problems.push(HostsError::AnyOfSeveral);
            }
            false
        }
        Some(_) => {
            problems.push(HostsError::SessionAttributes);
            false
        }
    };
    if hosts.len() > 1 {
        if hosts.iter().any(String::is_empty) {
            problems.push(HostsError::EmptyHost);
        }
        if parameters.has_host_address {
            problems.push(HostsError::HostAddress);
        }
    }
    if ports.len() != 1 && ports.len() != hosts.len() {
        problems.push(HostsError::PortCount { hosts: hosts.len(), ports: ports.len() });
    }
    for port in ports.iter().filter(|port| !port.is_empty()) {
        if port.parse::<u16>().is_ok_and(|port| port > 0) {
            continue;
        }
        problems.push(HostsError::Port(port.clone()));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let urls = hosts.iter().enumerate().map(|(number, host)| {
        let port = ports.get(number).or(ports.first()).map_or("", String::as_str);
        let port = if port.is_empty() { String::new() } else { format!(":{port}") };
        // The parser of URLs accepts neither a socket's folder nor, with this runtime, an IPv6 address as a host.
        let (authority, parameter) = if host.starts_with('/') || host.contains(':') {
            let host: String = form_urlencoded::byte_serialize(host.as_bytes()).collect();
            ("localhost", Some(format!("host={host}")))
        } else {
            (host.as_str(), None)
        };
        // A user without a host is no URL.
        let is_empty = authority.is_empty() && !(user.is_empty() && port.is_empty());
        let authority = if is_empty { "localhost" } else { authority };
        let parameters: Vec<&str> =
            parameters.others.iter().copied().chain(parameter.as_deref()).collect();
        let separator = if parameters.is_empty() { "" } else { "?" };
        format!("{scheme}://{user}{authority}{port}{path}{separator}{}", parameters.join("&"))
    });
    Ok(HostUrls { urls: urls.collect(), is_primary_required })
}

/// A host of the authority with its port; both may be empty.
struct HostPort {
    host: String,
    port: String,
}

impl HostPort {
    fn of(address: &str) -> Result<Self, HostsError> {
        let (host, port) = if let Some(rest) = address.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or(HostsError::Bracket)?;
            if !port.is_empty() && !port.starts_with(':') {
                return Err(HostsError::Bracket);
            }
            (host, port.trim_start_matches(':'))
        } else {
            address.split_once(':').unwrap_or((address, ""))
        };
        Ok(Self { host: decoded(host), port: port.to_owned() })
    }
}

/// The parameters that concern hosts, and the others as they were written.
#[derive(Default)]
struct Parameters<'a> {
    host: Option<String>,
    port: Option<String>,
    session_attributes: Option<String>,
    has_host_address: bool,
    others: Vec<&'a str>,
}

impl<'a> Parameters<'a> {
    fn of(query: &'a str) -> Self {
        let mut found = Self::default();
        for written in query.split('&').filter(|written| !written.is_empty()) {
            let Some((name, value)) = form_urlencoded::parse(written.as_bytes()).next() else {
                continue;
            };
            match name.as_ref() {
                "host" => found.host = Some(value.into_owned()),
                "port" => found.port = Some(value.into_owned()),
                "target_session_attrs" => found.session_attributes = Some(value.into_owned()),
                other => {
                    found.has_host_address |= other == "hostaddr";
                    found.others.push(written);
                }
            }
        }
        found
    }
}

/// Decodes `%2F` and the like. A plus sign stays, unlike in a parameter.
fn decoded(text: &str) -> String {
    let escaped = text.replace('+', "%2B");
    let mut parts = form_urlencoded::parse(escaped.as_bytes());
    parts.next().map_or_else(String::new, |(name, _)| name.into_owned())
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    /// Host or socket, and port, of each URL.
    fn hosts(url: &str) -> Vec<(String, u16)> {
        let read = |url: &String| {
            let url = Url::parse(url).unwrap();
            let parameter = url.query_pairs().find(|(name, _)| name == "host");
            let host = match parameter {
                Some((_, host)) => host.into_owned(),
                None => url.host_str().unwrap().to_owned(),
            };
            (host, url.port().unwrap_or(5432))
        };
        split(url).unwrap().urls.iter().map(read).collect()
    }

    fn at(hosts: &[(&str, u16)]) -> Vec<(String, u16)> {
        hosts.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect()
    }

    #[test]
    fn hosts_have_every_form_of_libpq() {
        for (url, expected) in [
            ("postgres://u@a:1,b:2,c/db?A", at(&[("a", 1), ("b", 2), ("c", 5432)])),
            (
                "postgresql://u:p@[::1]:1,[2001:db8::1]/db?A",
                at(&[("::1", 1), ("2001:db8::1", 5432)]),
            ),
            ("postgres:///db?host=a,b&port=1,2&A", at(&[("a", 1), ("b", 2)])),
            ("postgres:///db?host=a,b&port=7&A", at(&[("a", 7), ("b", 7)])),
            ("postgres://u@x:9/db?host=::1,b&A", at(&[("::1", 9), ("b", 9)])),
            ("postgres://u@/db?host=/run/a,/run/b&A", at(&[("/run/a", 5432), ("/run/b", 5432)])),
            ("postgres://u@%2Frun%2Fa:6,b/db?A", at(&[("/run/a", 6), ("b", 5432)])),
            ("postgres://u@a,b?A&sslmode=require", at(&[("a", 5432), ("b", 5432)])),
        ] {
            let url = url.replace('A', "target_session_attrs=read-write");
            assert_eq!(hosts(&url), expected, "{url}");
            assert!(split(&url).unwrap().is_primary_required);
        }
    }

    #[test]
    fn each_host_has_the_user_the_database_and_the_other_parameters() {
        let url = "postgres://u:p%40%2F@a:1,b/db?sslmode=verify-full&target_session_attrs=primary\
                   &application_name=x%20y";
        let urls = split(url).unwrap().urls;
        assert_eq!(
            urls[0],
            "postgres://u:p%40%2F@a:1/db?sslmode=verify-full&application_name=x%20y"
        );
        assert_eq!(urls[1], "postgres://u:p%40%2F@b/db?sslmode=verify-full&application_name=x%20y");
        assert_eq!(
            split("postgres://u@a/db?target_session_attrs=any").unwrap().urls,
            ["postgres://u@a/db"]
        );
        assert_eq!(hosts("postgres://u@[::1]:3/db"), at(&[("::1", 3)]));
        assert_eq!(hosts("postgres://u@localhost:4/db?host=/run/a"), at(&[("/run/a", 4)]));
        assert_eq!(hosts("postgres://u@:4/db"), at(&[("localhost", 4)]));
    }

    #[test]
    fn every_problem_is_reported() {
        let problems = |url: &str| split(url).unwrap_err();
        assert_eq!(problems("mysql://a/db"), [HostsError::Scheme]);
        assert_eq!(problems("postgres"), [HostsError::Scheme]);
        assert_eq!(problems("postgres://a,b/db"), [HostsError::AnyOfSeveral]);
        assert_eq!(
            problems("postgres://a,b/db?target_session_attrs=any"),
            [HostsError::AnyOfSeveral]
        );
        for other in ["standby", "read-only", "prefer-standby", ""] {
            let url = format!("postgres://a/db?target_session_attrs={other}");
            assert_eq!(problems(&url), [HostsError::SessionAttributes], "{other}");
        }
        assert_eq!(problems("postgres://[::1/db"), [HostsError::Bracket]);
        assert_eq!(problems("postgres://[::1]5/db"), [HostsError::Bracket]);
        assert_eq!(
            problems("postgres://a:0,,b:x/db?hostaddr=1.2.3.4"),
            [
                HostsError::AnyOfSeveral,
                HostsError::EmptyHost,
                HostsError::HostAddress,
                HostsError::Port("0".into()),
                HostsError::Port("x".into()),
            ]
        );
        let url = "postgres:///db?host=a,b,c&port=1,2&target_session_attrs=read-write";
        assert_eq!(problems(url), [HostsError::PortCount { hosts: 3, ports: 2 }]);
    }
}
