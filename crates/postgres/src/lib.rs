//! Connections to PostgreSQL: the settings, the primary among several hosts, and a replica for reads.

mod hosts;
mod settings;
mod tls_fault;

pub use hosts::{HostFailure, HostPool, NoPrimary, PostgresHosts, ReplicaReads};
pub use settings::{PostgresSettings, RowQuotas};
pub use tls_fault::tls_fault;
