//! `max_clicks`: exact under concurrency and outages, and what counts as a click.

use std::time::Duration;

use linnet_system_tests::{Load, Stack, client::Method, stack::Postgres, within};
use serde_json::json;
use sqlx::Connection as _;

const LIMIT: usize = 50;
const VISITORS: usize = 1_000;

/// Visits a link [`VISITORS`] times concurrently. Returns the number of redirects, the number of 404s and
/// all other statuses.
async fn visit_concurrently(stack: &Stack, code: &str) -> (usize, usize, Vec<u16>) {
    let (client, path) = (stack.client().anonymous(), format!("/{code}"));
    let visits = (0..VISITORS).map(|_| client.get(&path).send());
    let responses = futures::future::join_all(visits).await;
    let count = |status| responses.iter().filter(|response| response.status == status).count();
    let others =
        responses.iter().map(|a| a.status).filter(|status| ![302, 404].contains(status)).collect();
    (count(302), count(404), others)
}

/// Creates a link with a limit and returns its id and short code.
async fn create_limited_link(stack: &Stack, max_clicks: usize) -> (i64, String) {
    let body = json!({"original_url": "https://example.com/", "max_clicks": max_clicks});
    let link = stack.client().shorten(&body).await;
    (link["id"].as_i64().unwrap(), link["short_code"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_05_limit_of_50_redirects_50_of_1000_concurrent_visits() {
    let stack = Stack::builder().shorteners(2).start().await;
    let (id, code) = create_limited_link(&stack, LIMIT).await;
    let (redirected, not_found, others) = visit_concurrently(&stack, &code).await;
    assert_eq!((redirected, not_found, others), (LIMIT, VISITORS - LIMIT, vec![]));
    let link = stack.client().get(&format!("/api/v1/urls/{id}")).send().await.json();
    assert_eq!(link["clicks"], LIMIT);

    // A limit that is higher by one allows one more click.
    let patch = json!({"max_clicks": LIMIT + 1});
    assert_eq!(
        stack.client().patch(&format!("/api/v1/urls/{id}"), &patch).send().await.status,
        200
    );
    let (redirected, _, _) = visit_concurrently(&stack, &code).await;
    assert_eq!(redirected, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_05_limit_is_exact_while_redis_crashes_and_restarts() {
    let mut stack = Stack::builder().shorteners(2).start().await;
    let (_, code) = create_limited_link(&stack, 5_000).await;
    let (client, path) = (stack.client().anonymous(), format!("/{code}"));
    let load = Load::start(32, move |_| {
        let visit = client.get(&path).send();
        async move { visit.await.status.to_string() }
    });
    load.wait_for_requests(500).await;
    stack.redis.kill().await;
    load.wait_for_requests(500).await;
    stack.start_redis().await;
    within(Duration::from_secs(60), "404 at the limit", || async {
        stack.client().get(&format!("/{code}")).user_agent("Googlebot/2.1").send().await.status
            == 404
    })
    .await;
    load.wait_for_requests(100).await;
    let counts = load.finish().await;
    assert_eq!(counts.get("302"), Some(&5_000), "{counts:?}");
    assert!(counts.keys().all(|status| ["302", "404"].contains(&status.as_str())), "{counts:?}");
}

/// nginx repeats a visit whose shortener dies, and PostgreSQL finishes the statement of the dead process nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_05_a_visit_that_nginx_repeats_uses_up_one_click() {
    let mut stack = Stack::builder()
        .shorteners(2)
        .postgres(Postgres::Own)
        .env("LINNET__POSTGRES__LOCK_TIMEOUT_MS", 20_000)
        .env("LINNET__POSTGRES__STATEMENT_TIMEOUT_MS", 20_000)
        .env("LINNET__RESOLVE__DATABASE_TIMEOUT_MS", 20_000)
        // nginx uses its upstreams in turn, each worker process by itself.
        .nginx_env("LINNET_NGINX_WORKERS", 1)
        .start()
        .await;
    let (_, code) = create_limited_link(&stack, 2).await;
    let (mut holder, mut database) = (stack.database().await, stack.database().await);
    let mut lock = holder.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM urls FOR UPDATE").execute(&mut *lock).await.unwrap();
    let mut visits = Vec::new();
    for waiting in 1..=2 {
        let (client, path) = (stack.client().anonymous(), format!("/{code}"));
        visits.push(tokio::spawn(async move { client.get(&path).send().await.status }));
        wait_for_locks(&mut database, waiting).await;
    }
    stack.shorteners[0].kill().await;
    // The statements of the dead process and of the other one, and the repetition.
    wait_for_locks(&mut database, 3).await;
    lock.rollback().await.unwrap();
    for visit in visits {
        assert_eq!(visit.await.unwrap(), 302);
    }
    let clicks = "SELECT clicks FROM urls";
    let clicks: i64 = sqlx::query_scalar(clicks).fetch_one(&mut database).await.unwrap();
    assert_eq!(clicks, 2);
    assert_eq!(stack.client().resolve(&code).await.0, 404, "no click is left");
}

/// Waits until this many statements wait for the lock of a row.
async fn wait_for_locks(database: &mut sqlx::PgConnection, count: i64) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let found: i64 = sqlx::query_scalar(waiting).fetch_one(&mut *database).await.unwrap();
        if found == count {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "{found} of {count} statements wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn must_30_only_a_person_uses_up_a_click_and_gets_in_after_any_other() {
    let stack = Stack::builder().shorteners(2).start().await;
    let (client, visitor) = (stack.client(), stack.client().anonymous());
    for (name, value) in [
        ("sec-purpose", "prefetch"),
        ("sec-purpose", "prefetch;prerender"),
        ("sec-purpose", "prefetch;anonymous-client-ip"),
        ("Sec-Purpose", "PREFETCH"),
        ("purpose", "prefetch"),
        ("purpose", "preview"),
        ("x-moz", "prefetch"),
        ("x-purpose", "preview"),
    ] {
        let (id, code) = create_limited_link(&stack, 1).await;
        let path = format!("/{code}");
        for _ in 0..2 {
            let refused = visitor.get(&path).header(name, value).send().await;
            assert_eq!(refused.status, 503, "{name}: {value}");
            assert_eq!(refused.header("cache-control"), Some("no-store"));
            assert_eq!(refused.header("location"), None);
            assert_eq!(visitor.head(&path).header(name, value).send().await.status, 302);
        }
        let link = client.get(&format!("/api/v1/urls/{id}")).send().await.json();
        assert_eq!(link["clicks"], 0, "{name}: {value}");
        assert_eq!(visitor.get(&path).send().await.status, 302, "the person after {name}");
        assert_eq!(visitor.get(&path).header(name, value).send().await.status, 404);
    }
    // A link without a limit answers a prefetch.
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let path = format!("/{}", link["short_code"].as_str().unwrap());
    let prefetch = visitor.get(&path).header("sec-purpose", "prefetch;prerender").send().await;
    assert_eq!(prefetch.status, 302);
    // Refused prefetches are counted, but not as errors.
    let metrics = stack.shortener_metrics(0).await;
    let metrics_1 = stack.shortener_metrics(1).await;
    let sum = |name: &str, labels: &[(&str, &str)]| {
        metrics.sum(name, labels) + metrics_1.sum(name, labels)
    };
    assert_eq!(sum("linnet_resolve_responses", &[("outcome", "prefetch_refused")]), 16.0);
    let name = "http_server_request_duration_seconds_count";
    assert_eq!(sum(name, &[("http_response_status_code", "503")]), 0.0);
}

#[tokio::test]
async fn must_05_head_requests_and_bots_use_up_no_clicks() {
    let stack = Stack::builder().shorteners(2).start().await;
    let (id, code) = create_limited_link(&stack, 1).await;
    let (client, path) = (stack.client().anonymous(), format!("/{code}"));
    let bots = [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
        "Twitterbot/1.0",
    ];
    for _ in 0..3 {
        assert_eq!(client.head(&path).send().await.status, 302, "HEAD");
        for agent in bots {
            assert_eq!(client.get(&path).user_agent(agent).send().await.status, 302, "{agent}");
        }
    }
    let clicks = || async {
        stack.client().get(&format!("/api/v1/urls/{id}")).send().await.json()["clicks"].clone()
    };
    assert_eq!(clicks().await, 0);
    assert_eq!(client.get(&path).send().await.status, 302);
    assert_eq!(clicks().await, 1);
    assert_eq!(client.get(&path).send().await.status, 404);
    assert_eq!(client.head(&path).send().await.status, 404, "`HEAD` after the last click");
    assert_eq!(client.get(&path).user_agent(bots[0]).send().await.status, 404);
}

#[tokio::test]
async fn only_methods_that_a_link_redirects_use_up_clicks() {
    let stack = Stack::start().await;
    let target = "https://example.com/";
    let body = json!({"original_url": target, "max_clicks": 1, "redirect_status": 307});
    let link = stack.client().shorten(&body).await;
    let path = format!("/{}", link["short_code"].as_str().unwrap());
    let visitor = stack.client().anonymous();
    for (method, status) in [("OPTIONS", 204), ("DELETE", 405), ("PROPFIND", 405)] {
        let response = visitor.request(method.parse().unwrap(), &path).send().await;
        assert_eq!(response.status, status, "{method}");
        let allow = response.header("allow");
        assert_eq!(allow, Some("GET, HEAD, POST, PUT, PATCH, OPTIONS"), "{method}");
    }
    assert_eq!(visitor.request(Method::POST, &path).send().await.status, 307);
    assert_eq!(visitor.request(Method::POST, &path).send().await.status, 404);
    assert_eq!(visitor.request(Method::OPTIONS, &path).send().await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_05_a_new_limit_counts_the_clicks_that_are_on_their_way() {
    let stack = Stack::builder()
        .shorteners(2)
        .workers(1)
        // Unoptimized processes on a busy machine record clicks late.
        .env("LINNET__LINKS__LIMIT_SETTLE_MS", 8_000)
        .start()
        .await;
    let client = stack.client();
    for (number, is_bulk) in [false, true].into_iter().enumerate() {
        let body = json!({"original_url": format!("https://example.com/{number}")});
        let link = client.shorten(&body).await;
        let (id, code) = (&link["id"], link["short_code"].as_str().unwrap());
        let (redirected, ..) = visit_concurrently(&stack, code).await;
        assert_eq!(redirected, VISITORS);
        // Follows the clicks within a second, so most of them have not reached the row yet.
        let change = json!({"max_clicks": VISITORS + 3});
        let response = if is_bulk {
            let body = json!({"ids": [id], "change": change});
            client.patch("/api/v1/urls/bulk", &body).send().await
        } else {
            client.patch(&format!("/api/v1/urls/{id}"), &change).send().await
        };
        assert_eq!(response.status, 200, "{}", response.text());
        let mut statuses = Vec::new();
        for _ in 0..5 {
            statuses.push(client.anonymous().get(&format!("/{code}")).send().await.status);
        }
        assert_eq!(statuses, [302, 302, 302, 404, 404]);
    }
}
