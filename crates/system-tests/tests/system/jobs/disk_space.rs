//! Uploads to a full disk and to the reserve of free space.

use linnet_system_tests::{Stack, client::Method};

use super::support::{URLS, count_jobs, gzip, links_csv, upload};

/// Asserts that the disk has free space. The test cannot read the shortener's disk, so it makes a small upload.
async fn assert_accepts_a_small_upload(stack: &Stack) {
    let small = upload(&stack.client(), URLS, links_csv("s", 10)).send().await;
    assert_eq!(small.status, 202, "{}", small.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_to_a_full_disk_returns_507_and_leaves_no_file() {
    let stack = Stack::builder().upload_disk("2m").env("LINNET__JOBS__FREE_BYTES", 0).start().await;
    let client = stack.client();
    let large = links_csv("x", 100_000);
    for _ in 0..3 {
        // A file that an earlier upload left behind would make `fits` too large for the disk.
        let problem = upload(&client, URLS, &large).send().await.problem(507);
        assert_eq!(problem["code"], "insufficient_storage");
        let fits = links_csv("y", 40_000);
        assert!(fits.len() > 1024 * 1024);
        let wrong_header =
            upload(&client, URLS, fits.replace("original_url", "nothing")).send().await;
        assert_eq!(wrong_header.problem(422)["errors"][0]["field"], "header");
    }
    // A gzip file that fits, but decompresses to more than the disk.
    let compressed = client.request(Method::POST, URLS).body("text/csv", gzip(&large));
    assert_eq!(compressed.send().await.problem(507)["code"], "insufficient_storage");
    assert_eq!(count_jobs(&stack).await, 0);
    assert_accepts_a_small_upload(&stack).await;
    assert_eq!(client.get("/health").send().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_keep_a_reserve_of_disk_space_free() {
    let stack = Stack::builder()
        .upload_disk("16m")
        .env("LINNET__JOBS__FREE_BYTES", 12 * 1024 * 1024)
        .start()
        .await;
    let client = stack.client();
    assert_accepts_a_small_upload(&stack).await;
    // After two large uploads, less than the reserve is free.
    for _ in 0..2 {
        let large = upload(&client, URLS, links_csv("x", 80_000)).send().await;
        assert_eq!(large.status, 202, "{}", large.text());
    }
    upload(&client, URLS, links_csv("s", 10)).send().await.problem(507);
    assert_eq!(count_jobs(&stack).await, 3);
    // Deleting a job frees space.
    let list = client.get("/api/v1/jobs").send().await.json();
    let id = &list[2]["id"];
    assert_eq!(client.delete(&format!("/api/v1/jobs/{id}")).send().await.status, 204);
    assert_accepts_a_small_upload(&stack).await;
}
