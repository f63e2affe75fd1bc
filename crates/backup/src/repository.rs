//! Where backups go: a bucket, a disk, or a server with SFTP, as one URL.
//!
//! - `s3://BUCKET/PATH?endpoint=HOST[:PORT]&region=REGION[&style=path]`
//! - `file:///PATH`: a second disk, mounted there
//! - `sftp://USER@HOST[:PORT]/PATH`

use crate::BackupError;

const NAME: &str = "LINNET_BACKUP_REPOSITORY";

/// A parsed `LINNET_BACKUP_REPOSITORY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Repository {
    /// A bucket of S3 or of a compatible service, always over TLS.
    S3 {
        bucket: String,
        /// Begins with a slash.
        path: String,
        endpoint: String,
        port: u16,
        region: String,
        /// `https://ENDPOINT/BUCKET` instead of `https://BUCKET.ENDPOINT`.
        is_path_style: bool,
    },
    /// A folder, usually of a second disk.
    Disk { path: String },
    /// A folder of another machine.
    Sftp { user: String, host: String, port: u16, path: String },
}

impl Repository {
    /// Parses the URL.
    pub(crate) fn parse(url: &str) -> Result<Self, BackupError> {
        // The parts become lines of pgBackRest's configuration.
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) || url.contains(['#', '"', '\\']) {
            return Err(wrong(url, "contains a character that a URL cannot contain"));
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong(url, "has no scheme"))?;
        match scheme {
            "s3" => Self::s3(url, rest),
            "file" => Ok(Self::Disk { path: folder(url, rest)? }),
            "sftp" => Self::sftp(url, rest),
            _ => Err(wrong(url, "has an unknown scheme")),
        }
    }

    fn s3(url: &str, rest: &str) -> Result<Self, BackupError> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, path) = place.split_once('/').unwrap_or((place, ""));
        let (mut endpoint, mut region, mut is_path_style) = (None, None, false);
        for (name, value) in
            query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| pair.split_once('='))
        {
            match (name, value) {
                ("endpoint", value) => endpoint = Some(address(url, value, 443)?),
                ("region", value) if !value.is_empty() => region = Some(value.to_owned()),
                ("style", "path") => is_path_style = true,
                ("style", "host") => is_path_style = false,
                _ => {
                    return Err(wrong(url, &format!("has the unknown parameter `{name}={value}`")));
                }
            }
        }
        let (endpoint, port) = endpoint.ok_or_else(|| wrong(url, "lacks `?endpoint=HOST`"))?;
        let region = region.ok_or_else(|| wrong(url, "lacks `&region=REGION`"))?;
        if bucket.is_empty() {
            return Err(wrong(url, "has no bucket"));
        }
        Ok(Self::S3 {
            bucket: bucket.to_owned(),
            path: folder(url, &format!("/{path}"))?,
            endpoint,
            port,
            region,
            is_path_style,
        })
    }

    fn sftp(url: &str, rest: &str) -> Result<Self, BackupError> {
        let (user, rest) = rest.split_once('@').ok_or_else(|| wrong(url, "has no user"))?;
        let (place, path) = rest.split_once('/').ok_or_else(|| wrong(url, "has no path"))?;
        let (host, port) = address(url, place, 22)?;
        Ok(Self::Sftp {
            user: user.to_owned(),
            host,
            port,
            path: folder(url, &format!("/{path}"))?,
        })
    }
}

fn wrong(url: &str, problem: &str) -> BackupError {
    BackupError::setting(
        NAME,
        format!(
            "{problem}: `{url}`; it must be s3://BUCKET/PATH?endpoint=HOST&region=REGION, file:///PATH or \
             sftp://USER@HOST/PATH"
        ),
    )
}

fn address(url: &str, text: &str, default: u16) -> Result<(String, u16), BackupError> {
    let (host, port) = match text.split_once(':') {
        None => (text, default),
        Some((host, port)) => (host, port.parse().map_err(|_| wrong(url, "has a wrong port"))?),
    };
    if host.is_empty() { Err(wrong(url, "has no host")) } else { Ok((host.to_owned(), port)) }
}

/// A path without a slash at its end. It must not be the root, which may contain other things.
fn folder(url: &str, path: &str) -> Result<String, BackupError> {
    let path = path.trim_end_matches('/');
    if !path.starts_with('/')
        || path.split('/').skip(1).any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err(wrong(url, "needs a path such as /linnet"));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_each_kind() {
        assert_eq!(
            Repository::parse("s3://b/linnet?endpoint=s3.example.com:9443&region=eu&style=path")
                .unwrap(),
            Repository::S3 {
                bucket: "b".into(),
                path: "/linnet".into(),
                endpoint: "s3.example.com".into(),
                port: 9443,
                region: "eu".into(),
                is_path_style: true
            }
        );
        assert_eq!(
            Repository::parse("file:///mnt/disk/").unwrap(),
            Repository::Disk { path: "/mnt/disk".into() }
        );
        assert_eq!(
            Repository::parse("sftp://u@host/backup/linnet").unwrap(),
            Repository::Sftp {
                user: "u".into(),
                host: "host".into(),
                port: 22,
                path: "/backup/linnet".into()
            }
        );
    }

    #[test]
    fn names_what_a_wrong_url_lacks() {
        for (url, problem) in [
            ("/mnt/disk", "has no scheme"),
            ("ftp://h/p", "has an unknown scheme"),
            ("s3://b/p", "lacks `?endpoint=HOST`"),
            ("s3://b/p?endpoint=h", "lacks `&region=REGION`"),
            ("s3://b/p?endpoint=h&region=r&tls=no", "has the unknown parameter `tls=no`"),
            ("s3://b?endpoint=h&region=r", "needs a path such as /linnet"),
            ("s3:///p?endpoint=h&region=r", "has no bucket"),
            ("sftp://host/p", "has no user"),
            ("sftp://u@host:x/p", "has a wrong port"),
            ("file:///a/../b", "needs a path such as /linnet"),
            ("file:///a\nrepo1-cipher-type=none", "contains a character that a URL cannot contain"),
        ] {
            let error = Repository::parse(url).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{NAME} {problem}")), "{url}: {error}");
        }
    }
}
