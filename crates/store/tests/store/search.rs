//! `search`: what it finds, and by which index.

use linnet_domain::{LinkFilter, LinkSearch, Page, PageStart, UserId, Visibility};
use linnet_store::{LINK_SEARCH_WINDOW, Store};
use sqlx::PgPool;

use crate::support::{create, create_user, new_link, target};

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
        store.list_links(&filter, Visibility::All, Page::default()).await.unwrap().links.len()
    };
    assert_eq!(found("needle").await, 3);
    assert_eq!(found("%_off").await, 1);
    assert_eq!(found("%_o").await, 1);
    assert_eq!(found("50\\").await, 0);
}

// Long because it lists targets and texts.
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
        (None, "https://example.com/summer sale"),
        (None, "https://example.com/?q=summer sale"),
        (None, "https://example.com/<tag>"),
        (None, "https://example.com/?q=<tag>"),
        (None, "https://example.com/{\"k\":\"v\"}"),
        (None, "https://example.com/?q={\"k\":\"v\"}"),
        (None, "https://example.com/l'été"),
        (None, "https://example.com/?q=l'ÉTÉ"),
        (None, "https://example.com/#l'été"),
        (None, "https://example.com/Über-uns"),
        (None, "https://example.com/ПРИВЕТ"),
        (None, "https://zürich.example/Über uns"),
        (None, "https://example.com/ὈΔΥΣΣΕΎΣ"),
        (None, "https://example.com/a.(b)*c"),
        (None, "https://example.com/?q=f(x)=[x^2|y]+\\d"),
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
        ("Summer Sale", 2),
        ("<TAG>", 2),
        ("{\"k\":\"v\"}", 2),
        ("l'été", 3),
        ("L'Été", 3),
        ("über-uns", 1),
        ("ÜBER-UNS", 1),
        ("example.com/über-uns", 1),
        ("öber-uns", 0),
        ("Привет", 1),
        ("ZÜRICH.example/über UNS", 1),
        ("ürich.example/Über uns", 1),
        ("ὀδυσσεύς", 1),
        ("a.(b)*c", 1),
        ("?q=f(x)=[x^2|y]+\\d", 1),
        ("a <>()[]{}*+?.^$|\\#", 0),
        ("***:é", 0),
    ] {
        let filter = LinkFilter { search: LinkSearch::parse(text).ok(), ..LinkFilter::default() };
        let links = store.list_links(&filter, Visibility::All, Page::default()).await.unwrap();
        assert_eq!(links.links.len(), count, "{text}");
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

/// The index returns every row to a search without a trigram, and none of these rows to one with a trigram.
#[sqlx::test(migrations = "../../migrations")]
async fn a_selective_search_has_a_trigram_for_the_index(pool: PgPool) {
    sqlx::query("INSERT INTO urls (short_code, original_url) VALUES ('___', '///')")
        .execute(&pool)
        .await
        .unwrap();
    for (text, has_trigram) in [
        ("xyz", true),
        ("-xy", true),
        ("xy-", true),
        ("xy z", true),
        ("x%yz", true),
        ("a\\bc", true),
        ("東京都", true),
        ("-東京", true),
        ("привет", true),
        ("สวัสดี", true),
        ("नमस्ते", true),
        ("xy", false),
        ("--", false),
        ("東京", false),
        ("x-", false),
        ("²²²", false),
        // These have only the trigram of an initial.
        ("a b", true),
        ("a-b-c", true),
        ("%a", true),
        ("é.é", true),
    ] {
        let mut connection = pool.acquire().await.unwrap();
        sqlx::query("SET enable_seqscan = off").execute(&mut *connection).await.unwrap();
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%");
        let sql = format!(
            r#"EXPLAIN (ANALYZE, TIMING off) SELECT id FROM urls WHERE
               (short_code COLLATE "default" || ' ' || original_url || ' ' || COALESCE(title, '')) ILIKE '%{escaped}%'"#
        );
        let plan: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *connection).await.unwrap();
        let scan = plan.iter().find(|line| line.contains("on urls_search_idx")).unwrap();
        let rows = scan.split("actual rows=").nth(1).unwrap();
        assert_eq!(rows.starts_with('0'), has_trigram, "{text}: {plan:?}");
        let is_selective = LinkSearch::parse(text).unwrap().is_selective();
        assert!(has_trigram || !is_selective, "{text}");
    }
}

/// As for the typed text, for the expressions of its other spellings, also at the limits of a text.
#[sqlx::test(migrations = "../../migrations")]
async fn a_selective_search_has_a_trigram_in_each_expression(pool: PgPool) {
    sqlx::query("INSERT INTO urls (short_code, original_url) VALUES ('___', '///')")
        .execute(&pool)
        .await
        .unwrap();
    let mut connection = pool.acquire().await.unwrap();
    sqlx::query("SET enable_seqscan = off").execute(&mut *connection).await.unwrap();
    let long = ["ü".repeat(200), "ab ".repeat(66), "{\"éa".repeat(50), "ὈΔ'".repeat(66)];
    let texts =
        ["xy z", "a<bcd", "summer sale", "東京都", "über", "Привет", "l'été", "xy'z", "bü.dé/ä ö"];
    for text in texts.into_iter().chain(long.iter().map(String::as_str)) {
        let search = LinkSearch::parse(text).unwrap();
        assert!(search.is_selective(), "{text}");
        for expression in [search.encoded, search.host].into_iter().flatten() {
            let expression = expression.replace('\'', "''");
            let sql = format!(
                r#"EXPLAIN (ANALYZE, TIMING off) SELECT id FROM urls WHERE
                   (short_code COLLATE "default" || ' ' || original_url || ' ' || COALESCE(title, '')) ~* '{expression}'"#
            );
            let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
            let plan: Vec<String> = query.fetch_all(&mut *connection).await.unwrap();
            let scan = plan.iter().find(|line| line.contains("on urls_search_idx")).unwrap();
            assert!(scan.contains("actual rows=0"), "{text} {expression}: {plan:?}");
        }
    }
}

/// Follows the list of `filter` to its end. Returns the ids and the number of pages.
async fn follow(store: &Store, filter: &LinkFilter, visible_to: Visibility) -> (Vec<i64>, usize) {
    let (mut ids, mut pages, mut after) = (Vec::new(), 0, 0);
    loop {
        let page = Page { position: PageStart::After(after), size: 2 };
        let page = store.list_links(filter, visible_to, page).await.unwrap();
        ids.extend(page.links.iter().map(|link| link.id.get()));
        pages += 1;
        after = match (page.links.as_slice(), page.cut_after) {
            ([_, last], _) => last.id.get(),
            (_, Some(cut_after)) => cut_after.get(),
            (_, None) => return (ids, pages),
        };
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn search_that_no_index_bounds_reads_a_window_of_links_a_page(pool: PgPool) {
    let store = Store::new(pool.clone());
    let user = create_user(&store, "searcher").await;
    // Three windows and a half of the user's links between as many of no user. Windows 1, 3 and 4 have matches.
    let sql = "INSERT INTO urls (id, user_id, short_code, original_url, title)
        SELECT n, CASE WHEN n % 2 = 0 THEN $1 END, 'a' || lpad(n::text, 7, '0'), 'https://a.example/',
               CASE WHEN n = ANY ($2) THEN 'über xy' END
          FROM generate_series(1, $3) AS n";
    let window = LINK_SEARCH_WINDOW;
    // The first window and its neighbor, three in one window, and the last links.
    let matches =
        [2, 2 * window, 4 * window + 2, 4 * window + 4, 4 * window + 6, 6 * window + 2, 7 * window];
    sqlx::query(sql)
        .bind(user.id.get())
        .bind(matches.as_slice())
        .bind(7 * window)
        .execute(&pool)
        .await
        .unwrap();
    let filter = |text: &str, user_id: Option<UserId>| LinkFilter {
        search: LinkSearch::parse(text).ok(),
        user_id,
        is_active: Some(true),
    };
    for text in ["xy", "üb"] {
        for visible_to in [Visibility::All, Visibility::Owner(user.id)] {
            for user_id in [None, Some(user.id)] {
                let (ids, pages) = follow(&store, &filter(text, user_id), visible_to).await;
                assert_eq!(ids, matches, "{text} {visible_to:?} {user_id:?}");
                assert!(pages >= 4, "{pages}");
            }
        }
    }
    assert_eq!(follow(&store, &filter("xz", None), Visibility::All).await, (vec![], 8));
    let (ids, pages) = follow(&store, &filter("er xy", None), Visibility::All).await;
    assert_eq!((ids.as_slice(), pages), (matches.as_slice(), 4), "an index bounds the search");

    // A number counts the matches of the first window.
    let page = Page { position: PageStart::Number(2), size: 1 };
    let page =
        store.list_links(&filter("xy", None), Visibility::Owner(user.id), page).await.unwrap();
    let ids: Vec<_> = page.links.iter().map(|link| link.id.get()).collect();
    assert_eq!(ids, [2 * window]);
    assert_eq!(page.cut_after.map(linnet_domain::LinkId::get), Some(2 * window));
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
