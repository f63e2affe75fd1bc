//! The faults of the server. Each message is one sentence with the way out.

use std::{io, path::PathBuf};

/// A fault, worded for the operator.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The command line or the command of the restricted key is not one of the verbs.
    #[error("{0}")]
    Usage(String),
    /// `init` has not run.
    #[error("this server is not prepared; run `deploy.sh init` first")]
    NotPrepared,
    /// A file could not be read or written.
    #[error("{0}: {1}{way}", way = way_out(.1))]
    File(PathBuf, #[source] io::Error),
    /// A file of ours does not have the expected form.
    #[error("{0} is damaged ({1}); correct it by hand, and check the disk with `dmesg`")]
    Damaged(PathBuf, #[source] serde_json::Error),
    /// The settings of the server do not have the expected form.
    #[error("{0} is not valid: {1}; correct this line, or remove the setting")]
    Settings(PathBuf, #[source] serde_json::Error),
    /// A command failed.
    #[error("`{command}` failed: {detail}")]
    Command {
        /// Its name and first arguments.
        command: String,
        /// The end of what it printed.
        detail: String,
    },
    /// A command did not end in time.
    #[error(
        "`{0}` did not end within {1} s; `uptime` and `docker ps` show whether the server is overloaded or Docker hangs"
    )]
    Timeout(String, u64),
    /// A deployment is running.
    #[error(
        "a deployment is already running ({0}); follow it with `deploy.sh status`, or end it with `deploy.sh rollback`"
    )]
    Busy(String),
    /// A deployment keeps its old color warm.
    #[error(
        "{0} keeps the old color for a fast rollback; repeat this when `deploy.sh status` shows no open deployment"
    )]
    Warm(String),
    /// A deployment was interrupted.
    #[error(
        "the deployment {0} was interrupted; end it with `deploy.sh resume` or `deploy.sh rollback` first"
    )]
    Interrupted(String),
    /// A restore is running.
    #[error("a restore is running; follow it with `deploy.sh resume`, and repeat this afterwards")]
    Restoring,
    /// A restore was interrupted.
    #[error(
        "a restore was interrupted and may have left the service stopped; complete it with `deploy.sh resume`, or repeat it"
    )]
    RestoreInterrupted,
    /// A check before the deployment found a problem.
    #[error("{0}")]
    Refused(String),
    /// A step failed.
    #[error("{0}")]
    Step(String),
    /// A release did not answer as expected.
    #[error("{0}")]
    Unhealthy(String),
}

/// The way out of an error of the system, if its text does not name it.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; find what fills the disk with `df -h` and `docker system df`, and repeat this"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; the disk is read-only: `dmesg` has the reason",
        io::ErrorKind::PermissionDenied => "; run it with sudo",
        _ => "",
    }
}

impl HostError {
    /// The exit code of the program, as in `sysexits.h` where it has one.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Busy(_)
            | Self::Warm(_)
            | Self::Interrupted(_)
            | Self::Restoring
            | Self::RestoreInterrupted => 75,
            Self::NotPrepared | Self::Refused(_) | Self::Settings(..) => 69,
            _ => 1,
        }
    }
}
