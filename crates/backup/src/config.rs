//! pgBackRest's configuration file, which contains the secrets.
//!
//! It is written for each process into its own temporary folder, mode 0600. Command lines, which other processes can
//! read, contain no secret.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::{BackupError, repository::Repository, settings::Settings};

/// Name of the database cluster in the repository.
pub(crate) const STANZA: &str = "linnet";

/// The configuration files of one process.
#[derive(Debug)]
pub(crate) struct Files {
    /// Repository and database.
    pub(crate) full: PathBuf,
    /// Only the repository: segments must reach it when the database is gone, too.
    pub(crate) repository: PathBuf,
}

/// Writes the configuration.
pub(crate) fn write(settings: &Settings) -> Result<Files, BackupError> {
    let repository = render(settings)?;
    let database = format!(
        "spool-path={}\n\n[{STANZA}]\npg1-path={}\npg1-socket-path={}\npg1-user=postgres\n\
         \n# A connection for each segment would cost more than its replay, and a day has up to 2,880.\n\
         [global:archive-get]\narchive-async=y\narchive-get-queue-max=256MiB\nprocess-max=2\n",
        settings.spool().display(),
        settings.data.display(),
        settings.socket.display()
    );
    let folder = std::env::temp_dir().join(format!("linnet-backup-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(BackupError::file(&folder))?;
    let files =
        Files { full: folder.join("pgbackrest.conf"), repository: folder.join("repository.conf") };
    write_file(&files.full, &(repository.clone() + &database))?;
    write_file(&files.repository, &repository)?;
    Ok(files)
}

fn write_file(path: &Path, text: &str) -> Result<(), BackupError> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(BackupError::file(path))?;
    file.write_all(text.as_bytes()).map_err(BackupError::file(path))
}

fn render(settings: &Settings) -> Result<String, BackupError> {
    let passphrase = settings.secret("backup_passphrase")?;
    if passphrase.len() < 20 {
        return Err(BackupError::setting(
            settings.secrets.join("backup_passphrase").display().to_string(),
            "must have at least 20 characters",
        ));
    }
    let mut text = String::from("[global]\n");
    let mut option = |name: &str, value: &str| {
        // Writing to memory cannot fail.
        let _ = writeln!(text, "{name}={value}");
    };
    repository_options(settings, &mut option)?;
    option("repo1-cipher-type", "aes-256-cbc");
    option("repo1-cipher-pass", &passphrase);
    option("repo1-bundle", "y");
    option("repo1-block", "y");
    option("repo1-retention-full-type", "count");
    option("repo1-retention-full", &settings.keep_full.to_string());
    option("compress-type", "zst");
    option("compress-level", "3");
    // One process: the sidecar has little memory, and the service needs the processors.
    option("process-max", "1");
    option("start-fast", "y");
    option("archive-async", "n");
    option("archive-timeout", "120");
    // A request that hangs fails within this time, in seconds, and is repeated.
    option("io-timeout", "30");
    option("log-level-console", "warn");
    option("log-level-file", "off");
    option("lock-path", "/tmp/pgbackrest");
    Ok(text)
}

fn repository_options(
    settings: &Settings,
    option: &mut impl FnMut(&str, &str),
) -> Result<(), BackupError> {
    match &settings.repository {
        Repository::S3 { bucket, path, endpoint, port, region, is_path_style } => {
            option("repo1-type", "s3");
            option("repo1-path", path);
            option("repo1-s3-bucket", bucket);
            option("repo1-s3-endpoint", endpoint);
            option("repo1-storage-port", &port.to_string());
            option("repo1-s3-region", region);
            option("repo1-s3-uri-style", if *is_path_style { "path" } else { "host" });
            option("repo1-s3-key", &settings.secret("backup_s3_key")?);
            option("repo1-s3-key-secret", &settings.secret("backup_s3_secret")?);
            // The CA file of a private service; without it, the system's CAs are trusted.
            let ca = settings.secrets.join("backup_ca");
            if fs::metadata(&ca).is_ok_and(|file| file.len() > 0) {
                option("repo1-storage-ca-file", &ca.display().to_string());
            }
        }
        Repository::Disk { path } => {
            option("repo1-type", "posix");
            option("repo1-path", path);
        }
        Repository::Sftp { user, host, port, path } => {
            option("repo1-type", "sftp");
            option("repo1-path", path);
            option("repo1-sftp-host", host);
            option("repo1-sftp-host-port", &port.to_string());
            option("repo1-sftp-host-user", user);
            option(
                "repo1-sftp-private-key-file",
                &settings.secrets.join("backup_sftp_key").display().to_string(),
            );
            option("repo1-sftp-host-key-hash-type", "sha256");
            option("repo1-sftp-host-key-check-type", "fingerprint");
            option("repo1-sftp-host-fingerprint", &settings.secret("backup_sftp_host_key")?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::below;

    #[test]
    fn secrets_are_in_a_private_file_only() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let settings = below(root.path());
        assert!(render(&settings).unwrap_err().to_string().contains("backup_passphrase"));
        fs::write(settings.secrets.join("backup_passphrase"), "too short").unwrap();
        assert!(
            render(&settings)
                .unwrap_err()
                .to_string()
                .ends_with("must have at least 20 characters")
        );
        fs::write(settings.secrets.join("backup_passphrase"), "0123456789abcdef0123\n").unwrap();
        let files = write(&settings).unwrap();
        assert_eq!(fs::metadata(&files.full).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&files.repository).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&files.repository).unwrap().contains("pg1-path"));
        let text = fs::read_to_string(&files.full).unwrap();
        assert!(text.contains("\nrepo1-cipher-pass=0123456789abcdef0123\n"), "{text}");
        assert!(text.contains("repo1-type=posix\nrepo1-path=/repository\n"), "{text}");
        fs::remove_dir_all(files.full.parent().unwrap()).unwrap();
    }

    #[test]
    fn bucket_needs_both_keys() {
        let root = tempfile::tempdir().unwrap();
        let mut settings = below(root.path());
        settings.repository = Repository::parse("s3://b/linnet?endpoint=h&region=r").unwrap();
        fs::write(settings.secrets.join("backup_passphrase"), "0123456789abcdef0123\n").unwrap();
        fs::write(settings.secrets.join("backup_s3_key"), "key").unwrap();
        assert!(render(&settings).unwrap_err().to_string().contains("backup_s3_secret"));
        fs::write(settings.secrets.join("backup_s3_secret"), "secret").unwrap();
        fs::write(settings.secrets.join("backup_ca"), "").unwrap();
        assert!(!render(&settings).unwrap().contains("ca-file"));
    }
}
