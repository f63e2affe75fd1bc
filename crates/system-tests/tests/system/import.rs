//! `admin import`: complete data sets, invalid rows and malformed files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use linnet_system_tests::{
    Stack,
    services::{path_text, sample_data, workspace},
};
use serde_json::json;

/// Values of a row by column.
type Row = BTreeMap<String, String>;

/// Reads a CSV file without line breaks in fields.
fn read_rows(path: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let fields = |line: &str| {
        let mut fields = vec![String::new()];
        let mut quoted = false;
        let mut characters = line.chars().peekable();
        while let Some(c) = characters.next() {
            match c {
                '"' if quoted && characters.peek() == Some(&'"') => {
                    characters.next();
                    fields.last_mut().unwrap().push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(String::new()),
                c => fields.last_mut().unwrap().push(c),
            }
        }
        fields
    };
    let header = fields(lines.next().unwrap());
    lines.map(|line| header.iter().cloned().zip(fields(line)).collect()).collect()
}

fn fixture(name: &str) -> PathBuf {
    workspace().join("crates/system-tests/fixtures").join(name)
}

/// Folders with data sets, and the numbers of users, links and events of the sample.
fn data_sets() -> Vec<(PathBuf, Option<[usize; 3]>)> {
    let mut sets = vec![(fixture("import"), None)];
    if let Some(sample) = sample_data() {
        sets.push((sample, Some([400, 2_000, 3_422])));
    }
    sets
}

#[tokio::test]
async fn data_set_is_imported_completely_and_every_code_resolves() {
    for (folder, counts) in data_sets() {
        let file = |name: &str| folder.join(format!("{name}.csv"));
        let (users, urls, events) =
            (read_rows(&file("users")), read_rows(&file("urls")), read_rows(&file("events")));
        if let Some(counts) = counts {
            assert_eq!([users.len(), urls.len(), events.len()], counts);
        }
        // The import precedes the first key, whose user would otherwise take an id of the data set.
        let stack = Stack::builder().import(&folder).start().await;
        for (table, rows) in [("users", &users), ("urls", &urls), ("events", &events)] {
            assert_all_rows_are_stored(&stack, table, rows).await;
        }
        assert_next_ids_follow_the_imported(&stack, &users, &urls).await;
        assert_user_names_may_repeat(&stack, &users).await;
        assert_codes_resolve(&stack, &urls).await;
        assert_fields_are_kept(&stack, &urls[urls.len() / 2], &events).await;

        // A second import fails, because all users exist already.
        let users = path_text(&file("users"));
        let (status, out, error) = stack.cli(&["admin", "import", "--users", &users]).await;
        assert_ne!(status, 0, "{out}{error}");
    }
}

fn last_id(rows: &[Row]) -> i64 {
    rows.iter().map(|row| row["id"].parse().unwrap()).max().unwrap()
}

async fn assert_all_rows_are_stored(stack: &Stack, table: &str, rows: &[Row]) {
    let sql = format!("SELECT count(*) FROM {table} WHERE id <= $1");
    let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(last_id(rows))
        .fetch_one(&mut stack.database().await)
        .await
        .unwrap();
    assert_eq!(usize::try_from(count).unwrap(), rows.len(), "{table}");
}

async fn assert_next_ids_follow_the_imported(stack: &Stack, users: &[Row], urls: &[Row]) {
    let (next, _) = stack.create_user("next", &["urls:read"]).await;
    assert!(last_id(users) < stack.admin_id, "operators have ids above those of a data set");
    assert_eq!(next, stack.admin_id + 1, "the id of the next user");
    let next = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    assert_eq!(next["id"], last_id(urls) + 1, "the id of the next link");
}

async fn assert_user_names_may_repeat(stack: &Stack, users: &[Row]) {
    let mut names: Vec<_> = users.iter().map(|row| &row["username"]).collect();
    names.sort_unstable();
    let repeated = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone());
    let repeated = repeated.expect("a user name that occurs twice");
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE username = $1")
        .bind(&repeated)
        .fetch_one(&mut stack.database().await)
        .await
        .unwrap();
    assert!(count >= 2, "{repeated}");
}

async fn assert_codes_resolve(stack: &Stack, urls: &[Row]) {
    let client = stack.client();
    let mut inactive = 0;
    for row in urls {
        let (status, location) = client.resolve(&row["short_code"]).await;
        if row["is_active"] == "True" {
            let target = Some(row["original_url"].as_str());
            assert_eq!((status, location.as_deref()), (302, target), "{row:?}");
        } else {
            assert_eq!(status, 404, "{row:?}");
            inactive += 1;
        }
    }
    assert!(inactive > 0);
}

async fn assert_fields_are_kept(stack: &Stack, url: &Row, events: &[Row]) {
    let client = stack.client();
    let link = client.get(&format!("/api/v1/urls/{}", url["id"])).send().await.json();
    assert_eq!(link["short_code"], url["short_code"]);
    assert_eq!(link["title"], url["title"]);
    assert_eq!(link["user_id"].to_string(), url["user_id"]);
    let created_at = url["created_at"].replace(' ', "T") + "Z";
    assert_eq!(link["created_at"], created_at);
    let event = events.iter().find(|event| event["details"].contains('{')).unwrap();
    let stored = client.get(&format!("/api/v1/events/{}", event["id"])).send().await.json();
    let details: serde_json::Value = serde_json::from_str(&event["details"]).unwrap();
    assert_eq!(stored["details"], details);
    assert_eq!(stored["event_type"], event["event_type"]);
}

#[tokio::test]
async fn invalid_rows_are_reported_by_line_and_valid_ones_imported() {
    let stack = Stack::start().await;
    let arguments: Vec<String> = ["users", "urls", "events"]
        .into_iter()
        .flat_map(|name| {
            [format!("--{name}"), path_text(&fixture("invalid").join(format!("{name}.csv")))]
        })
        .collect();
    let mut all = vec!["admin", "import"];
    all.extend(arguments.iter().map(String::as_str));
    let (status, out, error) = stack.cli(&all).await;
    let report = format!("{out}{error}");
    assert_ne!(status, 0, "{report}");
    assert!(!report.contains("panicked"), "{report}");
    // Titles and names in the fixtures describe the error of each line.
    for expected in [
        "users.csv:3: email",
        "users.csv:4: id",
        "users.csv:5: username",
        "users.csv:6: created_at",
        "users.csv:7:",
        "users.csv:9: email",
        "urls.csv:3: original_url",
        "urls.csv:4: short_code",
        "urls.csv:5: short_code",
        "urls.csv:6: is_active",
        "urls.csv:7: user_id",
        "urls.csv:8: short_code",
        "urls.csv:9: original_url",
        "urls.csv:11: title",
        "events.csv:3: details",
        "events.csv:4: url_id",
        "events.csv:5: event_type",
        "events.csv:6: timestamp",
    ] {
        assert!(report.contains(expected), "no {expected} in:\n{report}");
    }
    let mut database = stack.database().await;
    for (table, sql, wanted) in [
        (
            "users",
            "SELECT string_agg(id::text, ',' ORDER BY id) FROM users WHERE id BETWEEN 1001 AND 9999",
            "1001,1007",
        ),
        ("urls", "SELECT string_agg(id::text, ',' ORDER BY id) FROM urls", "2001,2009"),
        (
            "events",
            "SELECT string_agg(id::text, ',' ORDER BY id) FROM events WHERE id > 3000",
            "3001,3006",
        ),
    ] {
        let ids: Option<String> = sqlx::query_scalar(sql).fetch_one(&mut database).await.unwrap();
        assert_eq!(ids.as_deref(), Some(wanted), "{table}:\n{report}");
    }
    assert_eq!(
        stack.client().resolve("Good01").await.1.as_deref(),
        Some("https://example.com/good")
    );
}

#[tokio::test]
async fn files_without_the_expected_columns_are_rejected() {
    let stack = Stack::start().await;
    let file = stack.folder().join("odd.csv");
    for content in ["", "\n", "a,b\n1,2\n", "id,id,short_code,original_url\n", "\u{0}\u{1}\u{2}"] {
        std::fs::write(&file, content).unwrap();
        let (status, out, error) =
            stack.cli(&["admin", "import", "--urls", &path_text(&file)]).await;
        assert_ne!(status, 0, "{content:?}: {out}{error}");
        assert!(error.contains("odd.csv"), "{content:?}: {out}{error}");
    }
    let missing = stack.cli(&["admin", "import", "--urls", "/nonexistent/urls.csv"]).await;
    assert_ne!(missing.0, 0);
    assert!(missing.2.contains("/nonexistent/urls.csv"), "{}", missing.2);
}

#[tokio::test]
async fn imported_link_resolves_despite_a_negative_cache_entry() {
    let stack = Stack::builder().shorteners(2).start().await;
    for shortener in 0..2 {
        assert_eq!(stack.resolve_at(shortener, "Later1").await.0, 404);
    }
    let file = stack.folder().join("later.csv");
    std::fs::write(&file, "id,short_code,original_url\n900,Later1,https://example.com/later\n")
        .unwrap();
    let (status, out, error) = stack.cli(&["admin", "import", "--urls", &path_text(&file)]).await;
    assert_eq!(status, 0, "{out}{error}");
    for shortener in 0..2 {
        // Negative entries in L1 live for 5 s.
        linnet_system_tests::within(
            std::time::Duration::from_secs(8),
            "the imported link",
            || async { stack.resolve_at(shortener, "Later1").await.0 == 302 },
        )
        .await;
    }
}
