use linnet_domain::{
    Email, LinkAttributePatch, LinkId, NewUser, OnConflict, ShortCode, UserId, Visibility,
};
use linnet_store::{
    Constraint, ImportLink, ImportUser, RowOutcome, Store, StoreError, WriteOptions, WriteRows,
};
use sqlx::PgPool;

use crate::support::{create, create_user, new_link, target};

fn user(id: i64, name: &str, email: &str) -> ImportUser {
    let email = Email::parse(email).unwrap();
    ImportUser { id: UserId::new(id), username: name.to_owned(), email, created_at: None }
}

fn link(id: Option<i64>, user_id: Option<i64>, code: Option<&str>) -> ImportLink {
    ImportLink {
        id: id.and_then(LinkId::new),
        user_id: user_id.and_then(UserId::new),
        short_code: code.map(|code| ShortCode::parse(code).unwrap()),
        target: target("https://example.com/new"),
        attributes: titled("new"),
        created_at: None,
        updated_at: None,
    }
}

fn titled(title: &str) -> LinkAttributePatch {
    LinkAttributePatch { title: Some(Some(title.to_owned())), ..LinkAttributePatch::default() }
}

fn options(on_conflict: OnConflict) -> WriteOptions {
    WriteOptions { on_conflict, visible_to: Visibility::All, dry_run: false }
}

/// A name that no other call returns.
fn unused_name() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    format!("n{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

/// [`write`], or the outcomes of a dry run.
async fn write_or_try<T: WriteRows>(
    store: &Store,
    rows: &[T],
    options: &WriteOptions,
) -> Vec<String> {
    if !options.dry_run {
        return write(store, rows, options).await;
    }
    let mut transaction = store.begin().await.unwrap();
    let rows: Vec<&T> = rows.iter().collect();
    let outcomes = T::write(&mut transaction, &rows, options).await.unwrap();
    transaction.rollback().await.unwrap();
    let text = |outcome| if outcome == RowOutcome::Written { "+" } else { "-" }.to_owned();
    outcomes.into_iter().map(text).collect()
}

/// The outcomes: `+` for a written row, `-` for a skipped one, or the column of a bad one.
async fn write<T: WriteRows>(store: &Store, rows: &[T], options: &WriteOptions) -> Vec<String> {
    let mut transaction = store.begin().await.unwrap();
    let rows: Vec<&T> = rows.iter().collect();
    let outcomes = T::write(&mut transaction, &rows, options).await.unwrap();
    transaction.commit().await.unwrap();
    let text = |outcome| match outcome {
        RowOutcome::Written => "+".to_owned(),
        RowOutcome::Skipped => "-".to_owned(),
        RowOutcome::Bad(problem) => problem.column,
    };
    outcomes.into_iter().map(text).collect()
}

#[sqlx::test(migrations = "../../migrations")]
async fn explicit_ids_are_kept_and_the_sequences_move_past_them(pool: PgPool) {
    let store = Store::new(pool);
    let fail = options(OnConflict::Fail);
    let rows = [user(7, "same", "a@example.com"), user(400, "same", "b@example.com")];
    assert_eq!(write(&store, &rows, &fail).await, ["+", "+"]);
    assert_eq!(create_user(&store, "next").await.id.get(), 401);
    assert_eq!(write(&store, &[link(Some(1_000), Some(7), Some("imported"))], &fail).await, ["+"]);
    assert_eq!(create(&store, &new_link(None)).await.id.get(), 1_001);
    // Lower ids do not move the sequence back.
    write(&store, &[link(Some(5), None, Some("lower"))], &fail).await;
    assert_eq!(create(&store, &new_link(None)).await.id.get(), 1_002);
    // A dry run does not move the sequence.
    let dry_run = WriteOptions { dry_run: true, ..fail };
    let mut transaction = store.begin().await.unwrap();
    ImportLink::write(&mut transaction, &[&link(Some(9_000), None, None)], &dry_run).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(create(&store, &new_link(None)).await.id.get(), 1_003);
}

#[sqlx::test(migrations = "../../migrations")]
async fn rows_without_an_id_get_none_that_another_row_of_the_file_brings(pool: PgPool) {
    let store = Store::new(pool.clone());
    for on_conflict in [OnConflict::Fail, OnConflict::Skip] {
        for explicit_is_first in [true, false] {
            for dry_run in [true, false] {
                let options = WriteOptions { dry_run, ..options(on_conflict) };
                let next = create_user(&store, &format!("u{}", unused_name())).await.id.get() + 1;
                let mut rows = vec![
                    user(next, "ann", &format!("{}@example.com", unused_name())),
                    user(0, "bob", &format!("{}@example.com", unused_name())),
                    user(next + 1, "eve", &format!("{}@example.com", unused_name())),
                ];
                if !explicit_is_first {
                    rows.swap(0, 1);
                }
                assert_eq!(write_or_try(&store, &rows, &options).await, ["+", "+", "+"]);
                let next = create(&store, &new_link(None)).await.id.get() + 1;
                let mut rows = vec![link(Some(next), None, None), link(None, None, None)];
                if !explicit_is_first {
                    rows.swap(0, 1);
                }
                assert_eq!(write_or_try(&store, &rows, &options).await, ["+", "+"]);
            }
        }
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn user_that_is_created_during_an_import_gets_the_id_after_it(pool: PgPool) {
    let store = Store::new(pool.clone());
    let next = create_user(&store, "first").await.id.get() + 1;
    let mut import = store.begin().await.unwrap();
    let row = user(next, "imported", "imported@example.com");
    ImportUser::write(&mut import, &[&row], &options(OnConflict::Fail)).await.unwrap();
    let created = create_user(&store, "second");
    let created = tokio::time::timeout(std::time::Duration::from_secs(10), created).await;
    assert_eq!(created.expect("no wait for the import").id.get(), next + 1);
    import.commit().await.unwrap();

    // A row that an older release, or a person, has inserted without moving the sequence.
    sqlx::query("INSERT INTO users (id, username, email) VALUES ($1, 'x', 'x@example.com')")
        .bind(next + 2)
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(create_user(&store, "third").await.id.get(), next + 3);
    let email = Email::parse("THIRD@example.com").unwrap();
    let again = store.create_user(&NewUser { username: "third".to_owned(), email }).await;
    assert!(matches!(again, Err(StoreError::Conflict(Constraint::EmailTaken))), "{again:?}");
}

#[sqlx::test(migrations = "../../migrations")]
async fn rows_that_violate_a_constraint_are_bad_and_the_others_are_written(pool: PgPool) {
    let store = Store::new(pool.clone());
    let fail = options(OnConflict::Fail);
    let rows = [user(1, "a", "a@example.com"), user(2, "b", "A@EXAMPLE.com")];
    assert_eq!(write(&store, &rows, &fail).await, ["+", "email"]);
    assert_eq!(write(&store, &[user(1, "c", "c@example.com")], &fail).await, ["id"]);
    let rows = [
        link(Some(1), Some(1), Some("one")),
        link(Some(1), Some(1), Some("same-id")),
        link(Some(2), Some(1), Some("one")),
        link(Some(3), Some(99), Some("no-user")),
        link(Some(4), None, Some("good")),
        link(None, Some(1), None),
    ];
    let expected = ["+", "id", "short_code", "user_id", "+", "+"];
    assert_eq!(write(&store, &rows, &fail).await, expected);
    // Only a link without an explicit id is new.
    let created: Vec<i64> =
        sqlx::query_scalar("SELECT url_id FROM events WHERE event_type = 'created'")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(created.len(), 1);
    assert!(created[0] > 4);
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_import_conflicts_update_only_visible_links(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (ada, bob) = (create_user(&store, "ada").await.id, create_user(&store, "bob").await.id);
    let fail = options(OnConflict::Fail);
    let rows =
        [link(None, Some(ada.get()), Some("hers")), link(None, Some(bob.get()), Some("his"))];
    assert_eq!(write(&store, &rows, &fail).await, ["+", "+"]);
    let again = |code| ImportLink {
        attributes: titled("changed"),
        ..link(None, Some(ada.get()), Some(code))
    };
    let rows = [again("hers"), again("his")];
    assert_eq!(write(&store, &rows, &options(OnConflict::Skip)).await, ["-", "-"]);
    let own = WriteOptions { visible_to: Visibility::Owner(ada), ..options(OnConflict::Update) };
    assert_eq!(write(&store, &rows, &own).await, ["+", "short_code"]);
    let links: Vec<(String, String, bool)> =
        sqlx::query_as("SELECT short_code, title, is_active FROM urls ORDER BY short_code")
            .fetch_all(&pool)
            .await
            .unwrap();
    // `is_active` is not among the given fields.
    let expected = [("hers", "changed", true), ("his", "new", true)];
    assert_eq!(links, expected.map(|(code, title, on)| (code.to_owned(), title.to_owned(), on)));
    let invalidated: Vec<String> = sqlx::query_scalar("SELECT subject FROM cache_invalidations")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(invalidated, ["hers"]);
    let users = [ImportUser { id: None, ..user(0, "ADA", "Ada@example.com") }];
    let outcome = write(&store, &users, &options(OnConflict::Update)).await;
    let name: String = sqlx::query_scalar("SELECT username FROM users WHERE id = $1")
        .bind(ada)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!((outcome, name.as_str()), (vec!["+".to_owned()], "ADA"));
}

#[sqlx::test(migrations = "../../migrations")]
async fn ids_of_created_rows_do_not_collide_with_imported_ids(pool: PgPool) {
    let store = Store::new(pool);
    let options = options(OnConflict::Fail);
    let operator = |n: i64| NewUser {
        username: "operator".to_owned(),
        email: Email::parse(&format!("operator{n}@example.com")).unwrap(),
    };
    let first = store.create_operator(&operator(0)).await.unwrap();
    for (n, id) in (1..).zip([7, 999_999_998, 2_000_000_000, 1_000_000_000_000]) {
        let row = user(id, "imported", &format!("imported{n}@example.com"));
        assert_eq!(write(&store, &[row], &options).await, ["+"], "{id}");
        for created in 0..3 {
            create_user(&store, &format!("created{n}-{created}")).await;
        }
        let next = store.create_operator(&operator(n)).await.unwrap();
        assert!(next.id > first.id);
        let row = link(Some(id), None, Some(&format!("imported{n}")));
        assert_eq!(write(&store, &[row], &options).await, ["+"], "{id}");
        for _ in 0..3 {
            assert!(create(&store, &new_link(None)).await.id.get() < 1 << 50);
        }
    }
}
