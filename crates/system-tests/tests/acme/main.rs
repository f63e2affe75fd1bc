//! Tests of `linnet-acme` with Pebble and nginx: orders, renewals, failures, and swaps under load.

mod failures;
mod orders;
mod support;
mod swaps;
