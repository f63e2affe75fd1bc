//! The settings: environment variables `LINNET_BACKUP_…`, and secrets as files.

use std::{
    env, fs,
    net::{SocketAddr, ToSocketAddrs},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use crate::{BackupError, repository::Repository};

/// The settings of the program.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where backups go.
    pub(crate) repository: Repository,
    /// Folder of the secrets.
    pub(crate) secrets: PathBuf,
    /// PostgreSQL's folder.
    pub(crate) data: PathBuf,
    /// Folder of PostgreSQL's socket.
    pub(crate) socket: PathBuf,
    /// Folder into which PostgreSQL archives WAL segments.
    pub(crate) archive: PathBuf,
    /// Folder of locks, results and scratch databases; all containers share it.
    pub(crate) state: PathBuf,
    /// Folder of PostgreSQL's programs.
    pub(crate) postgres_bin: PathBuf,
    /// The shortener's program, for restore tests.
    pub(crate) shortener: PathBuf,
    /// Address of the metrics.
    pub(crate) listen: SocketAddr,
    /// Age at which a new full backup is due.
    pub(crate) full: Duration,
    /// Age of the newest backup at which a differential one is due.
    pub(crate) differential: Duration,
    /// Age of the last restore test at which the next one is due.
    pub(crate) restore_test: Duration,
    /// Hour of the day, UTC, in which scheduled jobs begin.
    pub(crate) hour: u32,
    /// Full backups to keep, with all WAL since the oldest of them.
    pub(crate) keep_full: u32,
    /// Longest time of a backup, a restore, or a restore test.
    pub(crate) job_limit: Duration,
}

/// One day in seconds.
const DAY_S: u64 = 86_400;

impl Settings {
    /// Reads the environment. The first wrong variable is the error.
    pub(crate) fn from_environment() -> Result<Self, BackupError> {
        Self::read(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, BackupError> {
        let text = |name: &str, default: &str| variable(name).unwrap_or_else(|| default.to_owned());
        let path = |name: &str, default: &str| PathBuf::from(text(name, default));
        let seconds = |name: &str, default: u64| {
            number(name, variable(name), default, &(60..=366 * DAY_S)).map(Duration::from_secs)
        };
        let listen = text("LINNET_BACKUP_LISTEN", "0.0.0.0:9085");
        Ok(Self {
            repository: Repository::parse(&text("LINNET_BACKUP_REPOSITORY", "file:///repository"))?,
            secrets: path("LINNET_BACKUP_SECRETS", "/run/secrets"),
            data: path("LINNET_BACKUP_DATA_DIR", "/var/lib/postgresql/data"),
            socket: path("LINNET_BACKUP_SOCKET_DIR", "/var/run/postgresql"),
            archive: path("LINNET_BACKUP_ARCHIVE_DIR", "/var/lib/linnet/archive"),
            state: path("LINNET_BACKUP_STATE_DIR", "/var/lib/linnet/backup"),
            postgres_bin: path("LINNET_BACKUP_POSTGRES_BIN", "/usr/lib/postgresql/17/bin"),
            shortener: path("LINNET_BACKUP_SHORTENER", "/usr/local/bin/linnet-shortener"),
            listen: listen.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(
                || {
                    BackupError::setting(
                        "LINNET_BACKUP_LISTEN",
                        format!("must be an address and a port, not `{listen}`"),
                    )
                },
            )?,
            full: seconds("LINNET_BACKUP_FULL_S", 7 * DAY_S)?,
            differential: seconds("LINNET_BACKUP_DIFFERENTIAL_S", DAY_S)?,
            restore_test: seconds("LINNET_BACKUP_RESTORE_TEST_S", 7 * DAY_S)?,
            hour: number("LINNET_BACKUP_HOUR", variable("LINNET_BACKUP_HOUR"), 3, &(0..=23))?,
            keep_full: number(
                "LINNET_BACKUP_KEEP_FULL",
                variable("LINNET_BACKUP_KEEP_FULL"),
                4,
                &(1..=1_000),
            )?,
            job_limit: seconds("LINNET_BACKUP_JOB_LIMIT_S", 4 * 3_600)?,
        })
    }

    /// A secret's text without its line break, or `None` if its file is absent or empty.
    pub(crate) fn optional_secret(&self, name: &str) -> Result<Option<String>, BackupError> {
        let path = self.secrets.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let text = text.trim_end_matches(['\r', '\n']).to_owned();
                if text.contains(['\r', '\n']) {
                    return Err(BackupError::setting(
                        path.display().to_string(),
                        "must be one line",
                    ));
                }
                Ok((!text.is_empty()).then_some(text))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BackupError::file(path)(error)),
        }
    }

    /// A secret's text. Its absence is an error that names the file.
    pub(crate) fn secret(&self, name: &str) -> Result<String, BackupError> {
        self.optional_secret(name)?.ok_or_else(|| {
            let path = self.secrets.join(name);
            BackupError::setting(
                path.display().to_string(),
                "is missing or empty; write the secret into it",
            )
        })
    }

    /// Folder of the database that a restore test makes.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.state.join("scratch")
    }

    /// Folder of the segments that pgBackRest fetches ahead while a restored database replays WAL.
    pub(crate) fn spool(&self) -> PathBuf {
        self.state.join("spool")
    }

    /// The folder in which a restore prepares the database, beside the present one and on its disk.
    pub(crate) fn prepared(&self) -> PathBuf {
        self.data.join("linnet-restore")
    }
}

fn number<N>(
    name: &str,
    text: Option<String>,
    default: N,
    range: &RangeInclusive<N>,
) -> Result<N, BackupError>
where
    N: FromStr + PartialOrd + std::fmt::Display,
{
    let Some(text) = text else { return Ok(default) };
    match text.parse::<N>() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(BackupError::setting(
            name,
            format!(
                "must be a whole number from {} to {}, not `{text}`",
                range.start(),
                range.end()
            ),
        )),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The default settings with folders below `root`.
    pub(crate) fn below(root: &std::path::Path) -> Settings {
        let mut settings = Settings::read(|_| None).unwrap();
        settings.secrets = root.join("secrets");
        settings.data = root.join("data");
        settings.archive = root.join("archive");
        settings.state = root.join("state");
        for folder in [&settings.secrets, &settings.data, &settings.archive, &settings.state] {
            fs::create_dir_all(folder).unwrap();
        }
        settings
    }

    #[test]
    fn wrong_number_names_variable_and_range() {
        let error = Settings::read(|name| (name == "LINNET_BACKUP_HOUR").then(|| "24".to_owned()))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "LINNET_BACKUP_HOUR must be a whole number from 0 to 23, not `24`"
        );
    }

    #[test]
    fn secret_is_one_line() {
        let root = tempfile::tempdir().unwrap();
        let settings = below(root.path());
        assert!(
            settings.secret("a").unwrap_err().to_string().ends_with("write the secret into it")
        );
        fs::write(settings.secrets.join("a"), "x\n").unwrap();
        assert_eq!(settings.secret("a").unwrap(), "x");
        // A second line could add an option to pgBackRest's configuration.
        fs::write(settings.secrets.join("a"), "x\nlog-level-file=debug").unwrap();
        assert!(settings.secret("a").unwrap_err().to_string().ends_with("must be one line"));
    }
}
