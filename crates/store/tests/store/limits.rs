use std::time::Duration;

use linnet_domain::{LinkAttributePatch, LinkPatch, Visibility};
use linnet_store::Store;
use sqlx::PgPool;

use crate::support::{count, create, new_link, run};

#[sqlx::test(migrations = "../../migrations")]
async fn must_05_max_clicks_is_exact_under_concurrency(pool: PgPool) {
    let store = Store::new(pool);
    let mut new = new_link(Some("limited"));
    new.attributes.max_clicks = Some(50);
    create(&store, &new).await;
    let clicks =
        futures::future::join_all((0..400).map(|_| store.consume_click("limited", None))).await;
    let passed = clicks.iter().filter(|click| matches!(click, Ok(Some(_)))).count();
    assert!(clicks.iter().all(Result::is_ok));
    assert_eq!(passed, 50);
    assert!(store.peek_click("limited").await.unwrap().is_none());
}

#[sqlx::test(migrations = "../../migrations")]
async fn peeking_counts_no_click_and_other_limits_apply(pool: PgPool) {
    let store = Store::new(pool);
    let mut new = new_link(Some("limited"));
    new.attributes.max_clicks = Some(1);
    let link = create(&store, &new).await;
    for _ in 0..3 {
        assert!(store.peek_click("limited").await.unwrap().is_some());
    }
    let off = LinkPatch::from(LinkAttributePatch {
        is_active: Some(false),
        ..LinkAttributePatch::default()
    });
    store.update_link(link.id, Visibility::All, None, &off).await.unwrap();
    assert!(store.consume_click("limited", None).await.unwrap().is_none());

    let past = chrono::Utc::now() - Duration::from_secs(1);
    let expired = LinkPatch::from(LinkAttributePatch {
        is_active: Some(true),
        expires_at: Some(Some(past)),
        ..LinkAttributePatch::default()
    });
    store.update_link(link.id, Visibility::All, None, &expired).await.unwrap();
    assert!(store.consume_click("limited", None).await.unwrap().is_none());

    let unlimited = LinkPatch::from(LinkAttributePatch {
        expires_at: Some(None),
        max_clicks: Some(None),
        ..LinkAttributePatch::default()
    });
    store.update_link(link.id, Visibility::All, None, &unlimited).await.unwrap();
    for _ in 0..3 {
        assert!(store.consume_click("limited", None).await.unwrap().is_some());
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_05_clicks_count_against_a_new_limit_after_it_has_settled(pool: PgPool) {
    let store = Store::new(pool.clone());
    let link = create(&store, &new_link(Some("limited"))).await;
    let limit = |max_clicks| {
        LinkPatch::from(LinkAttributePatch {
            max_clicks: Some(max_clicks),
            ..LinkAttributePatch::default()
        })
    };
    store.update_link(link.id, Visibility::All, None, &limit(Some(5))).await.unwrap();
    assert!(store.consume_click("limited", None).await.unwrap().is_none());
    let wait = store.limit_settles_in("limited").await.unwrap().unwrap();
    assert!(wait <= Duration::from_secs(2));
    // The clicks from before the limit reach the row and use up the limit.
    sqlx::query("UPDATE urls SET clicks = clicks + 5").execute(&pool).await.unwrap();
    assert_eq!(store.limit_settles_in("limited").await.unwrap(), None);
    assert!(store.consume_click("limited", None).await.unwrap().is_none());

    // A change of an existing limit takes effect at once, because every click under a limit is counted at once.
    sqlx::query("UPDATE urls SET limit_counts_from = now()").execute(&pool).await.unwrap();
    store.update_link(link.id, Visibility::All, None, &limit(Some(6))).await.unwrap();
    assert_eq!(store.limit_settles_in("limited").await.unwrap(), None);
    assert!(store.consume_click("limited", None).await.unwrap().is_some());
    assert!(store.consume_click("limited", None).await.unwrap().is_none());
    store.update_link(link.id, Visibility::All, None, &limit(None)).await.unwrap();
    assert!(store.consume_click("limited", None).await.unwrap().is_some(), "without a limit");
}

#[sqlx::test(migrations = "../../migrations")]
async fn most_clicked_returns_active_links_only(pool: PgPool) {
    let store = Store::new(pool);
    for (code, clicks) in [("cold", 0), ("hot", 3), ("warm", 1)] {
        create(&store, &new_link(Some(code))).await;
        for _ in 0..clicks {
            store.consume_click(code, None).await.unwrap();
        }
    }
    let off = LinkPatch::from(LinkAttributePatch {
        is_active: Some(false),
        ..LinkAttributePatch::default()
    });
    let inactive = create(&store, &new_link(Some("inactive"))).await;
    store.update_link(inactive.id, Visibility::All, None, &off).await.unwrap();
    let mut codes = Vec::new();
    store.most_clicked(2, |row| codes.push(row.short_code)).await.unwrap();
    codes.sort_unstable();
    assert_eq!(codes, ["hot", "warm"]);
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_05_a_click_without_a_redirect_is_given_back(pool: PgPool) {
    let store = Store::new(pool);
    let mut new = new_link(Some("limited"));
    new.attributes.max_clicks = Some(1);
    let link = create(&store, &new).await;
    for _ in 0..3 {
        assert!(store.consume_click("limited", None).await.unwrap().is_some());
        assert!(store.consume_click("limited", None).await.unwrap().is_none());
        store.return_click(link.id, None).await.unwrap();
    }
    store.return_click(link.id, None).await.unwrap();
    assert!(
        store.consume_click("limited", None).await.unwrap().is_some(),
        "the count is never negative"
    );
    assert!(store.consume_click("limited", None).await.unwrap().is_none());
}

/// nginx repeats a visit whose shortener has died. The statement of the dead process may run before or after that.
#[sqlx::test(migrations = "../../migrations")]
async fn must_05_a_repeated_visit_uses_up_one_click(pool: PgPool) {
    let store = Store::new(pool.clone());
    let mut new = new_link(Some("limited"));
    new.attributes.max_clicks = Some(2);
    let link = create(&store, &new).await;
    let consume =
        async |visit| store.consume_click("limited", Some(visit)).await.unwrap().is_some();
    assert!(consume(7).await && consume(7).await, "a visit and its repetition");
    assert_eq!(count(&pool, "SELECT clicks FROM urls").await, 1);
    // The first process did not die, and gives back the click that the repetition has used.
    store.return_click(link.id, Some(7)).await.unwrap();
    assert_eq!(count(&pool, "SELECT clicks FROM urls").await, 1);
    assert!(consume(8).await, "the last click");
    assert!(!consume(9).await);
    assert!(consume(8).await, "its repetition, although no click is left");
    assert!(!consume(8).await, "which is accepted once");
    assert_eq!(count(&pool, "SELECT clicks FROM urls").await, 2);

    // A click that is given back is free, also for the same visit.
    run(&pool, "UPDATE urls SET clicks = 0").await;
    for _ in 0..2 {
        assert!(consume(10).await);
        store.return_click(link.id, Some(10)).await.unwrap();
        assert_eq!(count(&pool, "SELECT clicks FROM urls").await, 0);
    }
    // The last 32 visits are remembered, and a link without a limit remembers none.
    run(&pool, "UPDATE urls SET max_clicks = 100").await;
    for visit in 100..140 {
        assert!(consume(visit).await);
    }
    let kept = "SELECT min(visit) * 1000 + count(*) FROM urls, UNNEST(recent_visits) AS visit";
    assert_eq!(count(&pool, kept).await, 108_032);
    // The first one is forgotten, but its click is given back: no repetition has it.
    store.return_click(link.id, Some(100)).await.unwrap();
    assert_eq!(count(&pool, "SELECT clicks FROM urls").await, 39);
    // A repetition of it has used up a click of its own, which is given back, too.
    assert!(consume(101).await);
    store.return_click(link.id, Some(101)).await.unwrap();
    assert_eq!(count(&pool, "SELECT clicks FROM urls").await, 39);
    run(&pool, "UPDATE urls SET max_clicks = NULL, recent_visits = NULL").await;
    assert!(consume(200).await);
    assert_eq!(count(&pool, "SELECT count(recent_visits) FROM urls").await, 0);
}
