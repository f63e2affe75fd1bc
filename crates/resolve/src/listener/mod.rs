//! The public listener: `GET` and `HEAD` of a short link, and nothing that changes state.
//!
//! This is the hot path. A link that L1 holds is answered without an await, an allocation of ours or
//! a lock of ours; counting is two adds to bound instruments. Nothing that counts, logs or measures
//! can make a redirect fail or wait.

mod budget;
mod handler;
mod metrics;
mod pages;
mod settings;

pub use budget::MissBudget;
pub use handler::{PublicState, serve};
pub use metrics::ResolveMetrics;
pub use settings::ResolveSettings;
