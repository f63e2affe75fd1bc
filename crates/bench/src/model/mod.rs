//! A model of installations that are larger than this machine: from measured costs and a traffic shape to hit ratios,
//! processor load, nodes, storage, money, and staleness across regions.
//!
//! * [`inputs`]: costs, shapes and prices, read from `crates/bench/scale.json`.
//! * [`popularity`]: which share of the requests each link gets.
//! * [`caches`]: hit ratios of one cache, by Che's approximation with lives and evictions.
//! * [`tiers`]: L1 of each process, L2, and the database behind them.
//! * [`fleet`]: processor time, memory, storage, nodes and money of a scenario.
//! * [`regions`]: longest staleness for given round-trip times, as a sum of the protocol's constants.
//! * [`simulation`]: the same protocol in a discrete-event simulation, with lost messages, a partition and a lost region.
//! * [`validation`]: predictions of measured runs.
//! * [`sections`], [`document`]: the tables of `docs/SCALE.md`.
//!
//! Invariants:
//! * Every function is pure: the same inputs give the same document, so a test can compare it.
//! * Every cost has the place where it was measured, or the word *assumed*.

pub mod caches;
pub mod document;
pub mod fleet;
pub mod inputs;
pub mod popularity;
pub mod regions;
pub mod sections;
pub mod simulation;
pub mod tables;
pub mod tiers;
pub mod validation;
