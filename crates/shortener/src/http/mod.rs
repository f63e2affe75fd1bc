//! The API listener, which only the gateway calls: `/api/v1` and `/internal/v1`.

pub mod api;
pub mod csv;
mod error;
pub mod internal;
mod link_schemas;
pub mod openapi;
mod problem_schema;
pub mod response_budget;
pub mod turns;
