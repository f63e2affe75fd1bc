//! Bans of hosts, in each spelling of an address.

use linnet_domain::{
    LinkAttributePatch, LinkPatch, NewLink, OnConflict, ShortCode, Visibility, host_name,
};
use linnet_store::{
    Constraint, ImportLink, LinkCreation, RowOutcome, Store, StoreError, WriteOptions, WriteRows,
};
use sqlx::PgPool;

use crate::support::{create, new_link, target};

/// A ban, as an administrator spells it, and hosts that are and are not banned by it.
type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

const V4_SPELLINGS: &[&str] = &[
    "203.0.113.5",
    "3405803781",
    "[::ffff:203.0.113.5]",
    "[::ffff:cb00:7105]",
    "[0:0:0:0:0:FFFF:CB00:7105]",
    "[64:ff9b::203.0.113.5]",
    "[64:ff9b::cb00:7105]",
    "[::203.0.113.5]",
    "[::cb00:7105]",
];
const V4_NEIGHBORS: &[&str] = &[
    "203.0.113.50",
    "[::ffff:203.0.113.6]",
    "[64:ff9b::203.0.113.4]",
    "[::1:cb00:7105]",
    "[64:ff9b:1::cb00:7105]",
    "[2001:db8::cb00:7105]",
];
const CASES: [Case; 6] = [
    ("203.0.113.5", V4_SPELLINGS, V4_NEIGHBORS),
    ("[::ffff:203.0.113.5]", V4_SPELLINGS, V4_NEIGHBORS),
    ("64:ff9b::203.0.113.5", V4_SPELLINGS, V4_NEIGHBORS),
    ("::cb00:7105", V4_SPELLINGS, V4_NEIGHBORS),
    ("8.0.0.0", &["[::ffff:8.0.0.0]", "[64:ff9b::800:0]", "[::8.0.0.0]"], &["[::ffff:8.0.0.1]"]),
    ("2001:DB8::7", &["[2001:db8:0::7]"], &["[2001:db8::70]", "[2001:db8::8]"]),
];

fn link_to(host: &str) -> NewLink {
    NewLink { target: target(&format!("http://{host}:8080/a?b#c")), ..new_link(None) }
}

fn is_banned<T: std::fmt::Debug>(result: Result<T, StoreError>, host: &str) -> bool {
    match result {
        Ok(_) => false,
        Err(StoreError::Conflict(Constraint::HostBanned)) => true,
        other => panic!("{host}: {other:?}"),
    }
}

/// Whether each way to write a link rejects the host: creation, edit, and import of a new and of an existing link.
async fn refusals(store: &Store, host: &str) -> [bool; 4] {
    let link = create(store, &link_to("good.example")).await;
    let new = link_to(host);
    let edit = LinkPatch { target: Some(new.target.clone()), ..LinkPatch::default() };
    let created = store.create_link(&new).await;
    assert!(!matches!(created, Ok(LinkCreation::CodeTaken)), "{created:?}");
    let edited = store.update_link(link.id, Visibility::All, None, &edit).await;
    [
        is_banned(created, host),
        is_banned(edited, host),
        import(store, &new, None).await,
        import(store, &new, Some(ShortCode::parse(&link.short_code).unwrap())).await,
    ]
}

/// Imports one link. Returns whether its target is rejected.
async fn import(store: &Store, link: &NewLink, short_code: Option<ShortCode>) -> bool {
    let options = WriteOptions {
        on_conflict: OnConflict::Update,
        visible_to: Visibility::All,
        dry_run: false,
    };
    let row = ImportLink {
        id: None,
        user_id: None,
        short_code,
        target: link.target.clone(),
        attributes: LinkAttributePatch::default(),
        created_at: None,
        updated_at: None,
    };
    let mut transaction = store.begin().await.unwrap();
    let outcomes = ImportLink::write(&mut transaction, &[&row], &options).await;
    match outcomes.as_deref() {
        Ok([RowOutcome::Written]) => transaction.commit().await.unwrap(),
        Ok([RowOutcome::Bad(problem)]) => {
            assert_eq!(problem.column, "original_url");
            return true;
        }
        _ => return is_banned(outcomes, "import"),
    }
    false
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_20_banned_address_covers_its_ipv6_spellings(pool: PgPool) {
    let store = Store::new(pool);
    for (given, banned, other) in CASES {
        let mut links = Vec::new();
        for host in banned {
            links.push(create(&store, &link_to(host)).await.id);
        }
        let mut others = Vec::new();
        for host in other {
            others.push(create(&store, &link_to(host)).await.id);
        }
        let ban = store.ban_host(&host_name(given).unwrap(), None, None).await.unwrap();
        let taken_down = store.take_down_links_to(&ban, None).await.unwrap();
        assert_eq!(taken_down, u64::try_from(banned.len()).unwrap(), "{given}");
        for (ids, is_active) in [(&links, false), (&others, true)] {
            for id in ids {
                let link = store.find_link(*id, Visibility::All).await.unwrap().unwrap();
                assert_eq!(link.attributes.is_active, is_active, "{given}: {link:?}");
            }
        }
        for host in banned {
            assert_eq!(refusals(&store, host).await, [true; 4], "{given}: {host}");
        }
        for host in other {
            assert_eq!(refusals(&store, host).await, [false; 4], "{given}: {host}");
        }
        assert_eq!(store.take_down_links_to(&ban, None).await.unwrap(), 0);
        assert!(store.unban_host(ban.id).await.unwrap());
    }
}
