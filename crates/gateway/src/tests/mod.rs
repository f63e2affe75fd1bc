//! The gateway as a whole, against a stand-in for the shortener and a real Redis.
//!
//! The real shortener is the system tests' business; the stand-in can misbehave on demand.

mod auth;
mod bodies;
mod edge;
mod limits;
mod resilience;
mod support;
