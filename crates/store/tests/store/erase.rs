//! Erasing users.

use std::time::Duration;

use chrono::{Days, Utc};
use linnet_domain::{ClickKind, LinkId, NewLink, Subject, UserId, Visibility};
use linnet_store::{
    ClickGroup, ClickRow, ClickTotals, DayDelta, IdempotencyClaim, KindCounts, LinkDays, SHARDS,
    Store, StoredResponse,
};
use sqlx::{AssertSqlSafe, PgPool};

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
    // Clicks that a worker of an earlier release has written, and more than one statement deletes.
    sqlx::raw_sql(AssertSqlSafe(format!(
        "CREATE TABLE clicks_test PARTITION OF clicks FOR VALUES FROM ('2026-03-01 00:00Z') TO ('2026-03-02 00:00Z');
         INSERT INTO clicks (clicked_at, url_id, kind) VALUES ('2026-03-01 03:00Z', {live}, 0),
                                                              ('2026-03-01 03:00Z', {other}, 0);
         INSERT INTO raw_clicks (clicked_at, url_id, agent_and_kind)
         SELECT now() - n % 7 * interval '1 microsecond', {live}, 0 FROM generate_series(1, 6000) AS n",
        live = live.id,
        other = other.id
    )))
    .execute(&pool)
    .await
    .unwrap();
    store.delete_link(deleted.id, Visibility::All, Some(gone.id)).await.unwrap();
    assert!(store.delete_user(gone.id, Visibility::All, None).await.unwrap());
    let erased = store.erase_user_history(gone.id).await.unwrap();
    assert_eq!((erased.links, erased.clicks, erased.roll_ups), (2, 6_003, 3));
    assert_eq!(count(&pool, "SELECT count(*) FROM all_clicks").await, 2);
    assert_eq!(count(&pool, "SELECT count(*) FROM events").await, 1);
    let days = "SELECT count(*) FROM click_totals_by_day";
    assert_eq!(count(&pool, days).await, 3, "days of the other link, its owner and the service");
    assert_eq!(
        store.erase_user_history(gone.id).await.unwrap(),
        linnet_store::ErasureCounts::default()
    );
}

/// Stores a response with this `Location`.
async fn respond(store: &Store, owner: &str, location: &str) {
    let key = location.replace('/', "-");
    let claim = store.begin_idempotent(owner, &key, b"hash").await.unwrap();
    let IdempotencyClaim::New(transaction) = claim else { panic!("{owner}: {location}") };
    let body = format!("the data of {location}");
    let response = StoredResponse { status: 201, location: Some(location.to_owned()), body };
    transaction.finish(&response).await.unwrap();
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_31_stored_responses_are_deleted_with_their_user(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (gone, stays) = (create_user(&store, "gone").await, create_user(&store, "stays").await);
    let owned = |user_id| NewLink { user_id: Some(user_id), ..new_link(None) };
    let deleted = create(&store, &owned(gone.id)).await;
    let live = create(&store, &owned(gone.id)).await;
    let other = create(&store, &owned(stays.id)).await;
    let own = format!("user:{}", gone.id);
    let kept = [
        ("user:9".to_owned(), format!("/api/v1/users/{}", stays.id)),
        ("user:9".to_owned(), format!("/api/v1/users/{}0", gone.id)),
        ("user:9".to_owned(), format!("/api/v1/urls/{}", other.id)),
        (format!("{own}0"), "/api/v1/jobs/1".to_owned()),
    ];
    for (owner, location) in &kept {
        respond(&store, owner, location).await;
    }
    respond(&store, &own, "/api/v1/jobs/1").await;
    let admin = [
        format!("/api/v1/users/{}", gone.id),
        format!("/api/v1/urls/{}", live.id),
        format!("/api/v1/urls/{}", deleted.id),
    ];
    for location in &admin {
        respond(&store, "user:9", location).await;
    }
    store.delete_link(deleted.id, Visibility::All, Some(gone.id)).await.unwrap();
    assert!(store.delete_user(gone.id, Visibility::All, None).await.unwrap());
    let all = "SELECT count(*) FROM idempotency_keys";
    assert_eq!(count(&pool, all).await, 5, "the link that was deleted before is no longer known");

    // The command finds what another release left, deleted links, and deleted events.
    respond(&store, &own, "/api/v1/jobs/1").await;
    respond(&store, "user:9", &admin[0]).await;
    let event: i64 = sqlx::query_scalar("SELECT min(id) FROM events WHERE url_id = $1")
        .bind(live.id.get())
        .fetch_one(&pool)
        .await
        .unwrap();
    respond(&store, "user:9", &format!("/api/v1/events/{event}")).await;
    store.erase_user_history(gone.id).await.unwrap();
    let left: Vec<(String, String)> =
        sqlx::query_as("SELECT owner, location FROM idempotency_keys ORDER BY created_at")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(left, kept);
    let claim = store.begin_idempotent("user:9", &admin[0].replace('/', "-"), b"hash").await;
    assert!(matches!(claim.unwrap(), IdempotencyClaim::New(_)), "a new request");
}

#[sqlx::test(migrations = "../../migrations")]
async fn partitions_are_created_once_and_dropped_by_age(pool: PgPool) {
    let store = Store::new(pool.clone());
    let today = store.server_time().await.unwrap().date_naive();
    let old = today - Days::new(91);
    let ensured = futures::future::join_all((0..4).map(|_| store.ensure_partition(today))).await;
    assert!(ensured.into_iter().all(|made| made.is_ok()), "concurrent calls succeed");
    store.ensure_partition(old).await.unwrap();
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'raw_clicks'::regclass";
    assert_eq!(count(&pool, partitions).await, 2);
    // Of an earlier release.
    for day in [old, today] {
        let (name, next) = (day.format("clicks_%Y%m%d"), day + Days::new(1));
        let create = format!(
            "CREATE TABLE {name} PARTITION OF clicks FOR VALUES FROM ('{day} 00:00Z') TO ('{next} 00:00Z')"
        );
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&pool).await.unwrap();
    }
    let dropped = store.drop_partitions_before(today - Days::new(90)).await.unwrap();
    let day = old.format("%Y%m%d");
    assert_eq!(dropped, [format!("clicks_{day}"), format!("raw_clicks_{day}")]);
    let earlier = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'clicks'::regclass";
    assert_eq!(count(&pool, earlier).await, 1);
    assert_eq!(count(&pool, partitions).await, 1);
    let indexes =
        "SELECT count(*) FROM pg_index JOIN pg_inherits ON indrelid = pg_inherits.inhrelid
                    WHERE inhparent = 'raw_clicks'::regclass";
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
