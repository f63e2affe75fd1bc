//! Tests of a whole gateway against a fake shortener and a real Redis.
//!
//! The fake can fail on demand. System tests use real shorteners.

mod auth;
mod bodies;
mod edge;
mod leases;
mod limits;
mod resilience;
mod route_table;
mod support;
