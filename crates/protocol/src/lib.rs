//! What gateway and shortener say to each other, and to their clients alike.
//!
//! * [`routes`]: every API route with its methods and the scope that each needs.
//! * [`identity`]: who calls, as headers between the two processes; the scopes are
//!   [`linnet_domain::Scopes`].
//! * [`key_lookup`]: the question and the answer about an API key.
//! * [`invalidation`]: the messages on the invalidation bus.
//! * [`problem`]: the RFC 9457 error body, the one way an error leaves a process.
//! * [`settings`]: the sections that both read.

pub mod identity;
pub mod invalidation;
pub mod key_lookup;
pub mod problem;
pub mod routes;
pub mod settings;
