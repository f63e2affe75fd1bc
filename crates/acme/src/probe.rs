//! Checks over HTTP that a name leads to this installation, before a CA does: its failed validations are limited.
//!
//! Only a definite result prevents an order: the name has no address, or another server responds. A machine that cannot
//! connect to its own public address is common (networks without hairpin NAT), and proves nothing about the DNS.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, lookup_host},
    time::{Instant, sleep, timeout},
};

use crate::names::{DnsName, Names};

/// The path below which a CA requests challenges.
pub(crate) const CHALLENGE_PATH: &str = ".well-known/acme-challenge";
/// Timeout for one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most addresses of a name that are requested.
const MAX_ADDRESSES: usize = 8;
/// Largest response that is read.
const MAX_BYTES: u64 = 8 * 1024;
/// How long unclear results are repeated: nginx starts after this process, and may still be starting.
const UNCLEAR_TIMEOUT: Duration = Duration::from_mins(1);
/// Wait between two repetitions.
const AGAIN: Duration = Duration::from_secs(2);

/// Where a name leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// To this installation.
    Here,
    /// Definitely not to this installation, with a sentence for the operator.
    Elsewhere(String),
    /// No address could be reached from here, or the response proves nothing.
    Unknown(String),
}

/// The result of probing all names.
#[derive(Debug, Default)]
pub(crate) struct ProbeResult {
    /// The names that an order may contain.
    pub(crate) usable: Names,
    /// A sentence for each other name.
    pub(crate) problems: Vec<String>,
}

/// A file that the CA, or the probe, requests. It is removed when the value is dropped.
pub(crate) struct ChallengeFile {
    path: PathBuf,
}

impl ChallengeFile {
    /// Writes the response for `token`, readable by nginx.
    pub(crate) fn write(root: &Path, token: &str, content: &str) -> std::io::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = root.join(CHALLENGE_PATH);
        fs::create_dir_all(&folder)?;
        // Tokens come from the CA. One with other characters could leave the folder.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if token.is_empty() || !token.bytes().all(is_plain) {
            return Err(std::io::Error::other("the token has other characters than base64url"));
        }
        let file = Self { path: folder.join(token) };
        fs::write(&file.path, content)?;
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o644))?;
        Ok(file)
    }

    /// Removes the files that a killed process left.
    pub(crate) fn sweep(root: &Path) {
        let entries = fs::read_dir(root.join(CHALLENGE_PATH)).into_iter().flatten();
        for entry in entries.flatten() {
            // A file that remains is harmless.
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl Drop for ChallengeFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Probes all names at the same time. `address` replaces the addresses of the names.
pub(crate) async fn probe(
    challenges: &Path,
    address: Option<&str>,
    names: &Names,
) -> std::io::Result<ProbeResult> {
    let token = format!("linnet-probe-{:032x}", rand::random::<u128>());
    let content = format!("{:032x}", rand::random::<u128>());
    let _file = ChallengeFile::write(challenges, &token, &content)?;
    let end = Instant::now() + UNCLEAR_TIMEOUT;
    let probes = names.iter().map(async |name| {
        loop {
            let found = find(name, address, &token, &content).await;
            if !matches!(found, Found::Unknown(_)) || Instant::now() >= end {
                return (name, found);
            }
            sleep(AGAIN).await;
        }
    });
    let mut result = ProbeResult::default();
    for (name, found) in join_all(probes).await {
        match found {
            Found::Here => drop(result.usable.insert(name.clone())),
            Found::Elsewhere(problem) => result.problems.push(problem),
            Found::Unknown(reason) => {
                tracing::warn!(name = %name, reason, "name could not be probed; the CA decides");
                result.usable.insert(name.clone());
            }
        }
    }
    Ok(result)
}

async fn find(name: &DnsName, address: Option<&str>, token: &str, content: &str) -> Found {
    let target = address.map_or_else(|| format!("{name}:80"), str::to_owned);
    let addresses = match timeout(TIMEOUT, lookup_host(&target)).await {
        Ok(Ok(found)) => found.take(MAX_ADDRESSES).collect::<Vec<_>>(),
        Ok(Err(error)) if is_absent(&error) => {
            return Found::Elsewhere(format!("DNS has no address for {name}"));
        }
        Ok(Err(error)) => return Found::Unknown(error.to_string()),
        Err(_) => return Found::Unknown("the name server did not respond in time".to_owned()),
    };
    let mut best = Found::Unknown(format!("DNS returned no address for {name}"));
    for address in addresses {
        match timeout(TIMEOUT, ask(address, name, token)).await {
            Ok(Ok(response)) => match judge(&response, content) {
                // One address that leads elsewhere is enough for a CA to fail.
                Verdict::Other(what) => {
                    return Found::Elsewhere(format!(
                        "DNS of {name} does not point here: {} responded with {what}",
                        address.ip()
                    ));
                }
                Verdict::Ours => best = Found::Here,
                Verdict::Unclear => {}
            },
            Ok(Err(error)) if best != Found::Here => best = Found::Unknown(error.to_string()),
            Err(_) if best != Found::Here => {
                best = Found::Unknown(format!("{} did not respond in time", address.ip()));
            }
            _ => {}
        }
    }
    best
}

/// Whether the name does not exist, in contrast to a resolver that could not find out.
fn is_absent(error: &std::io::Error) -> bool {
    let text = error.to_string();
    ["Name or service not known", "No address associated with hostname", "Name does not resolve"]
        .iter()
        .any(|absent| text.contains(absent))
}

async fn ask(address: SocketAddr, name: &DnsName, token: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET /{CHALLENGE_PATH}/{token} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: linnet-acme\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut response).await?;
    Ok(response)
}

enum Verdict {
    Ours,
    Other(String),
    Unclear,
}

fn judge(response: &[u8], content: &str) -> Verdict {
    let text = String::from_utf8_lossy(response);
    let status = text.split(' ').nth(1).and_then(|status| status.get(..3));
    match status.map(str::parse::<u16>) {
        Some(Ok(200)) if text.trim_end().ends_with(content) => Verdict::Ours,
        Some(Ok(200)) => Verdict::Other("another content".to_owned()),
        // CAs follow redirects, and this installation's own nginx may be starting.
        Some(Ok(300..=399 | 500..=599)) => Verdict::Unclear,
        Some(Ok(status)) => Verdict::Other(format!("status {status}")),
        _ => Verdict::Other("no HTTP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(response: &str) -> &'static str {
        match judge(response.as_bytes(), "secret") {
            Verdict::Ours => "ours",
            Verdict::Other(_) => "other",
            Verdict::Unclear => "unclear",
        }
    }

    #[test]
    fn only_the_written_content_proves_that_a_name_leads_here() {
        assert_eq!(verdict("HTTP/1.1 200 OK\r\n\r\nsecret"), "ours");
        assert_eq!(verdict("HTTP/1.1 200 OK\r\n\r\nwelcome"), "other");
        assert_eq!(verdict("HTTP/1.1 404 Not Found\r\n\r\n"), "other");
        assert_eq!(verdict("SSH-2.0-OpenSSH_10.0\r\n"), "other");
        assert_eq!(verdict("HTTP/1.1 301 Moved\r\nLocation: https://x/\r\n\r\n"), "unclear");
        assert_eq!(verdict("HTTP/1.1 502 Bad Gateway\r\n\r\n"), "unclear");
    }

    #[test]
    fn a_token_cannot_leave_the_folder() {
        let root = tempfile::tempdir().unwrap();
        for token in ["", "../x", "a/b", "a.b"] {
            assert!(ChallengeFile::write(root.path(), token, "x").is_err(), "{token}");
        }
        let path = root.path().join(CHALLENGE_PATH).join("a-B_9");
        let file = ChallengeFile::write(root.path(), "a-B_9", "x").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_reported() {
        let name = "linnet-test.invalid".parse().unwrap();
        match find(&name, None, "t", "c").await {
            Found::Elsewhere(problem) => {
                assert_eq!(problem, "DNS has no address for linnet-test.invalid");
            }
            // Without a network, the resolver cannot find out.
            other => assert!(matches!(other, Found::Unknown(_)), "{other:?}"),
        }
    }
}
