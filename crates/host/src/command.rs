//! Runs programs of the server, each with a timeout. No shell is involved.

use std::{
    io::{Read, Write as _},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::error::HostError;

/// How often the end of a program is checked.
const POLL: Duration = Duration::from_millis(20);
/// The end of a program's messages that an error shows, in characters.
const DETAIL_CHARS: usize = 600;

/// Runs the program and returns its standard output, without blanks at the end.
pub fn run(program: &str, arguments: &[&str], seconds: u64) -> Result<String, HostError> {
    run_with_input(program, arguments, "", seconds)
}

/// Runs the program with a text as its standard input.
pub fn run_with_input(
    program: &str,
    arguments: &[&str],
    input: &str,
    seconds: u64,
) -> Result<String, HostError> {
    let name = name_of(program, arguments);
    let failed = |detail: String| HostError::Command { command: name.clone(), detail };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input reports its own error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.stdout.take().map(reader);
    let errors = child.stderr.take().map(reader);
    let status = wait(&mut child, seconds).ok_or_else(|| {
        let _ = child.kill();
        let _ = child.wait();
        HostError::Timeout(name.clone(), seconds)
    })?;
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    let (output, errors) = (text(output), text(errors));
    if status.is_ok_and(|status| status.success()) {
        return Ok(output.trim_end().to_owned());
    }
    let all = if errors.trim().is_empty() { output } else { errors };
    Err(failed(end_of(all.trim())))
}

fn name_of(program: &str, arguments: &[&str]) -> String {
    let words: Vec<&str> = std::iter::once(program)
        .chain(arguments.iter().copied().filter(|word| !word.starts_with('-')).take(3))
        .collect();
    words.join(" ")
}

fn end_of(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(DETAIL_CHARS);
    text.chars().skip(skip).collect()
}

fn reader(mut source: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // The output before an error is still of use.
        let _ = source.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, seconds: u64) -> Option<std::io::Result<std::process::ExitStatus>> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() >= deadline => return None,
            Ok(None) => thread::sleep(POLL),
            Ok(Some(status)) => return Some(Ok(status)),
            Err(error) => return Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_input_and_errors_arrive() {
        assert_eq!(run("echo", &["a b"], 5).unwrap(), "a b");
        assert_eq!(run_with_input("cat", &[], "text\n", 5).unwrap(), "text");
        let error = run("sh", &["-c", "echo no space >&2; exit 3"], 5).unwrap_err().to_string();
        assert!(error.contains("failed: no space"), "{error}");
        assert!(run("no-such-program", &[], 5).is_err());
    }

    #[test]
    fn program_that_hangs_is_killed_after_its_timeout() {
        let started = Instant::now();
        let error = run("sleep", &["60"], 1).unwrap_err();
        assert!(matches!(error, HostError::Timeout(_, 1)), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
