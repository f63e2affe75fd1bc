//! Every operation with every kind of invalid input returns a 4xx problem that names the field.
//!
//! Operations and fields come from the OpenAPI document, so a new field is tested without a change here.
//! A new operation fails the tests until [`api::Api`] has a valid body and a resource for it.

mod api;
mod bodies;
mod early_responses;
mod requests;
mod stalled_bodies;
