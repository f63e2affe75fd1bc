//! Linnet's shortener: links in PostgreSQL, resolved through two caches.
pub mod cache;
pub mod domain;
pub mod store;
