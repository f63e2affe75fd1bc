//! An upload area that is full.

use linnet_system_tests::{Stack, client::Method};

use super::support::{URLS, gzip, jobs, links, upload};

/// What is left on the disk of a shortener that has one of its own: files, as far as it says.
async fn accepts(stack: &Stack) {
    let small = upload(&stack.client(), URLS, links("s", 10)).send().await;
    assert_eq!(small.status, 202, "{}", small.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_a_507_and_leaves_nothing_behind() {
    let stack = Stack::builder().upload_disk("2m").env("LINNET__JOBS__FREE_BYTES", 0).start().await;
    let client = stack.client();
    let large = links("x", 100_000);
    for _ in 0..3 {
        // Each of them would fit less if one had left something.
        let problem = upload(&client, URLS, &large).send().await.problem(507);
        assert_eq!(problem["code"], "insufficient_storage");
        let fits = links("y", 40_000);
        assert!(fits.len() > 1024 * 1024);
        let empty = upload(&client, URLS, fits.replace("original_url", "nothing")).send().await;
        assert_eq!(empty.problem(422)["errors"][0]["field"], "header");
    }
    // It is full, too, when it unpacks to too much.
    let packed = client.request(Method::POST, URLS).body("text/csv", gzip(&large));
    assert_eq!(packed.send().await.problem(507)["code"], "insufficient_storage");
    assert_eq!(jobs(&stack).await, 0);
    accepts(&stack).await;
    assert_eq!(client.get("/health").send().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_leave_a_reserve_on_the_disk() {
    let stack = Stack::builder()
        .upload_disk("16m")
        .env("LINNET__JOBS__FREE_BYTES", 12 * 1024 * 1024)
        .start()
        .await;
    let client = stack.client();
    accepts(&stack).await;
    // Two of them wait, and then there is less than the reserve.
    for _ in 0..2 {
        let large = upload(&client, URLS, links("x", 80_000)).send().await;
        assert_eq!(large.status, 202, "{}", large.text());
    }
    upload(&client, URLS, links("s", 10)).send().await.problem(507);
    assert_eq!(jobs(&stack).await, 3);
    // Room is made by whoever discards a job.
    let list = client.get("/api/v1/jobs").send().await.json();
    let id = &list[2]["id"];
    assert_eq!(client.delete(&format!("/api/v1/jobs/{id}")).send().await.status, 204);
    accepts(&stack).await;
}
