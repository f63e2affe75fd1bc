//! Fuzz targets: everything that parses bytes of a client, of a file, or of another process.
//!
//! * A target checks properties, not only that nothing panics: a parsed value is printed and parsed again, two readers
//!   agree, an error names a field, memory stays within a bound that depends on the input's length.
//! * A target is deterministic: it reads no clock, no environment and no file, and two runs of one input are the same.
//! * A finding is a panic. Its input becomes a file of `corpus/` and a unit test of the code that was wrong.
//!
//! `docs/FUZZING.md` describes how to run them and what they have found.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a target reports a finding"
)]

mod memory;
mod targets;

pub use targets::{TARGETS, Target, find};
