//! The servers and directories of a stack.

/// The PostgreSQL server that a stack uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Postgres {
    /// A new database in the server of `DATABASE_URL`, or a new server if that is not set.
    #[default]
    Shared,
    /// A new server, which the test may stop. The product's own timeouts apply.
    Own,
}

/// The servers of PostgreSQL beside the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standbys {
    None,
    /// Two standbys.
    Two,
    /// Two standbys, one of which is the replica for reads.
    TwoAndReads,
}

/// How the processes reach PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PostgresPath {
    Direct,
    /// Through PgBouncer.
    Pooled,
}

/// Where the processes store uploads.
#[derive(Debug, Clone, Copy)]
pub(super) enum UploadDirs {
    /// In one directory, as on one machine.
    Shared,
    /// In one directory, which is a file system of this size for those that use it.
    Disk(&'static str),
    /// Each in its own directory, as on several machines.
    Own,
}

/// The servers of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RedisServers {
    /// One server.
    One,
    /// A master with replicas and sentinels.
    Sentinels,
    /// A Redis Cluster.
    Cluster,
}
