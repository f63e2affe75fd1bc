//! A model of installations that are larger than this machine: from measured costs and a traffic shape to hit ratios,
//! processor load, nodes, storage, money, and staleness across regions.
//!
//! * [`inputs`]: shapes, settings and prices, read from `crates/bench/scale.json`; [`input_error`]: why they cannot be used.
//! * [`measured`]: figures of `make bench ONLY=cost`, read from `crates/bench/measured.json`.
//! * [`costs`]: costs, as sums of these figures.
//! * [`popularity`]: which share of the requests each link gets.
//! * [`caches`]: hit ratios of one cache, by Che's approximation with lives and evictions.
//! * [`click_groups`]: how many clicks a worker writes together.
//! * [`tiers`]: L1 of each process, L2, and the database behind them.
//! * [`fleet`]: processor time, memory, storage, nodes and money of a scenario.
//! * [`regions`]: longest staleness for given round-trip times, as a sum of the protocol's constants.
//! * [`simulation`]: the same protocol in a discrete-event simulation, with lost messages, partitions and lost regions.
//! * [`validation`]: predictions of measured runs.
//! * [`sections`], [`money_tables`], [`region_tables`], [`validation_table`], [`document`]: the tables of `docs/SCALE.md`.
//!
//! Invariants:
//! * Every function is pure: the same inputs give the same document, so a test can compare it.
//! * Every cost has the place where it was measured, or the word *assumed*.

pub mod caches;
pub mod click_groups;
pub mod costs;
pub mod document;
pub mod fleet;
pub mod input_error;
pub mod inputs;
pub mod measured;
pub mod money_tables;
pub mod popularity;
pub mod region_tables;
pub mod regions;
pub mod sections;
pub mod simulation;
pub mod tables;
pub mod tiers;
pub mod validation;
pub mod validation_table;
