//! Connections to PostgreSQL: the settings, the primary among several hosts, a replica for reads, and a pooler.

mod hosts;
mod server_url;
mod session;
mod settings;
mod tls_fault;

pub use hosts::{HostFailure, HostPool, NoPrimary, PostgresHosts, ReplicaReads};
pub use session::{
    PoolerFault, SessionParameter, connect_query, connect_session, pooled_options, verify_pooled,
};
pub use settings::{PostgresSettings, RowQuotas};
pub use tls_fault::tls_fault;
