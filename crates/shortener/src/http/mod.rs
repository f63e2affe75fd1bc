//! The listener that the gateway calls: `/api/v1` and `/internal/v1`.

pub mod api;
mod csv;
mod error;
pub mod internal;
pub mod openapi;
