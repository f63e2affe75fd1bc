//! Erasing users.

use std::num::NonZeroI64;

use chrono::{Days, Utc};
use linnet_shortener::{
    domain::{ClickKind, NewLink},
    store::{ClickGroup, ClickRow, ClickTotals, DayDelta, KindCounts, SHARDS, Store},
};
use sqlx::PgPool;

use crate::support::{count, create, create_user, new_link};

async fn click(store: &Store, url_id: i64, owner: i64, batch: u8) {
    let at = Utc::now();
    store.ensure_partition(at.date_naive()).await.unwrap();
    let counts = KindCounts { clicks: 1, ..KindCounts::default() };
    let day = |subject| DayDelta { subject, day: at.date_naive(), counts, visitors: 1 };
    let row = ClickRow {
        at,
        url_id,
        visitor: Some(7),
        values: [None; 4],
        user_id: NonZeroI64::new(owner),
        kind: ClickKind::Person,
        is_counted: false,
    };
    let group = ClickGroup {
        batches: &[vec![batch; 16]],
        shards: SHARDS.to_vec(),
        rows: &[row],
        totals: ClickTotals {
            days: vec![day(url_id), day(-owner), day(0)],
            ..ClickTotals::default()
        },
    };
    assert!(store.write_clicks(&group).await.unwrap());
    assert!(!store.write_clicks(&group).await.unwrap(), "a batch is written once");
}

#[sqlx::test(migrations = "../../migrations")]
async fn nothing_is_left_of_an_erased_user_and_all_of_the_others(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (gone, stays) = (create_user(&store, "gone").await, create_user(&store, "stays").await);
    let owned = |user_id| NewLink { user_id: Some(user_id), ..new_link(None) };
    let deleted = create(&store, &owned(gone.id)).await;
    let live = create(&store, &owned(gone.id)).await;
    let other = create(&store, &owned(stays.id)).await;
    for (batch, link, owner) in [(1, &deleted, gone.id), (2, &live, gone.id), (3, &other, stays.id)]
    {
        click(&store, link.id, owner, batch).await;
    }
    store.delete_link(deleted.id, None, Some(gone.id)).await.unwrap();
    assert!(store.delete_user(gone.id, None, None).await.unwrap());
    let erased = store.erase_traces(gone.id).await.unwrap();
    assert_eq!((erased.links, erased.clicks, erased.roll_ups), (2, 2, 3));
    assert_eq!(count(&pool, "SELECT count(*) FROM clicks").await, 1);
    assert_eq!(count(&pool, "SELECT count(*) FROM events").await, 1);
    assert_eq!(count(&pool, "SELECT count(*) FROM click_days").await, 3, "the other's, and all");
    assert_eq!(
        store.erase_traces(gone.id).await.unwrap(),
        linnet_shortener::store::Erased::default()
    );
}

#[sqlx::test(migrations = "../../migrations")]
async fn partitions_are_made_once_and_dropped_in_time(pool: PgPool) {
    let store = Store::new(pool.clone());
    let today = store.server_time().await.unwrap().date_naive();
    let old = today - Days::new(91);
    let ensured = futures::future::join_all((0..4).map(|_| store.ensure_partition(today))).await;
    assert!(ensured.into_iter().all(|made| made.is_ok()), "several workers at once");
    store.ensure_partition(old).await.unwrap();
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'clicks'::regclass";
    assert_eq!(count(&pool, partitions).await, 2);
    let dropped = store.drop_partitions_before(today - Days::new(90)).await.unwrap();
    assert_eq!(dropped, [format!("clicks_{}", old.format("%Y%m%d"))]);
    assert_eq!(count(&pool, partitions).await, 1);
    let indexes =
        "SELECT count(*) FROM pg_index JOIN pg_inherits ON indrelid = pg_inherits.inhrelid
                    WHERE inhparent = 'clicks'::regclass";
    assert_eq!(count(&pool, indexes).await, 2, "an attached partition has the table's indexes");
}
