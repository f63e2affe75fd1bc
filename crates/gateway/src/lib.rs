//! The gateway: serves Linnet's API and web pages. Short links bypass it.
//!
//! A request passes `edge` (headers of every response), `routing` (route table), `auth` (caller),
//! `limit` (rate), `proxy` (headers and bodies) and `upstream` (choice of a shortener), in this
//! order.
//!
//! Invariants:
//! - The gateway never connects to PostgreSQL.
//! - Gateways share no state except the rates in Redis: a gateway can be added or removed at any
//!   time.

mod admin;
mod auth;
mod body_budget;
pub mod cli;
pub mod config;
mod counters;
mod edge;
pub mod fuzzing;
mod limit;
mod memory;
mod metrics;
mod pages;
mod problems;
mod proxy;
mod refusals;
mod release;
mod routing;
mod startup;
mod thread_state;
mod upstream;

#[cfg(test)]
mod tests;

pub use startup::Application;
