//! Why an upload was rejected.

use std::io;

use linnet_store::StoreError;

use super::IDLE_TIMEOUT;

/// Why an upload was rejected.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The connection ended before the body.
    #[error("the upload is incomplete: the connection ended before the body")]
    Incomplete,
    /// No data arrived for [`IDLE_TIMEOUT`].
    #[error("the upload sent no data for {} s", IDLE_TIMEOUT.as_secs())]
    TimedOut,
    /// The body arrives more slowly than its minimum rate.
    #[error("the upload sent less than {bytes_per_s} bytes/s for {window_s} s")]
    TooSlow {
        /// The minimum rate, in bytes per second.
        bytes_per_s: u64,
        /// The time over which it is measured, in seconds.
        window_s: u64,
    },
    /// The body or its decompressed content is too large.
    #[error("the upload or its decompressed content exceeds {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The decompressed content is too large for the body.
    #[error("the upload expands to more than {factor} times its size")]
    Expands {
        /// `jobs.expansion`.
        factor: u64,
    },
    /// The disk of the upload area has less than `jobs.free_bytes` free.
    #[error("the disk of the upload area has too little free space")]
    DiskFull,
    /// The body begins like gzip data but is damaged.
    #[error("must be valid gzip data, because it begins like gzip data")]
    InvalidGzip,
    /// The uploads in the database have reached `jobs.upload_total_bytes`.
    #[error("the uploads that wait for their jobs have reached their maximum size")]
    StoreFull,
    /// The user's uploads in the database have reached `jobs.bytes_per_user`.
    #[error("the user's uploads that wait for their jobs have reached their maximum size")]
    UserFull,
    /// The uploads in the database and deleted ones, whose space may not be free yet, have reached four times
    /// `jobs.upload_total_bytes`.
    #[error("the space of removed uploads is not free yet")]
    RemovedFull,
    /// The same for the user: four times `jobs.bytes_per_user`.
    #[error("the space of the user's removed uploads is not free yet")]
    UserRemovedFull,
    /// The database has lost a part of the upload in a failover.
    #[error("a part of the upload was lost")]
    Lost,
    /// The database has not stored the upload.
    #[error("the database has not stored the upload")]
    Store(#[from] StoreError),
    /// The upload area is not writable.
    #[error("the upload area cannot be written")]
    Io(#[from] io::Error),
}
