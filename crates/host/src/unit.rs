//! The transient unit in which the installation changes, and the locks of verbs that act beside it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    attempt,
    command::run,
    error::HostError,
    paths,
    plan::{Occupation, occupation},
    state::{State, now},
};

/// Longest wait for a deployment that tidies. It took 8 s on a busy server.
const TIDY_LIMIT: Duration = Duration::from_secs(30);

/// A lock of verbs. It ends with the process, however that dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Releases are prepared or tidied: two callers that prepare at once would both see no unit.
    Prepare,
    /// The unit is started or stopped, or containers change outside it.
    Change,
}

/// Takes the lock; [`HostError::Busy`] if another process has it.
pub fn lock(which: Lock) -> Result<File, HostError> {
    let (path, reason) = match which {
        Lock::Prepare => ("/run/linnet-host.lock", "another one is being prepared"),
        Lock::Change => ("/run/linnet-host-change.lock", "another command changes containers"),
    };
    let failed = |error| HostError::File(path.into(), error);
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(HostError::Busy(reason.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Takes the lock of preparations. A deployment that has ended tidies for some seconds, and that is no reason to refuse the
/// next one.
pub fn lock_to_prepare() -> Result<File, HostError> {
    let deadline = Instant::now() + TIDY_LIMIT;
    loop {
        match lock(Lock::Prepare) {
            Err(HostError::Busy(_)) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(200));
            }
            result => return result,
        }
    }
}

/// Whether the unit runs.
pub fn is_active() -> bool {
    may_run(&run("systemctl", &["is-active", "--quiet", paths::UNIT], 10))
}

/// Without an answer, as on a server without processor time, it may run: a client must not report its end, nor start another.
const fn may_run(result: &Result<String, HostError>) -> bool {
    matches!(result, Ok(_) | Err(HostError::Timeout(..)))
}

/// The use of the installation now. A unit whose deployment has ended tidies for some seconds, which is waited for.
pub fn occupied() -> Result<Occupation, HostError> {
    let deadline = Instant::now() + TIDY_LIMIT;
    loop {
        let state = State::read()?;
        let (open, is_active, is_restore_open) =
            (state.open()?, is_active(), state.is_restore_open());
        let tidies = is_active && open.is_none() && !is_restore_open && !attempt::is_open()?;
        if !tidies || Instant::now() >= deadline {
            return Ok(occupation(open.as_ref(), is_active, is_restore_open));
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Stops the unit. Each step of a deployment can be interrupted.
pub fn stop() -> Result<(), HostError> {
    run("systemctl", &["stop", paths::UNIT], 30).map(drop)
}

/// Starts the unit with the arguments of `linnet-host run`. Returns the time before, in seconds since 1970.
pub fn start(program: &str, arguments: &[&str]) -> Result<u64, HostError> {
    let began = now();
    let unit = format!("--unit={}", paths::UNIT);
    let mut all = vec![
        "--collect",
        "--quiet",
        &unit,
        "--property=KillMode=mixed",
        "--property=TimeoutStopSec=5",
    ];
    // Requests come first: a deployment only takes longer. While a rollback takes longer, they get the wrong release.
    if arguments.first() != Some(&"rollback") {
        all.extend(["--property=Nice=10", "--property=CPUWeight=20"]);
    }
    all.extend([program, "run"]);
    all.extend(arguments);
    run("systemd-run", &all, 30).map(|_| began).map_err(|error| {
        if error.to_string().contains("already") {
            HostError::Busy("another one started first".to_owned())
        } else {
            error
        }
    })
}

/// The program of the release that was being deployed, which knows its steps.
pub fn program_of_open(state: &State) -> String {
    let folder =
        state.installation.open.as_ref().map(|id| format!("{}/{id}/linnet-host", paths::RELEASES));
    folder.filter(|path| Path::new(path).exists()).unwrap_or_else(|| paths::PROGRAM.to_owned())
}

/// Prints the journal of the unit, from `since` in seconds since 1970, until `is_done`.
pub fn follow_journal(
    since: u64,
    mut is_done: impl FnMut() -> Result<bool, HostError>,
) -> Result<(), HostError> {
    let failed = |error| HostError::File("journalctl".into(), error);
    // Lines of the program only, not of systemd about the unit.
    let since = format!("--since=@{since}");
    let mut journal = Command::new("journalctl")
        .args(["--follow", "--output=cat", &since, "_SYSTEMD_UNIT=linnet-deploy.service"])
        .stdin(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let result = loop {
        thread::sleep(Duration::from_millis(300));
        match is_done() {
            Ok(false) => {}
            Ok(true) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // The journal writes with a delay.
    thread::sleep(Duration::from_millis(700));
    let _ = journal.kill();
    let _ = journal.wait();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_without_a_state_counts_as_running() {
        assert!(may_run(&Ok(String::new())));
        assert!(may_run(&Err(HostError::Timeout("systemctl".to_owned(), 10))));
        let inactive =
            HostError::Command { command: "systemctl".to_owned(), detail: String::new() };
        assert!(!may_run(&Err(inactive)));
    }
}
