//! Calls of pgBackRest.

use std::{path::PathBuf, process::Command, time::Duration};

use crate::{
    BackupError,
    config::{self, Files},
    error, process,
    settings::Settings,
};

/// pgBackRest with its configuration.
#[derive(Debug)]
pub(crate) struct Tool {
    files: Files,
}

impl Tool {
    /// Writes the configuration.
    pub(crate) fn new(settings: &Settings) -> Result<Self, BackupError> {
        Ok(Self { files: config::write(settings)? })
    }

    /// The configuration file, which a restored PostgreSQL's `restore_command` needs, too.
    pub(crate) fn config(&self) -> &PathBuf {
        &self.files.full
    }

    /// Runs one command and returns what it printed. A failure's reason names the way out.
    pub(crate) fn run(
        &self,
        command: &str,
        options: &[&str],
        limit: Duration,
    ) -> Result<String, BackupError> {
        let mut child = Command::new("pgbackrest");
        let config =
            if command == "archive-push" { &self.files.repository } else { &self.files.full };
        child
            .arg(format!("--config={}", config.display()))
            .arg(format!("--stanza={}", config::STANZA))
            .args(options_and_words(command, options));
        let name = format!("pgbackrest {command}");
        let finished = process::run(&name, &mut child, limit)?;
        if finished.code == 0 {
            return Ok(finished.stdout);
        }
        let reason = error::explain(finished.code, &finished.output());
        Err(BackupError::Failed { program: name, code: finished.code, reason })
    }
}

/// Options before the command, words (the path of a segment) after it.
fn options_and_words<'a>(command: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    let (mut line, words): (Vec<&str>, Vec<&str>) =
        options.iter().partition(|option| option.starts_with("--"));
    line.push(command);
    line.extend(words);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_the_command() {
        assert_eq!(
            options_and_words("archive-push", &["/a/b", "--x=y"]),
            ["--x=y", "archive-push", "/a/b"]
        );
    }
}
