use std::time::Duration;

use linnet_domain::{ApiKeySecret, Scope, Scopes, Visibility};
use linnet_store::Store;
use sqlx::PgPool;

use crate::support::{count, create_user};

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_only_the_secret_of_a_valid_key_authenticates(pool: PgPool) {
    let store = Store::new(pool.clone());
    let user = create_user(&store, "holder").await;
    let scopes: Scopes = [Scope::UrlsRead].into_iter().collect();
    let secret = ApiKeySecret::generate().unwrap();
    store.create_key(&secret, user.id, "laptop", scopes, None).await.unwrap();

    let owner = store.authenticate(&secret).await.unwrap().expect("the key is valid");
    assert_eq!((owner.user_id, owner.scopes), (user.id, scopes));

    let stranger = ApiKeySecret::generate().unwrap().reveal();
    let forged = format!("lnt_{}_{}", secret.id().as_str(), &stranger[13..]);
    let forged = ApiKeySecret::parse(&forged).unwrap();
    assert!(store.authenticate(&forged).await.unwrap().is_none());

    let past = Some(chrono::Utc::now() - Duration::from_secs(1));
    let expired = ApiKeySecret::generate().unwrap();
    store.create_key(&expired, user.id, "old", scopes, past).await.unwrap();
    assert!(store.authenticate(&expired).await.unwrap().is_none());

    let other = create_user(&store, "other").await;
    let id = secret.id().as_str();
    assert!(store.revoke_key(id, Visibility::Owner(other.id)).await.unwrap().is_none());
    assert!(store.authenticate(&secret).await.unwrap().is_some());
    assert!(store.revoke_key(id, Visibility::Owner(user.id)).await.unwrap().is_some());
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
