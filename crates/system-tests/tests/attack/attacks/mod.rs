//! The attacks. Each returns how often each outcome occurred, as text.

pub(crate) mod bombs;
pub(crate) mod connections;
pub(crate) mod guesses;
pub(crate) mod http2;
pub(crate) mod json;
pub(crate) mod quotas;
pub(crate) mod streams;
