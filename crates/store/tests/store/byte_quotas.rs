//! Quotas of bytes per owner.

use linnet_domain::{
    EventDetails, LinkAttributePatch, LinkPatch, NewEvent, NewLink, TargetUrl, Visibility,
};
use linnet_store::{Constraint, IdempotencyClaim, ImportLink, Store, StoredResponse};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    quotas::{OPTIONS, codes, count_rows, event_of, import, import_link, link_of, refused},
    support::{count, create, create_user, run, target},
};

/// A store whose connections have quotas of bytes only.
async fn store_with_bytes(pool: &PgPool, links: u32, events: u32, keys: u32) -> Store {
    let options = pool.connect_options().as_ref().clone().options([
        ("linnet.links_bytes_per_user", links),
        ("linnet.events_bytes_per_user", events),
        ("linnet.idempotency_keys_bytes_per_user", keys),
    ]);
    Store::new(PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap())
}

fn long_target(bytes: usize) -> TargetUrl {
    let begin = "https://example.com/";
    target(&format!("{begin}{}", "x".repeat(bytes - begin.len())))
}

fn patch_of(target: TargetUrl) -> LinkPatch {
    LinkPatch { target: Some(target), ..LinkAttributePatch::default().into() }
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_bytes_of_links_are_bounded_however_they_are_written(pool: PgPool) {
    let store = store_with_bytes(&pool, 20_000, 0, 0).await;
    let full = create_user(&store, "full").await.id;
    let other = create_user(&store, "other").await.id;
    let long = NewLink { target: long_target(8_000), ..link_of(full) };
    let first = create(&store, &long).await;
    create(&store, &long).await;
    assert_eq!(count_rows(&store).await, 0, "16,000 bytes");
    let second = create(&store, &long).await;
    assert_eq!(count_rows(&store).await, 1, "24,000 bytes");

    assert_eq!(refused(store.create_link(&link_of(full)).await), Constraint::LinkQuota);
    let rows = [import_link(full, None), import_link(other, None)];
    assert_eq!(codes(&import(&store, &rows, &OPTIONS).await), ["too_many_links", "written"]);
    // A link cannot become longer, by the owner or anybody else, but it can become shorter and change otherwise.
    let owner = Visibility::Owner(full);
    for (actor, visible_to) in [(full, owner), (other, Visibility::All)] {
        let longer = patch_of(long_target(8_001));
        let change = store.update_link(first.id, visible_to, Some(actor), &longer).await;
        assert_eq!(refused(change), Constraint::LinkQuota);
    }
    let title = LinkAttributePatch { title: Some(Some("t".into())), ..Default::default() };
    let change = store.update_link(first.id, owner, Some(full), &title.into()).await;
    assert_eq!(refused(change), Constraint::LinkQuota);
    let inactive = LinkAttributePatch { is_active: Some(false), ..Default::default() };
    store.update_link(first.id, owner, Some(full), &inactive.into()).await.unwrap().unwrap();
    for (id, bytes) in [(first.id, 7_999), (second.id, 100)] {
        let shorter = patch_of(long_target(bytes));
        store.update_link(id, owner, Some(full), &shorter).await.unwrap().unwrap();
    }
    assert_eq!(count_rows(&store).await, 0);
    create(&store, &link_of(full)).await;
}

/// Imports and changes of many links obey the quota although nothing has counted since they began.
#[sqlx::test(migrations = "../../migrations")]
async fn must_26_imports_and_changes_of_many_links_count_their_own_bytes(pool: PgPool) {
    let store = store_with_bytes(&pool, 20_000, 30_000, 0).await;
    let user = create_user(&store, "importer").await.id;
    let row = || ImportLink { target: long_target(5_000), ..import_link(user, None) };
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.extend(import(&store, &[row(), row()], &OPTIONS).await);
    }
    let written = ["written"; 4].into_iter().chain(["too_many_links"; 4]);
    assert_eq!(codes(&outcomes), written.collect::<Vec<_>>());

    let changer = create_user(&store, "changer").await.id;
    let owner = Visibility::Owner(changer);
    let links =
        [create(&store, &link_of(changer)).await.id, create(&store, &link_of(changer)).await.id];
    let change = |bytes| {
        let (store, patch) = (&store, patch_of(long_target(bytes)));
        async move { store.update_links(&links, owner, Some(changer), &patch).await }
    };
    // 2 × 8,000 bytes of links and of events, then 2 × 8,001.
    assert_eq!(change(8_000).await.unwrap().len(), 2);
    assert_eq!(change(8_001).await.unwrap().len(), 2);
    assert_eq!(refused(change(8_002).await), Constraint::LinkQuota);
    assert_eq!(refused(change(100).await), Constraint::EventQuota);
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_bytes_of_events_are_bounded(pool: PgPool) {
    let store = store_with_bytes(&pool, 0, 40_000, 0).await;
    let full = create_user(&store, "full").await.id;
    let other = create_user(&store, "other").await.id;
    let link = create(&store, &link_of(full)).await.id;
    // jsonb of 2 kB is compressed, so the text must not repeat itself.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'0' + u8::try_from((state >> 33) % 75).unwrap())
    });
    let noise: String = noise.filter(char::is_ascii_alphanumeric).take(12_000).collect();
    let details = EventDetails::from_value(&serde_json::json!({"noise": noise})).unwrap();
    let event = |user_id| NewEvent { details: details.clone(), ..event_of(link, user_id, "x") };
    for _ in 0..4 {
        store.create_event(&event(full), Visibility::All).await.unwrap().unwrap();
    }
    assert_eq!(count_rows(&store).await, 1);
    assert_eq!(
        refused(store.create_event(&event(full), Visibility::All).await),
        Constraint::EventQuota
    );
    assert_eq!(refused(store.create_link(&link_of(full)).await), Constraint::EventQuota);
    store.create_event(&event(other), Visibility::All).await.unwrap().unwrap();
    assert!(store.delete_link(link, Visibility::All, Some(full)).await.unwrap().is_some());
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_bytes_of_stored_responses_are_bounded(pool: PgPool) {
    let store = store_with_bytes(&pool, 0, 0, 10_000).await;
    let begin =
        async |owner: &str, key: &str| store.begin_idempotent(owner, key, b"h").await.unwrap();
    let response = StoredResponse { status: 201, location: None, body: "x".repeat(6_000) };
    for (key, owners_at_quota) in [("a", 0), ("b", 1)] {
        let IdempotencyClaim::New(first) = begin("user:7", key).await else { panic!("new") };
        first.finish(&response).await.unwrap();
        assert_eq!(count_rows(&store).await, owners_at_quota, "{key}");
    }
    assert!(matches!(begin("user:7", "c").await, IdempotencyClaim::TooMany));
    assert!(matches!(begin("user:7", "a").await, IdempotencyClaim::Replay(_)));
    assert!(matches!(begin("user:8", "c").await, IdempotencyClaim::New(_)));
}

/// Of many rows, a sample is measured, wherever the long ones are.
#[sqlx::test(migrations = "../../migrations")]
async fn bytes_of_many_rows_are_estimated_from_a_sample(pool: PgPool) {
    let store = store_with_bytes(&pool, 10_000_000, 0, 0).await;
    create_user(&store, "many").await;
    // 20,000 links of 100 bytes, then 1,000 of 8,000 after a gap in the ids, then one far away: 10 MB.
    run(
        &pool,
        "INSERT INTO urls (id, user_id, short_code, original_url)
         SELECT CASE WHEN n <= 20000 THEN n WHEN n <= 21000 THEN 1000000 + n ELSE 900000000 END,
                users.id, 'many-' || n,
                rpad('https://example.com/', CASE WHEN n BETWEEN 20001 AND 21000 THEN 8000 ELSE 100 END, 'x')
           FROM generate_series(1, 21001) AS n, users",
    )
    .await;
    count_rows(&store).await;
    let bytes = count(&pool, "SELECT bytes FROM owner_row_counts WHERE kind = 'links'").await;
    // The standard deviation of the estimate is 1.1 MB.
    assert!((4_000_000..16_000_000).contains(&bytes), "{bytes}");
}
