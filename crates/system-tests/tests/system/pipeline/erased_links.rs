//! Clicks on links whose owner was erased.

use linnet_system_tests::Stack;
use serde_json::json;

use super::support::{create_link, wait_for_clicks, wait_until_drained};

async fn visit(stack: &Stack, code: &str) {
    let visit = stack.client().anonymous().get(&format!("/{code}")).send().await;
    assert_eq!(visit.status, 302, "{}", visit.text());
}

#[tokio::test]
async fn must_31_clicks_that_arrive_after_an_erasure_are_not_recorded() {
    let mut stack = Stack::builder().workers(1).start().await;
    let (ada, client) = stack.create_user("ada", &["urls:write"]).await;
    let target = json!({"original_url": "https://example.com/"});
    let (erased, erased_code) = create_link(&client, &target).await;
    let (_, kept_code) = create_link(&stack.client(), &target).await;
    visit(&stack, &erased_code).await;
    wait_for_clicks(&stack, 1).await;

    stack.workers[0].stop().await;
    visit(&stack, &erased_code).await;
    visit(&stack, &kept_code).await;
    let (status, _, report) = stack.cli(&["admin", "erase-user", "--id", &ada.to_string()]).await;
    assert_eq!(status, 0, "{report}");
    assert!(report.contains("erased 1 clicks"), "{report}");
    stack.workers[0].start();
    wait_for_clicks(&stack, 1).await;
    wait_until_drained(&stack).await;
    for table in ["all_clicks", "click_link_days"] {
        let query = format!("SELECT count(*) FROM {table} WHERE url_id = {erased}");
        let left: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_one(&mut stack.database().await)
            .await
            .unwrap();
        assert_eq!(left, 0, "{table}");
    }
}
