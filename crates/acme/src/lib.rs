//! Orders the TLS certificate of an installation from a CA that implements ACME (RFC 8555), and renews it.
//!
//! Invariants:
//! - nginx always finds a complete pair: `live` is a symlink, and one rename moves it to a new folder.
//! - A failure never replaces or removes the certificate in use.
//! - While a certificate is valid and covers all names, no order is made before its renewal is due.
//! - Failed orders have a budget: 1, 10 and 100 minutes apart, then once a day. It survives restarts.
//!
//! `sidecar` has the loop, `schedule` its decisions (pure functions of the clock and the state), `store` the files.

mod authority;
mod certificate;
pub mod cli;
mod failure;
mod in_use;
mod metrics;
mod names;
mod order;
mod placeholder;
mod probe;
mod readiness;
mod release;
mod schedule;
pub mod settings;
mod sidecar;
mod snapshot;
mod state;
mod status;
mod store;

pub use certificate::{Certificate, CertificateError};
pub use names::{DnsName, Names};
pub use store::{Installed, Issued, Store, StoreError};
