//! Erasing users.

use std::time::Duration;

use chrono::{Days, Utc};
use linnet_domain::{ClickKind, LinkId, NewLink, Subject, UserId, Visibility};
use linnet_store::{
    ClickGroup, ClickRow, ClickTotals, DayDelta, KindCounts, LinkDays, SHARDS, Store,
};
use sqlx::PgPool;

use crate::support::{count, create, create_user, new_link};

async fn click(store: &Store, url_id: LinkId, owner: UserId, batch: u8) {
    let at = Utc::now();
    store.ensure_partition(at.date_naive()).await.unwrap();
    let counts = KindCounts { clicks: 1, ..KindCounts::default() };
    let day = |subject| DayDelta { subject, day: at.date_naive(), counts, visitors: 1 };
    let mut link_days = LinkDays::default();
    link_days.begin(url_id, at.date_naive(), 1);
    link_days.add_hour(0, counts);
    let row = ClickRow {
        at,
        url_id,
        visitor: Some(7),
        values: [None; 4],
        user_id: Some(owner),
        kind: ClickKind::Person,
        is_counted: false,
    };
    let group = ClickGroup {
        batches: &[vec![batch; 16]],
        shards: SHARDS.to_vec(),
        rows: &[row],
        totals: ClickTotals {
            link_days,
            days: vec![day(Subject::User(owner)), day(Subject::Service)],
            ..ClickTotals::default()
        },
    };
    assert!(store.write_clicks(&group).await.unwrap());
    assert!(!store.write_clicks(&group).await.unwrap(), "a batch is written once");
}

#[sqlx::test(migrations = "../../migrations")]
async fn erasing_a_user_keeps_the_data_of_other_users(pool: PgPool) {
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
    store.delete_link(deleted.id, Visibility::All, Some(gone.id)).await.unwrap();
    assert!(store.delete_user(gone.id, Visibility::All, None).await.unwrap());
    let erased = store.erase_user_history(gone.id).await.unwrap();
    assert_eq!((erased.links, erased.clicks, erased.roll_ups), (2, 2, 3));
    assert_eq!(count(&pool, "SELECT count(*) FROM clicks").await, 1);
    assert_eq!(count(&pool, "SELECT count(*) FROM events").await, 1);
    let days = "SELECT count(*) FROM click_totals_by_day";
    assert_eq!(count(&pool, days).await, 3, "days of the other link, its owner and the service");
    assert_eq!(
        store.erase_user_history(gone.id).await.unwrap(),
        linnet_store::ErasureCounts::default()
    );
}

#[sqlx::test(migrations = "../../migrations")]
async fn partitions_are_created_once_and_dropped_by_age(pool: PgPool) {
    let store = Store::new(pool.clone());
    let today = store.server_time().await.unwrap().date_naive();
    let old = today - Days::new(91);
    let ensured = futures::future::join_all((0..4).map(|_| store.ensure_partition(today))).await;
    assert!(ensured.into_iter().all(|made| made.is_ok()), "concurrent calls succeed");
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

/// While a day is being deleted, no worker can hold the lock of a shard.
#[sqlx::test(migrations = "../../migrations")]
async fn days_are_erased_under_the_locks_of_all_shards(pool: PgPool) {
    let store = Store::new(pool.clone());
    let gone = create_user(&store, "gone").await;
    let link = create(&store, &NewLink { user_id: Some(gone.id), ..new_link(None) }).await;
    click(&store, link.id, gone.id, 1).await;
    let mut reader = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM click_link_days FOR UPDATE").execute(&mut *reader).await.unwrap();
    let erasing = tokio::spawn(async move { store.erase_user_history(gone.id).await });
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'
                      AND query LIKE 'DELETE FROM click_link_days%'";
    let waits = async {
        while count(&pool, waiting).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waits)
        .await
        .expect("the deletion waits for the row");
    let free = "SELECT count(*) FROM generate_series(1, 2) AS shard
                 WHERE pg_try_advisory_xact_lock(hashtextextended('linnet.click_roll_ups', shard))";
    assert_eq!(count(&pool, free).await, 0);
    reader.commit().await.unwrap();
    assert_eq!(erasing.await.unwrap().unwrap().roll_ups, 2, "roll-ups of the link and of the user");
    assert_eq!(count(&pool, free).await, 2);
}
