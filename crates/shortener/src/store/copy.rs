//! Rows in PostgreSQL's binary `COPY` format
//! (<https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format").

use chrono::{DateTime, Utc};

/// 2000-01-01, from which PostgreSQL counts microseconds, in microseconds since 1970.
const EPOCH_2000_US: i64 = 946_684_800_000_000;

/// Builds the bytes to send.
pub(super) struct BinaryRows(Vec<u8>);

impl BinaryRows {
    /// With room for so many bytes.
    pub(super) fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity + 32);
        bytes.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
        // No flags, no extension of the header.
        bytes.extend_from_slice(&[0; 8]);
        Self(bytes)
    }

    /// Begins a row of so many columns.
    pub(super) fn begin(&mut self, columns: usize) {
        self.0.extend_from_slice(&i16::try_from(columns).unwrap_or(i16::MAX).to_be_bytes());
    }

    pub(super) fn bigint(&mut self, value: i64) {
        self.field(&value.to_be_bytes());
    }

    pub(super) fn integer(&mut self, value: i32) {
        self.field(&value.to_be_bytes());
    }

    pub(super) fn smallint(&mut self, value: i16) {
        self.field(&value.to_be_bytes());
    }

    pub(super) fn timestamp(&mut self, value: DateTime<Utc>) {
        self.bigint(value.timestamp_micros().saturating_sub(EPOCH_2000_US));
    }

    /// NULL, or the value by its own writer.
    pub(super) fn nullable<T>(&mut self, value: Option<T>, write: impl Fn(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.0.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }

    /// The bytes so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Begins anew behind what was sent; the header comes only once.
    pub(super) fn forget_sent(&mut self) {
        self.0.clear();
    }

    /// The rest of the bytes, with the end mark.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&(-1_i16).to_be_bytes());
        self.0
    }

    fn field(&mut self, bytes: &[u8]) {
        let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
    }
}
