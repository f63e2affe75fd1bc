//! Bulk jobs, from the upload to the last row.

mod imports;
mod support;
