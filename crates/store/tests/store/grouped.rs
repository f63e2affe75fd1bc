//! Links that are created in groups, behind a server that does not respond.

use std::time::Duration;

use linnet_domain::NewLink;
use linnet_store::{GroupedCreates, Store, StoreError};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::time::timeout;

use crate::support::{count, new_link, target};

const DEADLINE: Duration = Duration::from_secs(30);

#[sqlx::test(migrations = "../../migrations")]
async fn statements_that_hang_do_not_stop_later_creates(
    pools: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pools.clone().connect_with(options.clone()).await.unwrap();
    let creators = pools.acquire_timeout(Duration::from_secs(1)).connect_with(options).await;
    let grouped = GroupedCreates::new(Store::new(creators.unwrap()), Duration::from_secs(5));
    let mut owner = pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE urls").execute(&mut *owner).await.unwrap();
    // Neither has a timeout in PostgreSQL. The second one comes while the first is being written, so each has a writer.
    let mut creates = Vec::new();
    for number in 1..=2 {
        let grouped = grouped.clone();
        creates.push(tokio::spawn(async move { grouped.create(new_link(None)).await }));
        let writers =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'urls'::regclass";
        let all_wait = async { while count(&pool, writers).await < number {} };
        timeout(DEADLINE, all_wait).await.unwrap();
    }
    // Its client does not wait until a writer is free.
    let abandoned = NewLink { target: target("https://example.com/abandoned"), ..new_link(None) };
    let create = timeout(Duration::from_millis(1), grouped.create(abandoned));
    assert!(create.await.is_err(), "both writers wait");
    let waiting = grouped.clone();
    creates.push(tokio::spawn(async move { waiting.create(new_link(None)).await }));
    for create in creates {
        let result = timeout(DEADLINE, create).await.expect("an end of the wait").unwrap();
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    }
    owner.rollback().await.unwrap();
    grouped.create(new_link(None)).await.unwrap();
    let abandoned = "SELECT count(*) FROM urls WHERE original_url LIKE '%/abandoned'";
    assert_eq!(count(&pool, abandoned).await, 0);
}
