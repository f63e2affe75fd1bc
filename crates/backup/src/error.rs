//! Failures, as sentences that name the way out.

use std::{io, path::PathBuf, time::Duration};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A setting is missing or wrong.
    #[error("{name} {problem}")]
    Setting {
        /// The environment variable or file.
        name: String,
        /// The fault, and the values that are allowed.
        problem: String,
    },
    /// A file or folder cannot be read or written.
    #[error("{path}: {source}{way}", path = path.display(), way = way_out(source))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A program cannot be started.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// The program's name.
        program: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A program ran longer than it may, and was killed.
    #[error("{program} did not finish within {} s and was killed", limit.as_secs())]
    TimedOut {
        /// The program's name with its command.
        program: String,
        /// Its time limit.
        limit: Duration,
    },
    /// A program failed.
    #[error("{program} failed with code {code}: {reason}")]
    Failed {
        /// The program's name with its command.
        program: String,
        /// Its exit code, or -1 if a signal ended it.
        code: i32,
        /// Its output, or the meaning of the code.
        reason: String,
    },
    /// Another process runs a job.
    #[error(
        "another backup, restore or restore test is in progress; try again when it has finished"
    )]
    Busy,
    /// pgBackRest printed something that cannot be read.
    #[error("{what} cannot be read: {reason}")]
    Unreadable {
        /// The input.
        what: &'static str,
        /// Why it cannot be read.
        reason: String,
    },
    /// The repository has no backup that fits.
    #[error("{0}")]
    NoBackup(String),
    /// A check of a restored database failed.
    #[error("{0}")]
    Check(String),
    /// A restore is refused, to protect data.
    #[error("{0}")]
    Refused(String),
}

/// The way out of an error of the system, if its text does not name it.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free space on its disk",
        io::ErrorKind::ReadOnlyFilesystem => "; its disk is read-only, and `dmesg` has the reason",
        io::ErrorKind::PermissionDenied => {
            "; make the sidecar's user, 999, its owner, with the mode 700 for a folder"
        }
        _ => "",
    }
}

impl BackupError {
    /// The exit code of a command that ends with this error: 64 for wrong usage or settings, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Setting { .. } => 64,
            _ => 1,
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    pub(crate) fn setting(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Setting { name: name.into(), problem: problem.into() }
    }
}

/// The meaning of a failure of pgBackRest, by its exit code and output. The codes are part of its interface.
pub(crate) fn explain(code: i32, output: &str) -> String {
    let hint = match code {
        26 => {
            "a file in the repository or in the database is damaged; restore from an earlier backup, and take a new full one"
        }
        28 | 44 | 51
            if output.contains("system")
                || output.contains("do not match")
                || output.contains("stanza") =>
        {
            "the repository belongs to another database; restore from it, or choose an empty path in LINNET_BACKUP_REPOSITORY"
        }
        95 => {
            "the passphrase (secret backup_passphrase) does not open the repository; use the one that it was created with"
        }
        38 => "PostgreSQL still runs; stop it first",
        40 => "PostgreSQL's folder is not empty and holds no database; empty it first",
        49 | 92 => {
            "the repository cannot be reached; check LINNET_BACKUP_REPOSITORY and the network"
        }
        56 => "PostgreSQL cannot be reached; check that it runs",
        75 => {
            "no backup ended before the target time; choose a later one (`linnet-backup status` lists the backups)"
        }
        82 => {
            "a WAL segment did not reach the repository in time; check the archive backlog (`linnet-backup status`)"
        }
        103 | 55 if output.contains("backup.info") || output.contains("archive.info") => {
            "the repository holds no backup for this path and passphrase"
        }
        _ if output.contains("HostConnectError") => {
            "the repository cannot be reached; check LINNET_BACKUP_REPOSITORY and the network"
        }
        // One wrong passphrase in 256 yields valid padding, and then text without a form.
        _ if output.contains("CryptoError")
            || output.contains("is or was the repo encrypted")
            || (output.contains("unable to load info file") && output.contains("FormatError")) =>
        {
            "the passphrase (secret backup_passphrase) does not open the repository; use the one that it was created with"
        }
        _ if output.contains("AccessDenied") || output.contains("403 (Forbidden)") => {
            "the key (secrets backup_s3_key, backup_s3_secret) has no right to do this in the bucket; grant it \
             listing, reading and writing"
        }
        101 => hint_of_sftp(output),
        _ if output.contains("No space left on device") => "the disk is full; free space",
        _ => "",
    };
    let detail = summary(output);
    match (hint.is_empty(), detail.is_empty()) {
        (false, false) => format!("{hint} ({detail})"),
        (false, true) => hint.to_owned(),
        (true, false) => detail,
        (true, true) => "no output".to_owned(),
    }
}

fn hint_of_sftp(output: &str) -> &'static str {
    if output.contains("fingerprint") {
        "the server's host key is not the one of the secret backup_sftp_host_key; if it was replaced, write the SHA-256 \
         of its new key into the secret, otherwise do not connect"
    } else if output.contains("authentication failed") {
        "the server does not accept the key of the secret backup_sftp_key; add its public half to the user's \
         authorized_keys there"
    } else {
        ""
    }
}

/// The first error of pgBackRest's output in one line of at most 300 characters; without one, the last line.
fn summary(output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = lines
        .iter()
        .find(|line| line.contains("ERROR:") || line.contains("FATAL:"))
        .or(lines.last())
        .copied()
        .unwrap_or_default();
    let text = line.split_once("ERROR: ").map_or(line, |(_, after)| after);
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_passphrase_names_the_secret() {
        let text = explain(95, "ERROR: [095]: unable to flush\n");
        assert!(text.contains("backup_passphrase"), "{text}");
        assert!(text.ends_with("([095]: unable to flush)"), "{text}");
    }

    #[test]
    fn wrong_passphrase_is_found_by_the_text_of_lists() {
        let output = "[FormatError] unable to load info file 'a':\nFormatError: key/value found outside of section";
        assert!(explain(0, output).contains("backup_passphrase"));
    }

    #[test]
    fn key_without_rights_names_the_rights() {
        let output =
            "ERROR: [039]: HTTP request failed with 403 (Forbidden):\n <Code>AccessDenied</Code>";
        assert!(explain(39, output).contains("listing, reading and writing"));
    }

    #[test]
    fn server_with_sftp_names_the_secret_of_the_key_that_is_wrong() {
        let text = explain(
            101,
            "ERROR: [101]: host [a] and configured fingerprint (repo-sftp-host-fingerprint) [b] do not match",
        );
        assert!(text.contains("backup_sftp_host_key"), "{text}");
        let text =
            explain(101, "ERROR: [101]: public key authentication failed: libssh2 error [-18]");
        assert!(text.contains("secret backup_sftp_key"), "{text}");
    }

    #[test]
    fn file_that_cannot_be_written_names_the_way_out() {
        let text = |kind: io::ErrorKind| BackupError::file("/repository")(kind.into()).to_string();
        assert!(text(io::ErrorKind::StorageFull).contains("free space"));
        assert!(text(io::ErrorKind::PermissionDenied).contains("user, 999"));
        assert!(text(io::ErrorKind::ReadOnlyFilesystem).contains("dmesg"));
        assert!(!text(io::ErrorKind::NotFound).contains(';'));
    }

    #[test]
    fn unknown_failure_keeps_the_last_line() {
        assert_eq!(explain(1, "one\n\ntwo\n"), "two");
        assert_eq!(explain(1, ""), "no output");
    }

    #[test]
    fn wrong_settings_exit_with_64() {
        assert_eq!(BackupError::setting("A", "is wrong").exit_code(), 64);
        assert_eq!(BackupError::Busy.exit_code(), 1);
    }
}
