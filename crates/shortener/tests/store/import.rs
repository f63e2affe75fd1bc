use chrono::Utc;
use linnet_shortener::{
    domain::{Email, ShortCode},
    store::{ImportLink, ImportUser, Store},
};
use sqlx::PgPool;

use crate::support::{create, create_user, new_link, target};

fn user(id: i64, name: &str, email: &str) -> ImportUser {
    let email = Email::parse(email).unwrap();
    ImportUser { id, username: name.to_owned(), email, created_at: Utc::now() }
}

fn link(id: i64, user_id: Option<i64>, code: &str) -> ImportLink {
    ImportLink {
        id,
        user_id,
        short_code: ShortCode::parse(code).unwrap(),
        target: target("https://example.com/"),
        title: None,
        is_active: true,
        created_at: Utc::now(),
        updated_at: Utc::now(),
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn explicit_ids_are_kept_and_the_sequences_move_past_them(pool: PgPool) {
    let store = Store::new(pool);
    let rows = [user(7, "same", "a@example.com"), user(400, "same", "b@example.com")];
    assert_eq!(store.import_users(&rows).await.unwrap().written.len(), 2);
    assert_eq!(create_user(&store, "next").await.id, 401);
    let links = [link(1_000, Some(7), "imported")];
    assert_eq!(store.import_links(&links).await.unwrap().written, [1_000]);
    assert_eq!(create(&store, &new_link(None)).await.id, 1_001);
    // An import of lower ids does not move the sequence back.
    store.import_links(&[link(5, None, "lower")]).await.unwrap();
    assert_eq!(create(&store, &new_link(None)).await.id, 1_002);
}

#[sqlx::test(migrations = "../../migrations")]
async fn rows_that_break_a_rule_are_left_out_and_the_rest_is_written(pool: PgPool) {
    let store = Store::new(pool);
    let rows = [user(1, "a", "a@example.com"), user(2, "b", "A@EXAMPLE.com")];
    assert_eq!(store.import_users(&rows).await.unwrap().written, [1]);
    let rows = [
        link(1, Some(1), "one"),
        link(1, Some(1), "same-id"),
        link(2, Some(1), "one"),
        link(3, Some(99), "no-user"),
        link(4, None, "good"),
    ];
    assert_eq!(store.import_links(&rows).await.unwrap().written, [1, 4]);
}
