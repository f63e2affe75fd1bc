//! Divides large work into batches.

use std::time::Instant;

use linnet_store::StoreError;

/// Runs `batch` until it processes nothing; returns the total. After each batch it pauses for as long as the batch took, so
/// that maintenance uses at most half of the database's time.
pub(super) async fn in_batches<F: Future<Output = Result<u64, StoreError>>>(
    mut batch: impl FnMut() -> F,
) -> Result<u64, StoreError> {
    let mut total = 0;
    loop {
        let began = Instant::now();
        match batch().await? {
            0 => return Ok(total),
            processed => total += processed,
        }
        tokio::time::sleep(began.elapsed()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    #[tokio::test]
    async fn batches_end_with_the_first_empty_one() {
        let mut batches = [1_000, 1_000, 7, 0, 5].into_iter();
        let total = in_batches(|| future::ready(Ok(batches.next().unwrap()))).await.unwrap();
        assert_eq!(total, 2_007);
        assert_eq!(batches.next(), Some(5));
    }
}
