//! Much work in small parts.

use std::time::Instant;

use linnet_store::StoreError;

/// Works batch by batch until one finds nothing; the sum. After each it rests for as long as the batch
/// took, so that everybody else has at least half of the database's time.
pub(super) async fn in_batches<F: Future<Output = Result<u64, StoreError>>>(
    mut batch: impl FnMut() -> F,
) -> Result<u64, StoreError> {
    let mut sum = 0;
    loop {
        let began = Instant::now();
        match batch().await? {
            0 => return Ok(sum),
            done => sum += done,
        }
        tokio::time::sleep(began.elapsed()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    #[tokio::test]
    async fn it_ends_with_the_first_batch_that_finds_nothing() {
        let mut left = [1_000, 1_000, 7, 0, 5].into_iter();
        assert_eq!(in_batches(|| future::ready(Ok(left.next().unwrap()))).await.unwrap(), 2_007);
        assert_eq!(left.next(), Some(5));
    }
}
