//! Quotas of rows per owner.

use linnet_domain::{
    EventDetails, EventType, LinkAttributePatch, LinkFilter, LinkPatch, NewEvent, NewLink,
    OnConflict, Page, ShortCode, UserId, Visibility,
};
use linnet_store::{
    Constraint, GroupedCreates, IdempotencyClaim, ImportEvent, ImportLink, LinkCreation,
    RowOutcome, Store, StoreError, StoredResponse, WriteOptions, WriteRows,
};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::support::{count, create, create_user, new_link, run, target};

/// A store whose connections have the quotas, as those of the processes.
async fn store_with(pool: &PgPool, links: u32, events: u32, keys: u32) -> Store {
    let options = pool.connect_options().as_ref().clone().options([
        ("linnet.links_per_user", links),
        ("linnet.events_per_user", events),
        ("linnet.idempotency_keys_per_user", keys),
    ]);
    Store::new(PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap())
}

/// A store whose connections have quotas of bytes only.
async fn store_with_bytes(pool: &PgPool, links: u32, events: u32, keys: u32) -> Store {
    let options = pool.connect_options().as_ref().clone().options([
        ("linnet.links_bytes_per_user", links),
        ("linnet.events_bytes_per_user", events),
        ("linnet.idempotency_keys_bytes_per_user", keys),
    ]);
    Store::new(PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap())
}

/// Counts as the maintenance task does. Returns the number of owners at a quota.
async fn count_rows(store: &Store) -> u64 {
    let began_at = store.server_time().await.unwrap();
    let mut last = None;
    while let Some(counted) = store.count_rows_of_users(last).await.unwrap() {
        last = Some(counted);
    }
    store.count_idempotency_keys().await.unwrap();
    store.delete_row_counts_before(began_at).await.unwrap()
}

fn link_of(user_id: UserId) -> NewLink {
    NewLink { user_id: Some(user_id), ..new_link(None) }
}

fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Constraint {
    match result {
        Err(StoreError::Conflict(constraint)) => constraint,
        other => panic!("not refused: {other:?}"),
    }
}

fn event_of(link: linnet_domain::LinkId, user_id: UserId, event_type: &str) -> NewEvent {
    NewEvent {
        url_id: link,
        user_id: Some(user_id),
        event_type: EventType::parse_own(event_type).unwrap(),
        details: EventDetails::default(),
    }
}

const OPTIONS: WriteOptions =
    WriteOptions { on_conflict: OnConflict::Update, visible_to: Visibility::All, dry_run: false };

fn import_link(user_id: UserId, code: Option<&str>) -> ImportLink {
    ImportLink {
        id: None,
        user_id: Some(user_id),
        short_code: code.map(|code| ShortCode::parse(code).unwrap()),
        target: target("https://example.com/imported"),
        attributes: LinkAttributePatch::default(),
        created_at: None,
        updated_at: None,
    }
}

async fn import<T: WriteRows>(
    store: &Store,
    rows: &[T],
    options: &WriteOptions,
) -> Vec<RowOutcome> {
    let mut transaction = store.begin().await.unwrap();
    let rows: Vec<&T> = rows.iter().collect();
    let outcomes = T::write(&mut transaction, &rows, options).await.unwrap();
    transaction.commit().await.unwrap();
    outcomes
}

/// The error code of each bad row.
fn codes(outcomes: &[RowOutcome]) -> Vec<&str> {
    let code = |outcome| match outcome {
        &RowOutcome::Written => "written",
        RowOutcome::Skipped => "skipped",
        RowOutcome::Bad(problem) => problem.code.as_str(),
    };
    outcomes.iter().map(code).collect()
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_links_of_a_user_are_bounded_however_they_are_created(pool: PgPool) {
    let store = store_with(&pool, 3, 0, 0).await;
    let full = create_user(&store, "full").await.id;
    let other = create_user(&store, "other").await.id;
    for code in ["one", "two", "three"] {
        create(&store, &NewLink { short_code: ShortCode::parse(code).ok(), ..link_of(full) }).await;
    }
    create(&store, &link_of(other)).await;
    let overshoot = create(&store, &link_of(full)).await;
    assert_eq!(count_rows(&store).await, 1);

    let of_full = link_of(full);
    assert_eq!(refused(store.create_link(&of_full).await), Constraint::LinkQuota);
    let custom = NewLink { short_code: ShortCode::parse("custom").ok(), ..of_full.clone() };
    assert_eq!(refused(store.create_link(&custom).await), Constraint::LinkQuota);
    let reused = store.create_or_reuse_link(&of_full).await.unwrap();
    assert!(matches!(reused, LinkCreation::Reused(_)), "{reused:?}");
    let unlike = NewLink { target: target("https://example.com/new"), ..of_full.clone() };
    assert_eq!(refused(store.create_or_reuse_link(&unlike).await), Constraint::LinkQuota);
    // One owner of a group does not stop the others.
    let grouped = GroupedCreates::new(store.clone());
    let links = [link_of(other), of_full.clone(), link_of(other), new_link(None)];
    let results = futures::future::join_all(links.map(|new| grouped.create(new))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3, "{results:?}");
    let IdempotencyClaim::New(mut first) = store.begin_idempotent("o", "k", b"").await.unwrap()
    else {
        panic!("a new key")
    };
    assert_eq!(refused(first.create_link(&of_full, false).await), Constraint::LinkQuota);
    drop(first);
    // Rows that change existing links are written.
    let rows = [
        import_link(full, None),
        import_link(full, Some("new-code")),
        import_link(full, Some("one")),
        import_link(other, None),
    ];
    let outcomes = import(&store, &rows, &OPTIONS).await;
    assert_eq!(codes(&outcomes), ["too_many_links", "too_many_links", "written", "written"]);
    assert_eq!(count(&pool, "SELECT count(*) FROM urls WHERE short_code = 'new-code'").await, 0);

    // Deletions and changes are possible, and below the quota creates are again.
    let patch =
        LinkPatch::from(LinkAttributePatch { is_active: Some(false), ..Default::default() });
    let ids = [overshoot.id];
    assert_eq!(
        store.update_links(&ids, Visibility::All, Some(full), &patch).await.unwrap().len(),
        1
    );
    store.delete_links(&ids, Visibility::All, Some(full)).await.unwrap();
    assert_eq!(count_rows(&store).await, 2, "the other user has four links meanwhile");
    run(&pool, "DELETE FROM urls WHERE short_code = 'one'").await;
    assert_eq!(count_rows(&store).await, 1);
    create(&store, &of_full).await;
}

/// An import obeys the quota although nothing has counted since it began.
#[sqlx::test(migrations = "../../migrations")]
async fn must_26_imports_count_their_own_rows(pool: PgPool) {
    let store = store_with(&pool, 5, 7, 0).await;
    let user = create_user(&store, "importer").await.id;
    create(&store, &link_of(user)).await;
    let rows = [(); 2].map(|()| import_link(user, None));
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.extend(import(&store, &rows, &OPTIONS).await);
    }
    let written = ["written"; 4].into_iter().chain(["too_many_links"; 4]);
    assert_eq!(codes(&outcomes), written.collect::<Vec<_>>());
    let link = store.list_links(&LinkFilter::default(), Visibility::All, Page::default()).await;
    let link = link.unwrap().links[0].id;
    let event = |id: i64| ImportEvent {
        id: id.try_into().unwrap(),
        url_id: Some(link),
        user_id: Some(user),
        event_type: "deleted".to_owned(),
        timestamp: chrono::DateTime::UNIX_EPOCH,
        details: EventDetails::default(),
    };
    let mut outcomes = Vec::new();
    for id in [1_000, 1_001, 1_002, 1_003] {
        outcomes.extend(import(&store, &[event(id)], &OPTIONS).await);
    }
    assert_eq!(codes(&outcomes), ["written", "written", "too_many_events", "too_many_events"]);
    // A dry run counts nothing.
    let counted = "SELECT rows FROM owner_row_counts WHERE kind = 'events'";
    assert_eq!(count(&pool, counted).await, 7);
    let mut transaction = store.begin().await.unwrap();
    let other = create_user(&store, "other").await.id;
    ImportLink::write(&mut transaction, &[&import_link(other, None)], &OPTIONS).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(count(&pool, "SELECT count(DISTINCT owner) FROM owner_row_counts").await, 1);
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_events_of_a_user_are_bounded_however_they_are_caused(pool: PgPool) {
    let store = store_with(&pool, 0, 4, 0).await;
    let full = create_user(&store, "full").await.id;
    let other = create_user(&store, "other").await.id;
    let links = [create(&store, &link_of(full)).await.id, create(&store, &link_of(full)).await.id];
    // A change of many links is counted at once.
    let patch = LinkPatch::from(LinkAttributePatch { is_active: Some(true), ..Default::default() });
    let owner = Visibility::Owner(full);
    assert_eq!(store.update_links(&links, owner, Some(full), &patch).await.unwrap().len(), 2);
    let change = store.update_link(links[0], owner, Some(full), &patch).await;
    assert_eq!(refused(change), Constraint::EventQuota);
    assert_eq!(refused(store.create_link(&link_of(full)).await), Constraint::EventQuota);
    for event_type in ["x", "y", "z"] {
        let event = event_of(links[0], full, event_type);
        assert_eq!(refused(store.create_event(&event, owner).await), Constraint::EventQuota);
    }
    let rows = [import_link(full, None), import_link(other, None)];
    let outcomes = import(&store, &rows, &OPTIONS).await;
    assert_eq!(codes(&outcomes), ["too_many_events", "written"]);
    let code: String = sqlx::query_scalar("SELECT short_code FROM urls WHERE id = $1")
        .bind(links[0].get())
        .fetch_one(&pool)
        .await
        .unwrap();
    let own = WriteOptions { visible_to: owner, ..OPTIONS };
    let outcomes = import(&store, &[import_link(full, Some(&code))], &own).await;
    assert_eq!(codes(&outcomes), ["too_many_events"]);

    // Another user, an administrator, may do all that to the same links; and deletions always work.
    store.update_link(links[0], Visibility::All, Some(other), &patch).await.unwrap().unwrap();
    let event = event_of(links[0], other, "x");
    store.create_event(&event, Visibility::All).await.unwrap().unwrap();
    assert!(store.delete_link(links[0], owner, Some(full)).await.unwrap().is_some());
    assert_eq!(count_rows(&store).await, 1);
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_idempotency_keys_of_an_owner_are_bounded(pool: PgPool) {
    let store = store_with(&pool, 0, 0, 2).await;
    let begin =
        async |owner: &str, key: &str| store.begin_idempotent(owner, key, b"h").await.unwrap();
    let response = StoredResponse { status: 201, location: None, body: "{}".into() };
    for key in ["a", "b"] {
        let IdempotencyClaim::New(first) = begin("address:x", key).await else { panic!("new") };
        first.finish(&response).await.unwrap();
    }
    assert_eq!(count_rows(&store).await, 1);
    assert!(matches!(begin("address:x", "c").await, IdempotencyClaim::TooMany));
    assert!(matches!(begin("address:x", "a").await, IdempotencyClaim::Replay(_)));
    assert!(matches!(begin("address:y", "c").await, IdempotencyClaim::New(_)));
    run(&pool, "DELETE FROM idempotency_keys").await;
    assert_eq!(count_rows(&store).await, 0);
    assert!(matches!(begin("address:x", "c").await, IdempotencyClaim::New(_)));
}

fn long_target(bytes: usize) -> linnet_domain::TargetUrl {
    let begin = "https://example.com/";
    target(&format!("{begin}{}", "x".repeat(bytes - begin.len())))
}

fn patch_of(target: linnet_domain::TargetUrl) -> LinkPatch {
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

/// Without settings, as in the previous release and on the command line, and with 0.
#[sqlx::test(migrations = "../../migrations")]
async fn a_connection_without_quotas_refuses_and_counts_nothing(pool: PgPool) {
    let user = create_user(&Store::new(pool.clone()), "user").await.id;
    run(
        &pool,
        "INSERT INTO owner_row_counts (owner, kind, rows, bytes)
        SELECT 'user:' || id, kind, 1000000, 1000000000 FROM users
         CROSS JOIN UNNEST(ARRAY['links', 'events', 'idempotency_keys']) AS kind",
    )
    .await;
    for store in [Store::new(pool.clone()), store_with(&pool, 0, 0, 0).await] {
        let link = create(&store, &link_of(user)).await;
        let event = event_of(link.id, user, "x");
        store.create_event(&event, Visibility::All).await.unwrap().unwrap();
        let outcomes = import(&store, &[import_link(user, None)], &OPTIONS).await;
        assert_eq!(codes(&outcomes), ["written"]);
        let claim = store.begin_idempotent(&format!("user:{user}"), "k", b"h").await.unwrap();
        assert!(matches!(claim, IdempotencyClaim::New(_)));
    }
    assert_eq!(count(&pool, "SELECT max(rows) FROM owner_row_counts").await, 1_000_000);
}
