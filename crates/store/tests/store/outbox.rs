use std::time::Duration;

use linnet_domain::{LinkAttributePatch, LinkPatch, Visibility};
use linnet_store::{InvalidationKind, Store};
use sqlx::PgPool;

use crate::support::{create, new_link};

#[sqlx::test(migrations = "../../migrations")]
async fn pending_invalidations_exclude_young_ones(pool: PgPool) {
    let store = Store::new(pool);
    let link = create(&store, &new_link(Some("changed"))).await;
    let off = LinkPatch::from(LinkAttributePatch {
        is_active: Some(false),
        ..LinkAttributePatch::default()
    });
    let changed = store.update_link(link.id, Visibility::All, None, &off).await.unwrap().unwrap();

    assert!(store.pending_invalidations(Duration::from_hours(1), 10).await.unwrap().is_empty());
    let pending = store.pending_invalidations(Duration::ZERO, 10).await.unwrap();
    let [only] = pending.as_slice() else { panic!("{pending:?}") };
    assert_eq!((only.kind, only.subject.as_str()), (InvalidationKind::Link, "changed"));
    assert_eq!((Some(only.id), only.version), (changed.outbox_id, changed.link.version));

    store.delete_pending_invalidations(&[only.id]).await.unwrap();
    assert!(store.pending_invalidations(Duration::ZERO, 10).await.unwrap().is_empty());
}
