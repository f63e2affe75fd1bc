//! What `make bench` needs besides the usual tools.
//!
//! * [`links`]: links with codes that everyone can compute, so that loader and clients agree.
//! * [`zipf`]: which link is asked for how often.
//! * [`http`]: the smallest client that tells a redirect from anything else.
//! * [`load`]: a list sent exactly once, and an open loop at a fixed rate.
//!
//! Invariants: everything is drawn from a seed, so two runs ask for the same; a failed request is
//! counted, never repeated.

pub mod http;
pub mod links;
pub mod load;
pub mod zipf;
