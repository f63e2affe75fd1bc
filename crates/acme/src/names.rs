//! The DNS names that the certificate is for.

use std::{collections::BTreeSet, fmt, fs, io, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

/// Most names of one certificate: the limit of Let's Encrypt's profile `tlsserver`.
pub(crate) const MAX_NAMES: usize = 25;
/// Largest names file, in bytes: 25 names of the longest form, and comments.
const MAX_FILE_BYTES: u64 = 64 * 1024;
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// A set of names, in alphabetical order.
pub type Names = BTreeSet<DnsName>;

/// A DNS name in lower case, without a trailing dot. No wildcard, because HTTP-01 cannot prove one, and no IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DnsName(String);

/// The text is not a DNS name.
#[derive(Debug, thiserror::Error)]
#[error(
    "must be DNS names such as go.example.com (international names in the form xn--…, no wildcard, no address), not `{0}`"
)]
pub struct ParseNameError(String);

impl DnsName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DnsName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.trim().trim_end_matches('.').to_ascii_lowercase();
        let labels: Vec<&str> = name.split('.').collect();
        let is_address = labels.last().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        let is_name = (2..).contains(&labels.len())
            && name.len() <= MAX_NAME_BYTES
            && labels.iter().all(|label| is_label(label))
            && !is_address;
        if is_name { Ok(Self(name)) } else { Err(ParseNameError(text.to_owned())) }
    }
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Why a names file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamesFileError {
    /// It cannot be read.
    #[error("must be a readable file")]
    Unreadable(#[from] io::Error),
    /// It is larger than a list of names.
    #[error("must have at most {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// A line is not a name.
    #[error("line {0}")]
    Line(usize, #[source] ParseNameError),
}

/// Reads a file with one name a line. Blank lines and lines that begin with `#` are ignored.
pub(crate) fn read_file(path: &Path) -> Result<Names, NamesFileError> {
    if fs::metadata(path)?.len() > MAX_FILE_BYTES {
        return Err(NamesFileError::TooLarge);
    }
    let text = fs::read_to_string(path)?;
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| line.parse().map_err(|error| NamesFileError::Line(index + 1, error)))
        .collect()
}

/// The names, separated by commas.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a DnsName>) -> String {
    names.into_iter().map(DnsName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_lower_case_and_without_a_trailing_dot() {
        assert_eq!("Go.Example.COM.".parse::<DnsName>().unwrap().as_str(), "go.example.com");
        assert!("xn--bcher-kva.example".parse::<DnsName>().is_ok());
    }

    #[test]
    fn what_http_01_cannot_prove_is_refused() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = format!("{}example", "abcdefghi.".repeat(26));
        for text in [
            "",
            "localhost",
            "*.example.com",
            "192.0.2.1",
            "2001:db8::1",
            "a..example",
            "-a.example",
            "a-.example",
            "bücher.example",
            "a/b.example",
            "go.example.com/x",
            &long_label,
            &long_name,
        ] {
            let error = text.parse::<DnsName>().unwrap_err().to_string();
            assert!(error.starts_with("must be DNS names"), "{text}: {error}");
        }
    }

    #[test]
    fn a_names_file_may_have_comments_and_reports_the_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "# ours\n\nb.example.com\n  a.example.com\n").unwrap();
        let names = read_file(file.path()).unwrap();
        assert_eq!(listed(&names), "a.example.com, b.example.com");
        fs::write(file.path(), "a.example.com\n*.example.com\n").unwrap();
        assert!(read_file(file.path()).unwrap_err().to_string().starts_with("line 2"));
        fs::write(file.path(), "#".repeat(100_000)).unwrap();
        assert!(matches!(read_file(file.path()), Err(NamesFileError::TooLarge)));
    }
}
