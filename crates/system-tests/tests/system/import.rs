//! `admin import`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use linnet_system_tests::{
    Stack,
    services::{path_text, workspace},
};
use serde_json::json;

/// A row as its columns.
type Row = BTreeMap<String, String>;

/// Reads a CSV file: quotes, doubled quotes, no line breaks within fields.
fn rows(path: &Path) -> Vec<Row> {
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

/// A data set: its folder and how many rows its files have.
fn data_sets() -> Vec<(PathBuf, Option<[usize; 3]>)> {
    let mut sets = vec![(fixture("import"), None)];
    let sample = std::env::var_os("LINNET_SAMPLE_DATA")
        .map_or_else(|| workspace().join("../shared/data/sample"), PathBuf::from);
    if sample.join("urls.csv").exists() {
        sets.push((sample, Some([400, 2_000, 3_422])));
    }
    sets
}

#[tokio::test]
async fn a_data_set_comes_in_whole_and_every_code_resolves() {
    for (folder, counts) in data_sets() {
        let file = |name: &str| folder.join(format!("{name}.csv"));
        let (users, urls, events) =
            (rows(&file("users")), rows(&file("urls")), rows(&file("events")));
        if let Some(counts) = counts {
            assert_eq!([users.len(), urls.len(), events.len()], counts);
        }
        // Before the first key is made: its user would take an id of the data.
        let stack = Stack::builder().import(&folder).start().await;
        let mut database = stack.database().await;
        for (table, rows) in [("users", &users), ("urls", &urls), ("events", &events)] {
            let sql = format!("SELECT count(*) FROM {table} WHERE id <= $1");
            let last: i64 = rows.iter().map(|row| row["id"].parse().unwrap()).max().unwrap();
            let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .bind(last)
                .fetch_one(&mut database)
                .await
                .unwrap();
            assert_eq!(usize::try_from(count).unwrap(), rows.len(), "{table}");
        }
        let client = stack.client();
        let last_user = users.iter().map(|row| row["id"].parse::<i64>().unwrap()).max().unwrap();
        let (next, _) = stack.user("next", &["urls:read"]).await;
        assert_eq!(next, last_user + 1, "the sequence is past the explicit ids");
        let last_url = urls.iter().map(|row| row["id"].parse::<i64>().unwrap()).max().unwrap();
        let next = client.shorten(&json!({"original_url": "https://example.com/"})).await;
        assert_eq!(next["id"], last_url + 1);

        let mut names: Vec<_> = users.iter().map(|row| &row["username"]).collect();
        names.sort_unstable();
        let repeated = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone());
        let repeated = repeated.expect("the data have a user name twice");
        let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE username = $1")
            .bind(&repeated)
            .fetch_one(&mut database)
            .await
            .unwrap();
        assert!(kept >= 2, "{repeated}");

        let mut inactive = 0;
        for row in &urls {
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

        let sample = &urls[urls.len() / 2];
        let link = client.get(&format!("/api/v1/urls/{}", sample["id"])).send().await.json();
        assert_eq!(link["short_code"], sample["short_code"]);
        assert_eq!(link["title"], sample["title"]);
        assert_eq!(link["user_id"].to_string(), sample["user_id"]);
        let created_at = sample["created_at"].replace(' ', "T") + "Z";
        assert_eq!(link["created_at"], created_at);
        let event = events.iter().find(|event| event["details"].contains('{')).unwrap();
        let stored = client.get(&format!("/api/v1/events/{}", event["id"])).send().await.json();
        let details: serde_json::Value = serde_json::from_str(&event["details"]).unwrap();
        assert_eq!(stored["details"], details);
        assert_eq!(stored["event_type"], event["event_type"]);

        // A second time, nothing is changed and everything is told.
        let users = path_text(&file("users"));
        let (status, out, error) = stack.cli(&["admin", "import", "--users", &users]).await;
        assert_ne!(status, 0, "{out}{error}");
    }
}

#[tokio::test]
async fn bad_rows_are_told_by_line_and_the_good_ones_come_in() {
    let stack = Stack::start().await;
    let arguments: Vec<String> = ["users", "urls", "events"]
        .into_iter()
        .flat_map(|name| {
            [format!("--{name}"), path_text(&fixture("bad").join(format!("{name}.csv")))]
        })
        .collect();
    let mut all = vec!["admin", "import"];
    all.extend(arguments.iter().map(String::as_str));
    let (status, out, error) = stack.cli(&all).await;
    let report = format!("{out}{error}");
    assert_ne!(status, 0, "{report}");
    assert!(!report.contains("panicked"), "{report}");
    // The fixtures say in their titles and names which lines are bad, and in which column.
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
        assert!(report.contains(expected), "{expected} is not told:\n{report}");
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
async fn a_file_that_is_no_such_table_is_refused() {
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
async fn a_code_that_was_asked_for_before_its_import_resolves_after_it() {
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
        // A process's own memory of absence lives for 5 s.
        linnet_system_tests::within(
            std::time::Duration::from_secs(8),
            "the imported link",
            || async { stack.resolve_at(shortener, "Later1").await.0 == 302 },
        )
        .await;
    }
}
