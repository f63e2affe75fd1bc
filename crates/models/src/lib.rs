//! Models of the protocols on which the guarantees depend. Tests check them for every order of steps.
//!
//! * `tests/epochs.rs` checks the real code of L1's epochs (`crates/resolve/src/epochs.rs`) with loom.
//! * [`coherence`] models how a change reaches the caches: L1, L2, the invalidation bus and the outbox.
//! * [`leases`] models how workers lease a job and write its chunks.
//!
//! Each model has [mistakes](coherence::Mistake): variants of the protocol that lack one of its rules. The tests also
//! require that the check finds a violation in each variant. Otherwise its result for the protocol would prove nothing.

pub mod coherence;
pub mod leases;
