//! Models of the protocols that the guarantees rest on, which tests check for every order of steps.
//!
//! * `tests/epochs.rs` checks the real code of L1's epochs (`crates/resolve/src/epochs.rs`) with loom.
//! * [`coherence`] models how a change reaches the caches: L1, L2, the invalidation bus and the outbox.
//! * [`leases`] models how workers lease a job and write its chunks.
//!
//! Each model has [mistakes](coherence::Mistake): variants of the protocol that lack one of its rules. A check that
//! does not find the violation of each of them proves nothing.

pub mod coherence;
pub mod leases;
