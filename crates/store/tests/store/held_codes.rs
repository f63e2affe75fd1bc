//! Codes that are held back, also while their link is being deleted.

use std::time::Duration;

use linnet_domain::{NewLink, OnConflict, UserId, Visibility};
use linnet_store::{
    Constraint, ImportLink, LinkCreation, RowOutcome, Store, StoreError, WriteOptions, WriteRows,
};
use sqlx::PgPool;

use crate::support::{count, create, create_user, new_link, run};

fn link_of(user_id: Option<UserId>, code: &str) -> NewLink {
    NewLink { user_id, ..new_link(Some(code)) }
}

fn is_taken(created: &Result<LinkCreation, StoreError>) -> bool {
    matches!(
        created,
        Ok(LinkCreation::CodeTaken) | Err(StoreError::Conflict(Constraint::CodeTaken))
    )
}

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'";

/// Waits until a session waits for another transaction.
async fn until_one_waits(pool: &PgPool) {
    let waits = async {
        while count(pool, WAITING).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waits).await.expect("a session that waits");
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_20_code_is_not_taken_while_its_link_is_being_deleted(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (ada, bob) = (create_user(&store, "ada").await.id, create_user(&store, "bob").await.id);
    for (code, owner, taker, is_taken_down) in [
        ("held", Some(ada), Some(bob), false),
        ("ownerless", None, None, false),
        // Not even its owner gets the code of a link that was taken down.
        ("taken-down", Some(ada), Some(ada), true),
    ] {
        let link = create(&store, &link_of(owner, code)).await;
        if is_taken_down {
            sqlx::query("UPDATE urls SET taken_down_at = now() WHERE id = $1")
                .bind(link.id.get())
                .execute(&pool)
                .await
                .unwrap();
        }
        for way in ["create", "reuse", "import"] {
            let mut deletion = pool.begin().await.unwrap();
            sqlx::query("DELETE FROM urls WHERE short_code = $1")
                .bind(code)
                .execute(&mut *deletion)
                .await
                .unwrap();
            let (other, new) = (store.clone(), link_of(taker, code));
            let taking = tokio::spawn(async move {
                match way {
                    "create" => is_taken(&other.create_link(&new).await),
                    "reuse" => is_taken(&other.create_or_reuse_link(&new).await),
                    _ => import(&other, &new).await,
                }
            });
            until_one_waits(&pool).await;
            deletion.commit().await.unwrap();
            assert!(taking.await.unwrap(), "{code} {way}");
            assert_eq!(count(&pool, "SELECT count(*) FROM urls").await, 0);
            run(&pool, "DELETE FROM held_codes").await;
            create(&store, &link_of(owner, code)).await;
            if is_taken_down {
                run(&pool, "UPDATE urls SET taken_down_at = now()").await;
            }
        }
        run(&pool, "DELETE FROM urls; DELETE FROM held_codes").await;
    }
}

/// Whether an import refuses the link.
async fn import(store: &Store, new: &NewLink) -> bool {
    let row = ImportLink {
        id: None,
        user_id: new.user_id,
        short_code: new.short_code.clone(),
        target: new.target.clone(),
        attributes: linnet_domain::LinkAttributePatch::default(),
        created_at: None,
        updated_at: None,
    };
    let options = WriteOptions {
        on_conflict: OnConflict::Fail,
        visible_to: Visibility::All,
        dry_run: false,
    };
    let mut transaction = store.begin().await.unwrap();
    match ImportLink::write(&mut transaction, &[&row], &options).await {
        Ok(outcomes) => matches!(&outcomes[..], [RowOutcome::Bad(problem)] if problem.code == "taken"),
        Err(error) => matches!(error, StoreError::Conflict(Constraint::CodeTaken)),
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_20_code_of_a_deleted_link_without_owner_is_held_for_everybody(pool: PgPool) {
    let store = Store::new(pool.clone());
    let ada = create_user(&store, "ada").await.id;
    for (owner, takers) in [(None, [None, Some(ada)]), (Some(ada), [None, None])] {
        create(&store, &link_of(owner, "menu2026")).await;
        run(&pool, "DELETE FROM urls").await;
        for taker in takers {
            let created = store.create_link(&link_of(taker, "menu2026")).await;
            assert!(is_taken(&created), "{owner:?} {taker:?} {created:?}");
        }
        assert!(store.release_code("menu2026").await.unwrap(), "the way out");
        create(&store, &link_of(owner, "menu2026")).await;
        run(&pool, "DELETE FROM urls; DELETE FROM held_codes").await;
    }
    // A user gets its own code back.
    create(&store, &link_of(Some(ada), "own")).await;
    run(&pool, "DELETE FROM urls").await;
    create(&store, &link_of(Some(ada), "own")).await;
}
