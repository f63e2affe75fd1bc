//! The click pipeline, from the redirect to the roll-ups.

mod capacity;
mod country;
mod erased_links;
mod poison_batches;
mod shards;
mod shortener_restarts;
mod store_outages;
mod support;
mod unique_visitors;
mod untrusted_visits;
mod worker_failures;

use serde_json::json;

use support::{assert_clicks_exactly, builder, create_link};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clicks_are_recorded_with_their_properties() {
    let stack = builder().start().await;
    let client = stack.client();
    let target = "https://example.com/?utm_source=mail&utm_campaign=spring";
    let (id, code) = create_link(&client, &json!({"original_url": target})).await;
    let path = format!("/{code}");
    let visitor = client.anonymous();
    for _ in 0..3 {
        let visit = visitor.get(&path).header("referer", "https://www.news.example/a?b");
        assert_eq!(visit.header("accept-language", "de-CH,de;q=0.9").send().await.status, 302);
    }
    assert_eq!(visitor.head(&path).send().await.status, 302);
    assert_eq!(visitor.get(&path).user_agent("Googlebot/2.1").send().await.status, 302);
    let prefetch = visitor.get(&path).header("sec-purpose", "prefetch;prerender");
    assert_eq!(prefetch.send().await.status, 302);
    assert_eq!(visitor.get(&path).header("sec-gpc", "1").send().await.status, 302);
    assert_clicks_exactly(&stack, 7).await;

    let mut database = stack.database().await;
    let kinds: Vec<(i16, i64, i64)> = sqlx::query_as(
        "SELECT kind, count(*), count(visitor) FROM all_clicks WHERE url_id = $1 GROUP BY 1 ORDER BY 1",
    )
    .bind(id)
    .fetch_all(&mut database)
    .await
    .unwrap();
    assert_eq!(kinds, [(0, 4, 3), (1, 1, 1), (2, 1, 1), (3, 1, 1)]);
    let values: Vec<(i16, Vec<String>, i64)> = sqlx::query_as(
        "SELECT kind, parts, clicks FROM click_totals_by_value JOIN click_values ON id = value_id
          WHERE subject = $1 ORDER BY 1, 2",
    )
    .bind(id)
    .fetch_all(&mut database)
    .await
    .unwrap();
    let value = |kind: i16, parts: &[&str], clicks: i64| {
        (kind, parts.iter().map(ToString::to_string).collect::<Vec<_>>(), clicks)
    };
    assert_eq!(
        values,
        [
            value(1, &["Firefox", "Linux", "desktop"], 4),
            value(2, &["", "de"], 3),
            value(3, &["news.example"], 3),
            value(4, &["mail", "", "spring"], 4),
        ]
    );
    let visitors: i64 =
        sqlx::query_scalar("SELECT visitors FROM click_totals_by_day WHERE subject = $1")
            .bind(id)
            .fetch_one(&mut database)
            .await
            .unwrap();
    assert_eq!(visitors, 1);
    let shown = client.get(&format!("/api/v1/urls/{id}")).send().await.json();
    assert_eq!(shown["clicks"], 4, "bots, prefetches and `HEAD` do not count");
}
