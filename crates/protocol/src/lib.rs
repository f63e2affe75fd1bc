//! The contract between gateway and shortener, and their common error format.
//!
//! * [`address_hash`]: the keyed hash that stands for a client's address.
//! * [`identity`]: the caller of a request, as headers.
//! * [`invalidation`]: the messages on the invalidation bus.
//! * [`issued_keys`]: the mark by which a gateway recognizes a key without a lookup.
//! * [`key_lookup`]: the request and response that verify an API key.
//! * [`problem`] and [`problem_code`]: the body of every error response, and the table of its codes.
//! * [`routes`]: every API route with its methods and their scopes.
//! * [`settings`]: the settings sections that both programs read.
//! * [`stream_token`]: short-lived credentials in the URLs of event streams.

pub mod address_hash;
pub mod identity;
pub mod invalidation;
pub mod issued_keys;
pub mod key_lookup;
pub mod problem;
pub mod problem_code;
pub mod routes;
pub mod settings;
pub mod stream_token;
