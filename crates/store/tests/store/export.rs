use std::time::Duration;

use chrono::{DateTime, Utc};
use linnet_domain::{Link, LinkFilter, LinkId, LinkSearch, Page, UserId, Visibility};
use linnet_store::{ExportCell, ExportColumn, Store, StoreError};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{create, create_user, new_link, target};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Aborts an export.
#[derive(Debug)]
struct Abort;

impl From<StoreError> for Abort {
    fn from(error: StoreError) -> Self {
        panic!("{error:?}")
    }
}

/// The ids of the exported links.
async fn exported(store: &Store, filter: &LinkFilter, visible_to: Visibility) -> Vec<LinkId> {
    let mut ids = Vec::new();
    let export = store.begin_export(filter, visible_to).await.unwrap();
    let all = export.for_each(TIMEOUT, async |link| {
        ids.push(id(link));
        Ok::<_, StoreError>(())
    });
    all.await.unwrap();
    ids
}

#[sqlx::test(migrations = "../../migrations")]
async fn an_export_has_every_column(pool: PgPool) {
    let store = Store::new(pool);
    let user = create_user(&store, "exporter").await;
    let mut full = new_link(Some("-full_1"));
    full.user_id = Some(user.id);
    full.target = target("https://example.com/a,b?c=%22#ü");
    full.attributes.title = Some("A \"title\", ☃".to_owned());
    full.attributes.is_active = false;
    full.attributes.expires_at =
        Some("2027-01-31T12:00:00.123456Z".parse::<DateTime<Utc>>().unwrap());
    full.attributes.max_clicks = Some(i64::MAX);
    let links = [create(&store, &full).await, create(&store, &new_link(None)).await];

    let mut seen = 0;
    let export = store.begin_export(&LinkFilter::default(), Visibility::All).await.unwrap();
    let all = export.for_each(TIMEOUT, async |link| {
        assert_eq!(by_column(link), as_exported(&links[seen]));
        seen += 1;
        Ok::<_, StoreError>(())
    });
    all.await.unwrap();
    assert_eq!(seen, links.len());
}

fn id(link: &[ExportCell<'_>]) -> LinkId {
    match link.first() {
        Some(ExportCell::Number(id)) => LinkId::new(*id).unwrap(),
        other => panic!("the first column is the id, not {other:?}"),
    }
}

fn by_column(link: &[ExportCell<'_>]) -> Value {
    let cell = |cell: &ExportCell<'_>| match *cell {
        ExportCell::Null => Value::Null,
        ExportCell::Number(number) => json!(number),
        ExportCell::Text(text) => json!(text),
        ExportCell::Boolean(value) => json!(value),
        ExportCell::Time(time) => json!(time),
    };
    let columns = ExportColumn::all().iter().zip(link);
    columns.map(|(column, value)| (column.name.to_owned(), cell(value))).collect()
}

fn as_exported(link: &Link) -> Value {
    let mut link_json = json!({
        "id": link.id,
        "user_id": link.user_id,
        "short_code": link.short_code,
        "original_url": link.original_url,
        "clicks": link.clicks,
        "created_at": link.created_at,
        "updated_at": link.updated_at,
        "taken_down_at": link.taken_down_at,
        "takedown_reason": link.takedown_reason,
    });
    let attributes = json!(link.attributes);
    link_json.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
    link_json
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_export_contains_exactly_the_listed_links(pool: PgPool) {
    let store = Store::new(pool);
    let (one, two) = (create_user(&store, "one").await, create_user(&store, "two").await);
    for (n, user_id) in [None, Some(one.id), Some(two.id), Some(one.id)].into_iter().enumerate() {
        let mut new = new_link(None);
        new.user_id = user_id;
        new.attributes.is_active = n != 3;
        new.attributes.title = Some(format!("100%_sure' OR 'a'='a {n}"));
        create(&store, &new).await;
    }
    let search = |text: &str| LinkSearch::parse(text).ok();
    let filters = [
        LinkFilter::default(),
        LinkFilter { user_id: Some(one.id), ..LinkFilter::default() },
        LinkFilter { user_id: UserId::new(i64::MAX), ..LinkFilter::default() },
        LinkFilter { is_active: Some(true), ..LinkFilter::default() },
        LinkFilter { is_active: Some(false), user_id: Some(one.id), ..LinkFilter::default() },
        LinkFilter { search: search("0%_SURE' OR 'a'='a 2"), ..LinkFilter::default() },
        LinkFilter { search: search("100x_sure"), ..LinkFilter::default() },
        LinkFilter { search: search("example"), is_active: Some(true), user_id: Some(two.id) },
    ];
    for visible_to in
        [Visibility::All, Visibility::Owner(one.id), Visibility::Owner(two.id), Visibility::None]
    {
        for filter in &filters {
            let page = Page::default();
            let listed = store.list_links(filter, visible_to, page).await.unwrap().links;
            let listed: Vec<_> = listed.iter().map(|link| link.id).collect();
            let what = format!("{filter:?} for {visible_to:?}");
            assert_eq!(exported(&store, filter, visible_to).await, listed, "{what}");
        }
    }
    assert_eq!(exported(&store, &filters[0], Visibility::All).await.len(), 4);
    assert_eq!(exported(&store, &filters[0], Visibility::None).await.len(), 0);
}

#[sqlx::test(migrations = "../../migrations")]
async fn an_aborted_export_closes_its_connection(pool: PgPool) {
    let store = Store::new(pool.clone());
    sqlx::query(
        "INSERT INTO urls (short_code, original_url)
         SELECT 'c' || n, 'https://example.com/' || repeat('x', 1000)
           FROM generate_series(100, 20000) AS n",
    )
    .execute(&pool)
    .await
    .unwrap();
    let mut count = 0;
    let export = store.begin_export(&LinkFilter::default(), Visibility::All).await.unwrap();
    let all = export.for_each(TIMEOUT, async |_| {
        count += 1;
        if count < 3 { Ok(()) } else { Err(Abort) }
    });
    assert!(all.await.is_err());
    // The server ends the export because its connection is closed.
    let end = tokio::time::Instant::now() + TIMEOUT;
    loop {
        let running = sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM pg_stat_activity
              WHERE datname = current_database() AND pid <> pg_backend_pid()
                AND state <> 'idle'",
        );
        if running.fetch_one(&pool).await.unwrap() == 0 {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "the export still runs");
        tokio::task::yield_now().await;
    }
    assert_eq!(count, 3);
    let setting = sqlx::query_scalar::<_, Option<String>>(
        "SELECT current_setting('linnet.visible_to', true)",
    );
    assert_eq!(setting.fetch_one(&pool).await.unwrap().unwrap_or_default(), "");
}
