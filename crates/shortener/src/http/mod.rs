//! The shortener's HTTP listeners: `public` for visitors, `api` for the gateway.

pub mod api;
mod csv;
mod error;
pub mod internal;
pub mod openapi;
pub mod public;
