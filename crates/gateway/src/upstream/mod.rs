//! Calls to shorteners: discovery, health, load balancing, circuit breaking and retries.
//!
//! Invariants:
//! - [`Upstreams`] belongs to the process. An [`UpstreamClient`] belongs to one runtime, because a
//!   connection ends with the runtime that opened it.
//! - A host name with several addresses is several shorteners. [`probe`] adds and removes them as
//!   the name's addresses change; one that remains keeps its health, breaker and connections.
//! - Health and circuit breaker are independent. Health (from probes and failed connects) decides
//!   which shortener is preferred; the breaker (from calls) decides which one is allowed. If none
//!   is healthy, any allowed one is called: a probe can be wrong, and a draining shortener still
//!   responds.
//! - Each admitted call settles its permit exactly once, also when its future is dropped.

mod balancer;
mod body;
mod breaker;
mod client;
mod connector;
mod discovery;
mod health;

pub(crate) use balancer::{Upstream, Upstreams};
pub(crate) use body::{BodyEvent, CallBody, StreamBody};
pub(crate) use client::{Call, MAX_READ_BYTES, UpstreamClient, UpstreamError};
pub(crate) use health::probe;

#[cfg(test)]
pub(crate) use connector::{Connector, authority_of};
