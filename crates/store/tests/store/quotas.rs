//! Quotas of rows per owner.

use std::time::Duration;

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

/// Counts as the maintenance task does. Returns the number of owners at a quota.
pub(crate) async fn count_rows(store: &Store) -> u64 {
    let began_at = store.server_time().await.unwrap();
    let mut last = None;
    while let Some(counted) = store.count_rows_of_users(last, 100).await.unwrap() {
        last = Some(counted);
    }
    store.count_idempotency_keys().await.unwrap();
    store.delete_row_counts_before(began_at).await.unwrap()
}

pub(crate) fn link_of(user_id: UserId) -> NewLink {
    NewLink { user_id: Some(user_id), ..new_link(None) }
}

pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Constraint {
    match result {
        Err(StoreError::Conflict(constraint)) => constraint,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn event_of(link: linnet_domain::LinkId, user_id: UserId, event_type: &str) -> NewEvent {
    NewEvent {
        url_id: link,
        user_id: Some(user_id),
        event_type: EventType::parse_own(event_type).unwrap(),
        details: EventDetails::default(),
    }
}

pub(crate) const OPTIONS: WriteOptions =
    WriteOptions { on_conflict: OnConflict::Update, visible_to: Visibility::All, dry_run: false };

pub(crate) fn import_link(user_id: UserId, code: Option<&str>) -> ImportLink {
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

pub(crate) async fn import<T: WriteRows>(
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
pub(crate) fn codes(outcomes: &[RowOutcome]) -> Vec<&str> {
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
    let grouped = GroupedCreates::new(store.clone(), Duration::from_secs(2));
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
