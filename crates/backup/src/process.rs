//! Child processes with a timeout.

use std::{
    io::{self, Read},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::BackupError;

/// Most bytes of a child's output that are kept; the rest is read and dropped.
const OUTPUT_BYTES: usize = 4 << 20;

/// A child's output and exit code.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Exit code, or -1 if a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Both outputs, for messages.
    pub(crate) fn output(&self) -> String {
        format!("{}\n{}", self.stderr, self.stdout)
    }
}

/// Runs the command and waits for its end, at most `limit`; then it is killed. `name` names it in errors.
pub(crate) fn run(
    name: &str,
    command: &mut Command,
    limit: Duration,
) -> Result<Finished, BackupError> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| BackupError::Start { program: name.to_owned(), source })?;
    let (sender, receiver) = mpsc::channel();
    let stdout = child.stdout.take().map(|pipe| collect(pipe, sender.clone()));
    let stderr = child.stderr.take().map(|pipe| collect(pipe, sender));
    // Both pipes close when the child and its children have ended.
    let deadline = std::time::Instant::now() + limit;
    for _ in 0..2 {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        if receiver.recv_timeout(left).is_err() {
            // The child has ended already if only one of its own children still has the pipe.
            drop(child.kill());
            drop(child.wait());
            return Err(BackupError::TimedOut { program: name.to_owned(), limit });
        }
    }
    let status =
        child.wait().map_err(|source| BackupError::Start { program: name.to_owned(), source })?;
    let text = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        let bytes = reader.and_then(|thread| thread.join().ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Finished { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) })
}

fn collect(
    mut pipe: impl Read + Send + 'static,
    done: mpsc::Sender<()>,
) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        let mut piece = [0; 8_192];
        loop {
            match pipe.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => {
                    let room = OUTPUT_BYTES.saturating_sub(kept.len()).min(length);
                    kept.extend(piece.iter().take(room));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // The receiver is gone if the child was killed.
        let _ = done.send(());
        kept
    })
}

/// The same, where every exit code but 0 is an error whose reason is the output.
pub(crate) fn run_checked(
    name: &str,
    command: &mut Command,
    limit: Duration,
) -> Result<String, BackupError> {
    let finished = run(name, command, limit)?;
    if finished.code == 0 {
        return Ok(finished.stdout);
    }
    let output = finished.output();
    let reason =
        output.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no output");
    Err(BackupError::Failed {
        program: name.to_owned(),
        code: finished.code,
        reason: reason.chars().take(300).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn keeps_code_and_both_outputs() {
        let finished =
            run("sh", &mut shell("echo a; echo b >&2; exit 7"), Duration::from_secs(10)).unwrap();
        assert_eq!(
            (finished.code, finished.stdout.as_str(), finished.stderr.as_str()),
            (7, "a\n", "b\n")
        );
    }

    #[test]
    fn kills_what_exceeds_its_limit() {
        let started = std::time::Instant::now();
        let error = run("sh", &mut shell("exec sleep 60"), Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, BackupError::TimedOut { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn failed_program_gives_its_last_line_as_reason() {
        let error = run_checked(
            "sh",
            &mut shell("echo one; echo two >&2; exit 3"),
            Duration::from_secs(10),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "sh failed with code 3: one");
    }

    #[test]
    fn missing_program_is_named() {
        let error = run("nothing", &mut Command::new("/no/such/program"), Duration::from_secs(1))
            .unwrap_err();
        assert!(error.to_string().starts_with("nothing cannot be started"), "{error}");
    }
}
