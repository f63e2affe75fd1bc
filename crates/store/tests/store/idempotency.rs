use std::sync::Arc;

use linnet_store::{IdempotencyClaim, LinkCreation, Store, StoredResponse};
use sqlx::PgPool;

use crate::support::{count, new_link};

fn response(body: &str) -> StoredResponse {
    StoredResponse { status: 201, location: Some("/x".into()), body: body.into() }
}

#[sqlx::test(migrations = "../../migrations")]
async fn concurrent_requests_with_one_key_create_one_link(pool: PgPool) {
    let store = Arc::new(Store::new(pool.clone()));
    let attempts = (0..20).map(|_| {
        let store = Arc::clone(&store);
        async move {
            match store.begin_idempotent("user:1", "k", b"hash").await.unwrap() {
                IdempotencyClaim::New(mut first) => {
                    let made = first.create_link(&new_link(None), false).await.unwrap();
                    assert!(matches!(made, LinkCreation::New(_)));
                    first.finish(&response("first")).await.unwrap();
                    "first".to_owned()
                }
                IdempotencyClaim::Replay(replay) => replay.body,
                IdempotencyClaim::Mismatch | IdempotencyClaim::TooMany => {
                    panic!("one request, one key")
                }
            }
        }
    });
    let bodies = futures::future::join_all(attempts).await;
    assert!(bodies.iter().all(|body| body == "first"));
    assert_eq!(count(&pool, "SELECT count(*) FROM urls").await, 1);
}

#[sqlx::test(migrations = "../../migrations")]
async fn a_key_belongs_to_one_request_of_one_owner_for_a_day(pool: PgPool) {
    let store = Store::new(pool.clone());
    let begin =
        async |owner: &str, hash: &[u8]| store.begin_idempotent(owner, "k", hash).await.unwrap();
    let IdempotencyClaim::New(first) = begin("user:1", b"a").await else { panic!("a new key") };
    first.finish(&response("a")).await.unwrap();
    assert!(matches!(begin("user:1", b"b").await, IdempotencyClaim::Mismatch));
    assert!(matches!(begin("user:1", b"a").await, IdempotencyClaim::Replay(_)));
    let IdempotencyClaim::New(other) = begin("user:2", b"b").await else { panic!("another owner") };
    // Dropping the transaction rolls back, so the key is free again.
    drop(other);
    assert!(matches!(begin("user:2", b"b").await, IdempotencyClaim::New(_)));

    sqlx::query("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
        .execute(&pool)
        .await
        .unwrap();
    assert!(
        matches!(begin("user:1", b"b").await, IdempotencyClaim::New(_)),
        "the response has expired"
    );
    assert_eq!(store.delete_expired_idempotency_keys().await.unwrap(), 1);
}
