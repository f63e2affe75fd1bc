//! Writer and reader of PostgreSQL's binary `COPY` format
//! (<https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format").

use chrono::{DateTime, Utc};

use super::StoreError;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// The length of a field that is NULL.
const NULL: &[u8] = &(-1_i32).to_be_bytes();
/// 2000-01-01, PostgreSQL's epoch, in microseconds since 1970.
const EPOCH_2000_US: i64 = 946_684_800_000_000;

/// Encodes rows.
pub(super) struct BinaryRows(Vec<u8>);

impl BinaryRows {
    /// An encoder with room for this number of bytes.
    pub(super) fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity + 32);
        bytes.extend_from_slice(SIGNATURE);
        // No flags and no header extension.
        bytes.extend_from_slice(&[0; 8]);
        Self(bytes)
    }

    /// Begins a row with this number of columns.
    pub(super) fn begin(&mut self, columns: usize) {
        self.0.extend_from_slice(&i16::try_from(columns).unwrap_or(i16::MAX).to_be_bytes());
    }

    pub(super) fn bigint(&mut self, value: i64) {
        self.field(&value.to_be_bytes());
    }

    pub(super) fn integer(&mut self, value: i32) {
        self.field(&value.to_be_bytes());
    }

    #[cfg(test)]
    pub(super) fn smallint(&mut self, value: i16) {
        self.field(&value.to_be_bytes());
    }

    pub(super) fn timestamp(&mut self, value: DateTime<Utc>) {
        self.bigint(value.timestamp_micros().saturating_sub(EPOCH_2000_US));
    }

    /// Writes an `integer[]` without NULLs.
    pub(super) fn integers(&mut self, values: &[i32]) {
        /// The element type.
        const INTEGER_OID: i32 = 23;
        let count = i32::try_from(values.len()).unwrap_or(i32::MAX);
        // One dimension, no NULLs, the type, the number of elements, the first index; then each element is a field.
        let header = [1, 0, INTEGER_OID, count, 1];
        let length = i32::try_from(4 * header.len() + 8 * values.len()).unwrap_or(i32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        for number in header {
            self.0.extend_from_slice(&number.to_be_bytes());
        }
        for value in values {
            self.integer(*value);
        }
    }

    /// Writes NULL for `None`, or the value with `write`.
    pub(super) fn nullable<T>(&mut self, value: Option<T>, write: impl Fn(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.0.extend_from_slice(NULL),
        }
    }

    /// The bytes to send.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Removes the sent bytes. The header is sent only once.
    pub(super) fn clear_sent(&mut self) {
        self.0.clear();
    }

    /// The remaining bytes with the trailer.
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

/// The bytes violate the format.
#[derive(Debug, thiserror::Error)]
#[error("COPY data is malformed")]
pub(super) struct MalformedCopy;

impl From<MalformedCopy> for StoreError {
    fn from(error: MalformedCopy) -> Self {
        Self::Failed(sqlx::Error::Decode(error.into()))
    }
}

/// Decodes the rows that [`BinaryRows`] encodes.
pub(super) struct BinaryReader<'a>(&'a [u8]);

impl<'a> BinaryReader<'a> {
    /// A decoder of these bytes, which begin with a row or the header.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Skips the header.
    pub(super) fn header(&mut self) -> Result<(), MalformedCopy> {
        self.0 = self.0.strip_prefix(SIGNATURE).ok_or(MalformedCopy)?;
        let _flags = self.take::<4>()?;
        let extension = u32::from_be_bytes(self.take()?);
        self.skip(usize::try_from(extension).map_err(|_| MalformedCopy)?)?;
        Ok(())
    }

    /// Begins a row with this number of columns. False at the end of the bytes or of the rows.
    pub(super) fn begin(&mut self, columns: usize) -> Result<bool, MalformedCopy> {
        if self.0.is_empty() {
            return Ok(false);
        }
        match i16::from_be_bytes(self.take()?) {
            -1 => Ok(false),
            count if usize::try_from(count) == Ok(columns) => Ok(true),
            _ => Err(MalformedCopy),
        }
    }

    pub(super) fn bigint(&mut self) -> Result<i64, MalformedCopy> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    /// A `smallint`, `integer` or `bigint`.
    pub(super) fn number(&mut self) -> Result<i64, MalformedCopy> {
        let bytes = self.field()?.ok_or(MalformedCopy)?;
        let first = bytes.first().filter(|_| matches!(bytes.len(), 2 | 4 | 8));
        // The fold begins with -1 for a negative number, which extends the sign to 64 bits.
        let sign = if first.ok_or(MalformedCopy)? & 0x80 == 0 { 0 } else { -1 };
        Ok(bytes.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte)))
    }

    pub(super) fn boolean(&mut self) -> Result<bool, MalformedCopy> {
        Ok(self.fixed::<1>()? != [0])
    }

    pub(super) fn text(&mut self) -> Result<&'a str, MalformedCopy> {
        let bytes = self.field()?.ok_or(MalformedCopy)?;
        std::str::from_utf8(bytes).map_err(|_| MalformedCopy)
    }

    pub(super) fn timestamp(&mut self) -> Result<DateTime<Utc>, MalformedCopy> {
        let micros = self.bigint()?.checked_add(EPOCH_2000_US).ok_or(MalformedCopy)?;
        DateTime::from_timestamp_micros(micros).ok_or(MalformedCopy)
    }

    /// Returns `None` for NULL, or reads the value with its reader.
    pub(super) fn nullable<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, MalformedCopy>,
    ) -> Result<Option<T>, MalformedCopy> {
        match self.0.strip_prefix(NULL) {
            Some(rest) => {
                self.0 = rest;
                Ok(None)
            }
            None => read(self).map(Some),
        }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MalformedCopy> {
        self.field()?.and_then(|bytes| bytes.try_into().ok()).ok_or(MalformedCopy)
    }

    /// The bytes of the next field; `None` for NULL.
    fn field(&mut self) -> Result<Option<&'a [u8]>, MalformedCopy> {
        match i32::from_be_bytes(self.take()?) {
            -1 => Ok(None),
            length => self.skip(usize::try_from(length).map_err(|_| MalformedCopy)?).map(Some),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], MalformedCopy> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(MalformedCopy)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn skip(&mut self, length: usize) -> Result<&'a [u8], MalformedCopy> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(MalformedCopy)?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<u8> {
        let mut rows = BinaryRows::new(0);
        for number in [7, -7] {
            rows.begin(4);
            rows.bigint(number);
            rows.smallint(302);
            rows.timestamp(DateTime::from_timestamp_micros(1_234_567_890_123_456).unwrap());
            rows.nullable(None, BinaryRows::bigint);
        }
        rows.finish()
    }

    fn read(bytes: &[u8]) -> Result<Vec<i64>, MalformedCopy> {
        let mut reader = BinaryReader::new(bytes);
        reader.header()?;
        let mut numbers = Vec::new();
        while reader.begin(4)? {
            numbers.push(reader.bigint()?);
            assert_eq!(reader.number()?, 302);
            assert_eq!(reader.timestamp()?.timestamp_micros(), 1_234_567_890_123_456);
            assert_eq!(reader.nullable(BinaryReader::bigint)?, None);
        }
        Ok(numbers)
    }

    #[test]
    fn encoded_rows_decode_to_the_same_values() {
        assert_eq!(read(&rows()).unwrap(), [7, -7]);
    }

    #[test]
    fn truncated_data_is_an_error_except_between_rows() {
        let bytes = rows();
        let header = SIGNATURE.len() + 8;
        let row = (bytes.len() - header - 2) / 2;
        for length in 0..bytes.len() {
            let is_between_rows = [header, header + row, header + 2 * row].contains(&length);
            assert_eq!(read(&bytes[..length]).is_ok(), is_between_rows, "{length} bytes");
        }
        let mut other = rows();
        other[0] = b'X';
        assert!(read(&other).is_err());
    }
}
