//! A job continues at the new primary.

use linnet_system_tests::redis_proxy::Mode;

use super::support::{
    builder, count_links_created_once, import, links_csv, row_counts, wait_for_job_end,
    wait_for_rows_read,
};

const ROWS: u16 = 3_000;

/// The old primary is silent, so a chunk waits for it and its outcome is unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_continues_at_the_new_primary_and_writes_each_row_once() {
    let builder = builder().standbys().env("LINNET__JOBS__CHUNK_ROWS", 20);
    let mut stack = builder.start().await;
    let client = stack.client();
    let job = import(&client, links_csv("m", ROWS.into())).await;
    wait_for_rows_read(&client, job, 100).await;
    stack.postgres_group().proxies[0].set(Mode::BlackHole);
    stack.promote(1).await;
    let job = wait_for_job_end(&client, job).await;
    let rows = i64::from(ROWS);
    assert_eq!((&job["state"], row_counts(&job)), (&"succeeded".into(), [rows, rows, 0, 0]));
    assert_eq!(count_links_created_once(&mut stack.database().await, "m").await, rows);
}
