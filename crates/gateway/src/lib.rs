//! The gateway: Linnet's way in for everything but the short links themselves.
//!
//! A request travels `edge` (headers that every answer carries) → [`routing`](self) (the table of
//! routes) → `auth` (who calls) → `limit` (how often) → `proxy` (what is passed on) → `upstream`
//! (to which shortener). The gateway never touches the database, and holds nothing that another
//! gateway would miss: keys are cached, rates are in Redis.

mod admin;
mod auth;
pub mod cli;
pub mod config;
mod edge;
mod limit;
mod metrics;
mod pages;
mod proxy;
mod release;
mod routing;
mod startup;
mod upstream;
mod worker;

#[cfg(test)]
mod tests;

pub use startup::Application;
