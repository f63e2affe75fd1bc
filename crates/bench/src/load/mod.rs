//! Two ways of sending a list of codes: as fast as answers come, and at a fixed rate.
//!
//! What comes back is counted by kind; a request that failed has no latency and is never repeated.

mod connection;
mod pace;
mod replay;

use std::{fs, io, path::Path, time::Duration};

use serde::Serialize;

pub use pace::{Pace, PaceReport, pace};
pub use replay::{ReplayReport, replay};

use crate::{
    http::{Answer, Client},
    links::CODE_LENGTH,
};

/// Answers by kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// A redirect; with `check_location`, to the right target.
    pub redirected: u64,
    /// A redirect to another target.
    pub astray: u64,
    /// Any other status.
    pub refused: u64,
    /// No answer.
    pub failed: u64,
}

impl Counts {
    /// Sends one request and counts it. `true` for a good answer.
    fn send(&mut self, client: &mut Client<'_>, code: &str, check_location: bool) -> bool {
        match client.get(code) {
            Ok(answer) => self.note(&answer, check_location),
            Err(_) => {
                self.failed += 1;
                false
            }
        }
    }

    /// Counts an answer. `true` for a good one.
    fn note(&mut self, answer: &Answer, check_location: bool) -> bool {
        let is_redirect = (300..400).contains(&answer.status);
        let is_good = is_redirect && (answer.location_has_code || !check_location);
        if is_good {
            self.redirected += 1;
        } else if is_redirect {
            self.astray += 1;
        } else {
            self.refused += 1;
        }
        is_good
    }

    fn add(&mut self, other: Self) {
        self.redirected += other.redirected;
        self.astray += other.astray;
        self.refused += other.refused;
        self.failed += other.failed;
    }
}

/// Codes in the order in which they are asked for, one a line in the file, all of one length.
pub struct CodeList(String);

impl CodeList {
    /// Reads the file; an empty one or one of another form is an error.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let ok = text.is_ascii()
            && !text.is_empty()
            && text.split_terminator('\n').all(|line| line.len() == CODE_LENGTH)
            && text.ends_with('\n');
        if ok { Ok(Self(text)) } else { Err(io::Error::other("not a list of codes")) }
    }

    /// Number of codes, at least 1.
    pub fn len(&self) -> usize {
        self.0.len() / (CODE_LENGTH + 1)
    }

    /// Never: an empty list can't be read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The code at an index.
    fn get(&self, index: usize) -> Option<&str> {
        let start = index.checked_mul(CODE_LENGTH + 1)?;
        self.0.get(start..start + CODE_LENGTH)
    }
}

/// Longest time for which a generator may run on after its last request was due.
const STRAGGLERS: Duration = Duration::from_secs(10);
