use linnet_domain::{
    EventFilter, LinkAttributePatch, LinkFilter, LinkId, LinkPatch, NewLink, Page, PageStart,
    RedirectStatus, Visibility,
};
use linnet_store::{LinkCreation, Store};
use sqlx::PgPool;

use crate::support::{count, create, create_user, new_link, target};

#[sqlx::test(migrations = "../../migrations")]
async fn must_06_a_code_belongs_to_one_link(pool: PgPool) {
    let store = Store::new(pool.clone());
    let new = new_link(Some("taken"));
    let attempts = futures::future::join_all((0..100).map(|_| store.create_link(&new))).await;
    let created =
        attempts.iter().filter(|outcome| matches!(outcome, Ok(LinkCreation::New(_)))).count();
    let refused = attempts.iter().filter(|o| matches!(o, Ok(LinkCreation::CodeTaken))).count();
    assert_eq!((created, refused), (1, 99));
    assert_eq!(count(&pool, "SELECT count(*) FROM events").await, 1, "a refused link has no event");
}

#[sqlx::test(migrations = "../../migrations")]
async fn every_change_writes_an_event_and_an_outbox_row(pool: PgPool) {
    let store = Store::new(pool.clone());
    let link = create(&store, &new_link(None)).await;
    assert_eq!(count(&pool, "SELECT count(*) FROM cache_invalidations").await, 0);

    let patch = LinkPatch { target: Some(target("https://example.org/")), ..LinkPatch::default() };
    let changed = store.update_link(link.id, Visibility::All, None, &patch).await.unwrap().unwrap();
    assert!(changed.link.version > link.version);
    assert!(changed.link.updated_at > link.updated_at);
    assert!(changed.outbox_id.is_some());

    let gone = store.delete_link(link.id, Visibility::All, None).await.unwrap().unwrap();
    assert!(gone.link.version > changed.link.version);
    let events = store
        .list_events(&EventFilter::default(), Visibility::All, Page::default())
        .await
        .unwrap()
        .events;
    let types: Vec<_> = events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["created", "updated", "deleted"]);
    let details = serde_json::to_value(&events[1].details).unwrap();
    assert_eq!(details["original_url"], "https://example.org/");
    assert_eq!(count(&pool, "SELECT count(*) FROM cache_invalidations").await, 2);
}

#[sqlx::test(migrations = "../../migrations")]
async fn a_recreated_code_has_a_higher_version_than_its_deletion(pool: PgPool) {
    let store = Store::new(pool);
    let user_id = Some(create_user(&store, "owner").await.id);
    let new = NewLink { user_id, ..new_link(Some("again")) };
    let first = create(&store, &new).await;
    let gone = store.delete_link(first.id, Visibility::All, None).await.unwrap().unwrap();
    let second = create(&store, &new).await;
    assert!(second.version > gone.link.version);
}

#[sqlx::test(migrations = "../../migrations")]
async fn an_empty_patch_changes_nothing(pool: PgPool) {
    let store = Store::new(pool.clone());
    let link = create(&store, &new_link(None)).await;
    let same = store
        .update_link(link.id, Visibility::All, None, &LinkPatch::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((same.link.version, same.outbox_id), (link.version, None));
    assert_eq!(count(&pool, "SELECT count(*) FROM events").await, 1);
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_links_of_other_users_are_not_visible(pool: PgPool) {
    let store = Store::new(pool);
    let (owner, other) = (create_user(&store, "owner").await, create_user(&store, "other").await);
    let mut new = new_link(None);
    new.user_id = Some(owner.id);
    let link = create(&store, &new).await;
    let patch = LinkPatch::from(LinkAttributePatch {
        is_active: Some(false),
        ..LinkAttributePatch::default()
    });

    assert!(store.find_link(link.id, Visibility::Owner(other.id)).await.unwrap().is_none());
    assert!(
        store
            .update_link(link.id, Visibility::Owner(other.id), None, &patch)
            .await
            .unwrap()
            .is_none()
    );
    assert!(store.delete_link(link.id, Visibility::Owner(other.id), None).await.unwrap().is_none());
    let filter = LinkFilter { user_id: Some(owner.id), ..LinkFilter::default() };
    assert!(
        store
            .list_links(&filter, Visibility::Owner(other.id), Page::default())
            .await
            .unwrap()
            .links
            .is_empty()
    );
    assert!(
        store
            .find_link(link.id, Visibility::Owner(owner.id))
            .await
            .unwrap()
            .unwrap()
            .attributes
            .is_active
    );
}

#[sqlx::test(migrations = "../../migrations")]
async fn deleting_a_user_deletes_its_links(pool: PgPool) {
    let store = Store::new(pool.clone());
    let user = create_user(&store, "leaver").await;
    let mut new = new_link(None);
    new.user_id = Some(user.id);
    create(&store, &new).await;
    create(&store, &new).await;
    assert!(store.delete_user(user.id, Visibility::All, None).await.unwrap());
    assert!(!store.delete_user(user.id, Visibility::All, None).await.unwrap());
    assert_eq!(count(&pool, "SELECT count(*) FROM urls").await, 0);
    assert_eq!(count(&pool, "SELECT count(*) FROM cache_invalidations").await, 2);
    assert_eq!(count(&pool, "SELECT count(*) FROM events WHERE event_type = 'deleted'").await, 2);
}

#[sqlx::test(migrations = "../../migrations")]
async fn pages_are_complete_and_do_not_overlap(pool: PgPool) {
    let store = Store::new(pool);
    for _ in 0..25 {
        create(&store, &new_link(None)).await;
    }
    let filter = LinkFilter::default();
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = Page { position: PageStart::After(after), size: 10 };
        let links = store.list_links(&filter, Visibility::All, page).await.unwrap().links;
        let Some(last) = links.last() else { break };
        after = last.id.get();
        seen.extend(links.iter().map(|link| link.id));
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted());
    let third = Page { position: PageStart::Number(3), size: 10 };
    let third = store.list_links(&filter, Visibility::All, third).await.unwrap().links;
    assert_eq!(third.iter().map(|link| link.id).collect::<Vec<_>>(), seen[20..]);
}

#[sqlx::test(migrations = "../../migrations")]
async fn reuse_returns_a_plain_link_of_the_same_owner(pool: PgPool) {
    let store = Store::new(pool);
    let owner = create_user(&store, "owner").await;
    let mut new = new_link(None);
    new.user_id = Some(owner.id);
    let attempts =
        futures::future::join_all((0..20).map(|_| store.create_or_reuse_link(&new))).await;
    let made =
        attempts.iter().filter(|outcome| matches!(outcome, Ok(LinkCreation::New(_)))).count();
    assert_eq!(made, 1);
    assert!(attempts.iter().all(Result::is_ok));

    let user = create_user(&store, "other").await;
    let mut theirs = new_link(None);
    theirs.user_id = Some(user.id);
    let outcome = store.create_or_reuse_link(&theirs).await.unwrap();
    assert!(matches!(outcome, LinkCreation::New(_)), "another owner's link is not reused");
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_a_link_without_an_owner_is_not_reused(pool: PgPool) {
    let store = Store::new(pool);
    let mut new = new_link(None);
    new.attributes.title = Some("A stranger's title".to_owned());
    for _ in 0..2 {
        let outcome = store.create_or_reuse_link(&new).await.unwrap();
        assert!(matches!(outcome, LinkCreation::New(_)), "{outcome:?}");
        new.attributes.title = None;
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn reuse_returns_a_link_with_the_requested_title_and_status(pool: PgPool) {
    let store = Store::new(pool);
    let mut new = new_link(None);
    new.user_id = Some(create_user(&store, "owner").await.id);
    let mut reuse = async |title: Option<&str>, status| {
        new.attributes.title = title.map(ToOwned::to_owned);
        new.attributes.redirect_status = status;
        match store.create_or_reuse_link(&new).await.unwrap() {
            LinkCreation::New(link) => (true, link.id.get()),
            LinkCreation::Reused(link) => (false, link.id.get()),
            LinkCreation::CodeTaken => unreachable!(),
        }
    };
    let (found, permanent) = (RedirectStatus::Found, RedirectStatus::PermanentRedirect);
    let (is_new, first) = reuse(None, found).await;
    assert!(is_new);
    let (is_new, second) = reuse(None, permanent).await;
    assert!(is_new && second != first);
    let (is_new, titled) = reuse(Some("A"), found).await;
    assert!(is_new);
    assert!(reuse(Some("B"), found).await.0);
    assert_eq!(reuse(Some("A"), found).await, (false, titled));
    assert_eq!(reuse(None, permanent).await, (false, second));
    assert_eq!(reuse(None, found).await, (false, first));
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_07_a_create_that_races_a_delete_of_its_code_has_the_higher_version(pool: PgPool) {
    let store = Store::new(pool);
    let user_id = Some(create_user(&store, "owner").await.id);
    let new = NewLink { user_id, ..new_link(Some("contested")) };
    let mut link = create(&store, &new).await;
    for _ in 0..50 {
        let again = async {
            loop {
                if let LinkCreation::New(link) = store.create_link(&new).await.unwrap() {
                    return link;
                }
            }
        };
        let (gone, made) = futures::join!(store.delete_link(link.id, Visibility::All, None), again);
        assert!(made.version > gone.unwrap().unwrap().link.version);
        link = made;
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_a_user_sees_its_own_events_and_those_of_its_links(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (owner, other) = (create_user(&store, "owner").await, create_user(&store, "other").await);
    let mut links = Vec::new();
    for user in [owner.id, other.id] {
        let mut new = new_link(None);
        new.user_id = Some(user);
        links.push(create(&store, &new).await);
    }
    // An event of another user on the owner's link, and an event of the owner on a deleted link.
    for (url_id, user_id) in
        [(links[0].id, other.id), (LinkId::new(999).unwrap(), owner.id), (links[1].id, other.id)]
    {
        sqlx::query("INSERT INTO events (url_id, user_id, event_type) VALUES ($1, $2, 'x')")
            .bind(url_id)
            .bind(user_id)
            .execute(&pool)
            .await
            .unwrap();
    }
    let seen = async |user| {
        let page = store.list_events(&EventFilter::default(), user, Page::default()).await.unwrap();
        page.events.iter().map(|event| event.id.get()).collect::<Vec<_>>()
    };
    assert_eq!(seen(Visibility::All).await, [1, 2, 3, 4, 5]);
    assert_eq!(seen(Visibility::Owner(owner.id)).await, [1, 3, 4]);
    assert_eq!(seen(Visibility::Owner(other.id)).await, [2, 3, 5]);
}

#[sqlx::test(migrations = "../../migrations")]
async fn many_links_change_like_one(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (owner, other) = (create_user(&store, "owner").await, create_user(&store, "other").await);
    let mut new = new_link(None);
    new.user_id = Some(owner.id);
    let mut mine = Vec::new();
    for _ in 0..3 {
        mine.push(create(&store, &new).await);
    }
    new.user_id = Some(other.id);
    let theirs = create(&store, &new).await;
    let ids = [mine[2].id, theirs.id, mine[0].id, LinkId::new(i64::MAX).unwrap()];
    let (visible_to, actor) = (Visibility::Owner(owner.id), Some(owner.id));
    let events = "SELECT count(*) FROM events WHERE event_type <> 'created'";

    let nothing = LinkPatch::default();
    let same = store.update_links(&ids, visible_to, actor, &nothing).await.unwrap();
    assert_eq!(same.len(), 2);
    assert!(same.iter().all(|changed| changed.outbox_id.is_none()));
    assert_eq!(count(&pool, events).await, 0);

    let patch = LinkPatch::from(LinkAttributePatch {
        title: Some(Some("Together".to_owned())),
        ..LinkAttributePatch::default()
    });
    let changed = store.update_links(&ids, visible_to, actor, &patch).await.unwrap();
    let mut versions = std::collections::HashSet::new();
    for changed in &changed {
        let before = mine.iter().find(|link| link.id == changed.link.id).unwrap();
        assert_eq!(changed.link.attributes.title.as_deref(), Some("Together"));
        assert_eq!(changed.link.original_url, before.original_url);
        assert!(changed.link.version > before.version);
        assert!(versions.insert(changed.link.version), "each link has its own version");
        let outbox_row = sqlx::query_as::<_, (String, i64)>(
            "SELECT subject, version FROM cache_invalidations WHERE id = $1",
        );
        let outbox_row = outbox_row.bind(changed.outbox_id).fetch_one(&pool).await.unwrap();
        assert_eq!(outbox_row, (before.short_code.clone(), changed.link.version));
    }
    assert_eq!(changed.len(), 2);
    assert_eq!(count(&pool, events).await, 2);
    assert_eq!(count(&pool, "SELECT count(*) FROM urls WHERE title IS NULL").await, 2);

    let gone = store.delete_links(&ids, visible_to, actor).await.unwrap();
    assert_eq!(gone.len(), 2);
    assert!(gone.iter().all(|gone| versions.iter().all(|version| gone.link.version > *version)));
    assert_eq!(count(&pool, events).await, 4);
    assert_eq!(count(&pool, "SELECT count(*) FROM cache_invalidations").await, 4);
    let left = "SELECT array_agg(id ORDER BY id) FROM urls";
    let left = sqlx::query_scalar::<_, Vec<LinkId>>(left).fetch_one(&pool).await.unwrap();
    assert_eq!(left, [mine[1].id, theirs.id]);
}

#[sqlx::test(migrations = "../../migrations")]
async fn concurrent_changes_of_the_same_links_do_not_deadlock(pool: PgPool) {
    let store = Store::new(pool.clone());
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(create(&store, &new_link(None)).await.id);
    }
    let backwards: Vec<_> = ids.iter().rev().copied().collect();
    let patch = |on| {
        LinkPatch::from(LinkAttributePatch { is_active: Some(on), ..LinkAttributePatch::default() })
    };
    let patches = [patch(true), patch(false)];
    let changes = (0..40).map(|n| {
        let ids = if n % 2 == 0 { &ids } else { &backwards };
        store.update_links(ids, Visibility::All, None, &patches[n % 2])
    });
    for changed in futures::future::join_all(changes).await {
        assert_eq!(changed.unwrap().len(), ids.len());
    }
    let kinds = "SELECT count(DISTINCT is_active) FROM urls";
    assert_eq!(count(&pool, kinds).await, 1, "the last change has changed all links");
    let (one, other) = futures::join!(
        store.delete_links(&ids, Visibility::All, None),
        store.delete_links(&backwards, Visibility::All, None)
    );
    assert_eq!(one.unwrap().len() + other.unwrap().len(), ids.len(), "each link is deleted once");
}
