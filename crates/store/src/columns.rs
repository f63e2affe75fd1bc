//! Rows as the array parameters of a query.

/// One column of the rows.
pub(crate) fn column<R, T>(rows: &[R], value_of: impl Fn(&R) -> T) -> Vec<T> {
    rows.iter().map(value_of).collect()
}

/// The numbers of ids.
pub(crate) fn numbers<I: Copy + Into<i64>>(ids: &[I]) -> Vec<i64> {
    column(ids, |id| (*id).into())
}
