//! The resolve listener: redirects short links, and changes no state.
//!
//! Invariants of the hot path:
//! * A link in L1 is served without an await, and this crate adds no allocation or lock.
//! * The metrics of a request are two additions to bound instruments.
//! * Nothing that counts, logs or measures can make a redirect fail or wait.

mod budget;
mod handler;
mod limited;
mod metrics;
mod pages;
mod request;
mod response;
mod settings;
mod state;

pub use budget::MissBudget;
pub use handler::serve;
pub use metrics::ResolveMetrics;
pub use request::{CodeBuffer, code_of};
pub use settings::ResolveSettings;
pub use state::ResolveState;
