//! `search`: what it finds, and by which index.

use linnet_domain::{LinkFilter, LinkSearch, Page, Visibility};
use linnet_store::Store;
use sqlx::PgPool;

use crate::support::{create, new_link, target};

#[sqlx::test(migrations = "../../migrations")]
async fn search_finds_text_literally_in_code_target_and_title(pool: PgPool) {
    let store = Store::new(pool);
    let mut new = new_link(Some("needle-1"));
    create(&store, &new).await;
    new = new_link(None);
    new.attributes.title = Some("50%_off NEEDLE".into());
    create(&store, &new).await;
    new = new_link(None);
    new.target = target("https://example.com/needle");
    create(&store, &new).await;
    create(&store, &new_link(None)).await;

    let found = async |text: &str| {
        let filter = LinkFilter { search: LinkSearch::parse(text).ok(), ..LinkFilter::default() };
        store.list_links(&filter, Visibility::All, Page::default()).await.unwrap().len()
    };
    assert_eq!(found("needle").await, 3);
    assert_eq!(found("%_off").await, 1);
    assert_eq!(found("%_o").await, 1);
    assert_eq!(found("50\\").await, 0);
}

#[sqlx::test(migrations = "../../migrations")]
async fn search_finds_targets_by_what_people_type(pool: PgPool) {
    let store = Store::new(pool);
    for (title, original) in [
        (None, "https://bücher.example/"),
        (None, "https://example.com/東京"),
        (None, "https://example.com/?q=東京"),
        (Some("東京の地図"), "https://example.com/map"),
        (None, "https://example.com/other"),
        (None, "https://www.münchen.de:8443/Straße?a=b"),
        (None, "http://xn--80ak6aa92e.xn--p1ai/"),
        (None, "https://例え.テスト/"),
        (None, "https://faß.example/"),
        (None, "https://example.com/xn--mnchen-3ya"),
    ] {
        let mut new = new_link(None);
        new.target = target(original);
        new.attributes.title = title.map(ToOwned::to_owned);
        create(&store, &new).await;
    }
    for (text, count) in [
        ("東京", 3),
        ("bücher", 1),
        ("büche", 1),
        ("ÜCHER", 1),
        ("bücher.example", 1),
        ("münch", 1),
        ("Mu\u{308}nch", 1),
        ("w.mün", 1),
        ("ünchen.de:8443/Straße", 1),
        ("https://www.mü", 1),
        ("аррӏ", 1),
        ("рф", 1),
        ("例え", 1),
        ("え.テ", 1),
        ("faß", 1),
        ("münchner", 0),
        ("https://Bücher.example", 1),
        ("example.com/東京", 1),
        ("地図", 1),
    ] {
        let filter = LinkFilter { search: LinkSearch::parse(text).ok(), ..LinkFilter::default() };
        let links = store.list_links(&filter, Visibility::All, Page::default()).await.unwrap();
        assert_eq!(links.len(), count, "{text}");
    }
}

/// An index bounds the time of this spelling too.
#[sqlx::test(migrations = "../../migrations")]
async fn search_for_a_part_of_a_host_uses_an_index(pool: PgPool) {
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("SET LOCAL enable_seqscan = off").execute(&mut *transaction).await.unwrap();
    let sql = r#"EXPLAIN SELECT id FROM urls
        WHERE (short_code COLLATE "default" || ' ' || original_url || ' ' || COALESCE(title, '')) ILIKE '%münch%'
           OR (original_url LIKE '%://%xn--%' AND target_for_people(original_url) ILIKE '%münch%')"#;
    let plan: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *transaction).await.unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("urls_search_idx") && plan.contains("urls_idn_search_idx"), "{plan}");
}

/// Only rows of other programs contain Punycode that no browser accepts. It is returned unchanged, without an error.
#[sqlx::test(migrations = "../../migrations")]
async fn malformed_punycode_stays_as_it_is(pool: PgPool) {
    for (url, wanted) in [
        ("https://xn--mnchen-3ya.de/xn--a", "https://münchen.de/xn--a"),
        ("https://xn--.de/", "https://.de/"),
        ("https://xn--\u{e4}.de/", "https://xn--\u{e4}.de/"),
        ("https://xn--99999999999.de/", "https://xn--99999999999.de/"),
        (
            "https://xn--a-zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz/",
            "https://xn--a-zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz/",
        ),
        ("https://xn--a-/", "https://a/"),
        ("https://[::1]:80/", "https://[::1]:80/"),
        ("mailto:a@xn--mnchen-3ya.de", "mailto:a@xn--mnchen-3ya.de"),
        ("https://", "https://"),
        ("", ""),
    ] {
        let readable: String = sqlx::query_scalar("SELECT target_for_people($1)")
            .bind(url)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(readable, wanted);
    }
}
