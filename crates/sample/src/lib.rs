//! Draws targets and clicks like real ones, for `admin generate`.
//!
//! * A seed and the links determine every click, so two runs with the same arguments draw the same ones.
//! * Nothing is read or written: clicks go into a batch builder of the caller.

mod draw;
mod words;

pub use draw::{Draw, Hour, hours};
pub use words::target;
