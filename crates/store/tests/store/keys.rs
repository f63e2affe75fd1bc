use std::time::Duration;

use chrono::{DateTime, Utc};
use linnet_domain::{ApiKey, ApiKeySecret, Scope, Scopes, UserId, Visibility};
use linnet_store::{KeyRefusal, NewKey, Store};
use sqlx::PgPool;

use crate::support::{count, create_user};

/// Creates a key of a user with at most three keys.
async fn create(
    store: &Store,
    secret: &ApiKeySecret,
    user_id: UserId,
    expires_at: Option<DateTime<Utc>>,
    maker: Option<&ApiKeySecret>,
) -> Result<ApiKey, KeyRefusal> {
    let new = NewKey {
        user_id,
        name: "test",
        scopes: [Scope::UrlsRead].into_iter().collect(),
        expires_at,
        maker: maker.map(|maker| maker.id().as_str()),
        most_living: Some(3),
    };
    store.create_key(secret, &new).await.unwrap()
}

fn secrets<const N: usize>() -> [ApiKeySecret; N] {
    std::array::from_fn(|_| ApiKeySecret::generate().unwrap())
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_key_ends_no_later_than_its_maker_and_is_revoked_with_it(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (user, other) = (create_user(&store, "a").await, create_user(&store, "b").await);
    let [maker, child, grandchild, orphan, endless] = secrets();
    let limit = Utc::now() + Duration::from_mins(1);
    create(&store, &maker, user.id, Some(limit), None).await.unwrap();
    let made = create(&store, &child, user.id, None, Some(&maker)).await.unwrap();
    let stored = made.expires_at.unwrap();
    assert!((stored - limit).num_milliseconds().abs() <= 1, "{stored} {limit}");
    let late = create(&store, &orphan, user.id, Some(limit + Duration::from_secs(1)), Some(&child));
    assert_eq!(late.await.unwrap_err(), KeyRefusal::OutlivesMaker { limit: stored });
    // A key of another user ends as well.
    create(&store, &grandchild, other.id, None, Some(&child)).await.unwrap();
    create(&store, &endless, other.id, None, None).await.unwrap();

    let revoked = store.revoke_key(maker.id().as_str(), Visibility::All).await.unwrap();
    assert_eq!(revoked.len(), 3, "{revoked:?}");
    for secret in [&maker, &child, &grandchild] {
        assert!(store.authenticate(secret).await.unwrap().is_none());
    }
    assert!(store.authenticate(&endless).await.unwrap().is_some());
    let refused = create(&store, &orphan, user.id, None, Some(&child)).await.unwrap_err();
    assert_eq!(refused, KeyRefusal::MakerEnded);
    assert_eq!(
        count(&pool, "SELECT count(*) FROM cache_invalidations WHERE kind = 'key'").await,
        3
    );
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_deletion_of_a_user_revokes_the_keys_that_its_keys_made(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (user, other) = (create_user(&store, "a").await, create_user(&store, "b").await);
    let [maker, child, grandchild] = secrets();
    create(&store, &maker, user.id, None, None).await.unwrap();
    create(&store, &child, other.id, None, Some(&maker)).await.unwrap();
    create(&store, &grandchild, other.id, None, Some(&child)).await.unwrap();
    assert!(store.delete_user(user.id, Visibility::All, None).await.unwrap());
    for secret in [&maker, &child, &grandchild] {
        assert!(store.authenticate(secret).await.unwrap().is_none());
        let query = "SELECT count(*) FROM cache_invalidations WHERE kind = 'key' AND subject = $1";
        let rows: i64 =
            sqlx::query_scalar(query).bind(secret.id().as_str()).fetch_one(&pool).await.unwrap();
        assert!(rows >= 1, "the gateways are notified");
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_living_keys_of_a_user_are_bounded_under_concurrency(pool: PgPool) {
    let store = Store::new(pool);
    let user = create_user(&store, "a").await;
    let created = secrets::<12>();
    let attempts = created.iter().map(|secret| create(&store, secret, user.id, None, None));
    let results = futures::future::join_all(attempts).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    let refused = results.iter().find_map(|result| result.as_ref().err());
    assert_eq!(refused, Some(&KeyRefusal::TooMany { limit: 3 }));
    let (living, _) = created.iter().zip(&results).find(|(_, result)| result.is_ok()).unwrap();
    store.revoke_key(living.id().as_str(), Visibility::All).await.unwrap();
    let [next] = secrets();
    create(&store, &next, user.id, None, None).await.unwrap();
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_key_made_while_its_maker_is_revoked_is_never_valid(pool: PgPool) {
    let store = Store::new(pool);
    let user = create_user(&store, "a").await;
    for _ in 0..20 {
        let [maker, child] = secrets();
        create(&store, &maker, user.id, None, None).await.unwrap();
        let (made, _) = tokio::join!(
            create(&store, &child, user.id, None, Some(&maker)),
            store.revoke_key(maker.id().as_str(), Visibility::All)
        );
        assert!(matches!(made, Ok(_) | Err(KeyRefusal::MakerEnded)), "{made:?}");
        assert!(store.authenticate(&child).await.unwrap().is_none());
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_only_the_secret_of_a_valid_key_authenticates(pool: PgPool) {
    let store = Store::new(pool.clone());
    let user = create_user(&store, "holder").await;
    let scopes: Scopes = [Scope::UrlsRead].into_iter().collect();
    let secret = ApiKeySecret::generate().unwrap();
    create(&store, &secret, user.id, None, None).await.unwrap();

    let owner = store.authenticate(&secret).await.unwrap().expect("the key is valid");
    assert_eq!((owner.user_id, owner.scopes), (user.id, scopes));

    let stranger = ApiKeySecret::generate().unwrap().reveal();
    let forged = format!("lnt_{}_{}", secret.id().as_str(), &stranger[13..]);
    let forged = ApiKeySecret::parse(&forged).unwrap();
    assert!(store.authenticate(&forged).await.unwrap().is_none());

    let past = Some(chrono::Utc::now() - Duration::from_secs(1));
    let expired = ApiKeySecret::generate().unwrap();
    create(&store, &expired, user.id, past, None).await.unwrap();
    assert!(store.authenticate(&expired).await.unwrap().is_none());

    let other = create_user(&store, "other").await;
    let id = secret.id().as_str();
    assert!(store.revoke_key(id, Visibility::Owner(other.id)).await.unwrap().is_empty());
    assert!(store.authenticate(&secret).await.unwrap().is_some());
    assert_eq!(store.revoke_key(id, Visibility::Owner(user.id)).await.unwrap().len(), 1);
    assert!(store.authenticate(&secret).await.unwrap().is_none());

    let revealed = secret.reveal();
    let stored: Vec<u8> = sqlx::query_scalar("SELECT secret_hash FROM api_keys WHERE id = $1")
        .bind(id)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(stored.len(), 32);
    assert_ne!(stored, revealed.as_bytes());
    assert_eq!(
        count(&pool, "SELECT count(*) FROM cache_invalidations WHERE kind = 'key'").await,
        1
    );
}
