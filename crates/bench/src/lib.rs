//! Data and load generators of `make bench`, which also uses wrk, pgbench and Locust.
//!
//! * [`links`]: links whose codes follow from their rank, so that the loader and the generators agree on them.
//! * [`zipf`]: the popularity of links.
//! * [`http`]: a minimal HTTP client.
//! * [`replay`]: sends each code of a list exactly once (a closed loop).
//! * [`pace`]: sends requests at a fixed rate (an open loop).
//! * [`model`]: larger installations on paper, for `docs/SCALE.md`.
//!
//! Invariants:
//! * All random draws come from a seed, so a repeated run sends the same requests.
//! * A failed request is counted and never repeated.

pub mod code_list;
mod connection;
pub mod counts;
pub mod http;
pub mod links;
pub mod model;
pub mod pace;
pub mod replay;
pub mod zipf;
