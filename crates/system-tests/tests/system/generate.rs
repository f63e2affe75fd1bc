//! `admin generate`: generated clicks, their roll-ups and months.

use std::time::Duration;

use linnet_system_tests::{Stack, expected::message, within};
use sqlx::PgConnection;

async fn query_number(database: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(database).await.unwrap()
}

/// Asserts that raw clicks and all roll-ups total `clicks`.
async fn assert_totals(database: &mut PgConnection, links: i64, clicks: i64) {
    for (sql, wanted) in [
        ("SELECT count(*) FROM all_clicks", clicks),
        ("SELECT count(DISTINCT url_id) FROM all_clicks WHERE url_id NOT IN (SELECT id FROM urls)", 0),
        ("SELECT count(*) FROM urls WHERE user_id IS NOT NULL", links),
        (
            "SELECT sum(clicks + bots + prefetches + heads)::bigint FROM click_hours WHERE subject = 0",
            clicks,
        ),
        (
            "SELECT sum(clicks + bots + prefetches + heads)::bigint FROM click_totals_by_hour WHERE subject > 0",
            clicks,
        ),
        (
            "SELECT sum(clicks + bots + prefetches + heads)::bigint FROM click_days WHERE subject = 0",
            clicks,
        ),
        (
            "SELECT sum(clicks + bots + prefetches + heads)::bigint FROM click_days WHERE subject < 0",
            clicks,
        ),
        (
            "SELECT (SELECT sum(clicks) FROM urls)::bigint
                  - (SELECT count(*) FROM all_clicks WHERE kind = 0)",
            0,
        ),
        (
            "SELECT count(*) FROM (SELECT url_id, date_trunc('hour', clicked_at), count(*) FROM all_clicks
               WHERE kind = 0 GROUP BY 1, 2
             EXCEPT SELECT subject, hour, clicks FROM click_totals_by_hour) AS missing",
            0,
        ),
        (
            "SELECT count(*) FROM (SELECT url_id, (clicked_at AT TIME ZONE 'UTC')::date, agent_id, count(*)
               FROM all_clicks WHERE kind = 0 GROUP BY 1, 2, 3
             EXCEPT SELECT subject, day, value_id, clicks FROM click_totals_by_value) AS missing",
            0,
        ),
        ("SELECT count(*) FROM all_clicks WHERE clicked_at > now()", 0),
    ] {
        assert_eq!(query_number(database, sql).await, wanted, "{sql}");
    }
}

#[tokio::test]
async fn generated_clicks_match_their_roll_ups_and_months() {
    let stack = Stack::start().await;
    let mut database = stack.database().await;
    let arguments = ["admin", "generate", "--links", "50", "--clicks", "20000", "--days", "70"];
    let (status, _, error) = stack.cli(&arguments).await;
    assert_eq!(status, 0, "{error}");
    assert!(error.contains(&message::rows_generated("links", 50)), "{error}");
    assert!(error.contains(&message::rows_generated("clicks", 20_000)), "{error}");
    assert_totals(&mut database, 50, 20_000).await;
    // Unique visitors per day, recounted from the raw clicks. Counts below a thousand are exact.
    let visitors = "SELECT count(*) FROM (
        SELECT url_id, (clicked_at AT TIME ZONE 'UTC')::date, count(DISTINCT visitor) FROM all_clicks
         WHERE kind = 0 GROUP BY 1, 2
        EXCEPT SELECT subject, day, visitors FROM click_totals_by_day) AS missing";
    assert_eq!(query_number(&mut database, visitors).await, 0);
    assert!(query_number(&mut database, "SELECT count(*) FROM click_months").await >= 1);
    for part in 1..=2 {
        // Later clicks are added to the months that exist already.
        if part == 2 {
            let more = [
                "admin", "generate", "--links", "5", "--clicks", "5000", "--days", "70", "--seed",
                "2",
            ];
            let (status, _, error) = stack.cli(&more).await;
            assert_eq!(status, 0, "{error}");
            assert_totals(&mut database, 55, 25_000).await;
        }
        let unlike = "SELECT count(*) FROM (
            SELECT subject, date_trunc('month', day::timestamp)::date, value_id, sum(clicks)
              FROM click_totals_by_value
             WHERE day < (SELECT max(month) + interval '1 month' FROM click_months) GROUP BY 1, 2, 3
            EXCEPT SELECT * FROM click_months_by_value) AS unlike";
        assert_eq!(query_number(&mut database, unlike).await, 0);
    }
    let stats = stack.client().get("/api/v1/stats?top=100").send().await.json();
    assert!(stats["totals"]["unique_visitors"].as_i64().unwrap() > 100, "{stats}");
    assert!(stats["top"]["browser"].as_array().unwrap().len() >= 4, "{stats}");
}

#[tokio::test]
async fn clicks_generated_without_redis_count_no_unique_visitors() {
    let mut stack = Stack::start().await;
    stack.redis.kill().await;
    let arguments = ["admin", "generate", "--links", "10", "--clicks", "3000", "--days", "3"];
    let (status, _, error) = stack.cli(&arguments).await;
    assert_eq!(status, 0, "{error}");
    assert!(error.contains(message::VISITORS_UNCOUNTED), "{error}");
    let mut database = stack.database().await;
    assert_totals(&mut database, 10, 3_000).await;
    assert_eq!(
        query_number(&mut database, "SELECT sum(visitors)::bigint FROM click_totals_by_day").await,
        0
    );
}

#[tokio::test]
async fn generated_clicks_go_through_the_stream_on_request() {
    let stack = Stack::builder().workers(1).start().await;
    let mut arguments =
        vec!["admin", "generate", "--to-stream", "--links", "10", "--clicks", "5000", "--days"];
    arguments.push("8");
    let (status, _, error) = stack.cli(&arguments).await;
    assert!(status != 0 && error.contains("--days"), "{error}");
    arguments.pop();
    arguments.push("2");
    let (status, _, error) = stack.cli(&arguments).await;
    assert_eq!(status, 0, "{error}");
    let database = tokio::sync::Mutex::new(stack.database().await);
    within(Duration::from_secs(30), "every click in the database", || async {
        query_number(&mut *database.lock().await, "SELECT count(*) FROM all_clicks").await >= 5_000
    })
    .await;
    assert_totals(&mut database.into_inner(), 10, 5_000).await;
}
