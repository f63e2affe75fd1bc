//! Imported rows obey the same rules as links of the API, and exported reports contain no formula.

use std::fmt::Write;

use linnet_system_tests::stack::BASE_URL;
use serde_json::json;

use super::support::{
    URLS, accepted_job_id, builder, count_links_created_once, import, invalid_rows, row_counts,
    upload, wait_for_job_end,
};

const INVALID_CODES: [&str; 10] = [
    "api",
    "API",
    "Metrics",
    "health",
    "docs",
    "robots.txt",
    "favicon.ico",
    ".well-known",
    "a",
    "ä b",
];

fn invalid_targets() -> Vec<String> {
    let own = BASE_URL.trim_start_matches("http://");
    vec![
        "javascript:alert(1)".to_owned(),
        "JaVaScRiPt:alert(1)".to_owned(),
        " javascript:alert(1)".to_owned(),
        "\tjavascript:alert(1)".to_owned(),
        "\njavascript:alert(1)".to_owned(),
        "java\nscript:alert(1)".to_owned(),
        "data:text/html,x".to_owned(),
        "file:///etc/passwd".to_owned(),
        "vbscript:msgbox".to_owned(),
        "https://user:secret@example.com/".to_owned(),
        "https://example.com/\0".to_owned(),
        "//example.com".to_owned(),
        "https://".to_owned(),
        format!("http://{own}/abc"),
        format!("https://{}/abc", own.to_uppercase()),
        format!("http://{own}.:8080/abc"),
        format!("http://a:b@{own}/"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_03_must_04_must_21_imported_rows_obey_the_rules_of_links() {
    let stack = builder().start().await;
    let client = stack.client();
    client.shorten(&json!({"original_url": "https://example.com/", "short_code": "mine"})).await;
    let targets = invalid_targets();
    for on_conflict in ["fail", "skip", "update"] {
        let mut csv = "short_code,original_url\n".to_owned();
        let mut rows = 0;
        for target in &targets {
            writeln!(csv, "mine,\"{target}\"").unwrap();
            rows += 1;
        }
        for code in INVALID_CODES {
            writeln!(csv, "{code},https://example.com/").unwrap();
            rows += 1;
        }
        let id = accepted_job_id(
            &upload(&client, &format!("{URLS}?on_conflict={on_conflict}"), csv).send().await,
        );
        let job = wait_for_job_end(&client, id).await;
        assert_eq!(
            row_counts(&job),
            [rows, 0, 0, rows],
            "{on_conflict}: {:?}",
            invalid_rows(&client, id).await
        );
        let bad = invalid_rows(&client, id).await;
        let columns: Vec<&str> = bad.iter().map(|row| row.1.as_str()).collect();
        assert_eq!(columns[..targets.len()], vec!["original_url"; targets.len()]);
        assert_eq!(columns[targets.len()..], vec!["short_code"; INVALID_CODES.len()]);
    }
    let links = client.get("/api/v1/urls").send().await.json();
    assert_eq!(links.as_array().unwrap().len(), 1, "{links}");
    assert_eq!(links[0]["original_url"], "https://example.com/");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_06_concurrent_imports_of_one_code_create_one_link() {
    let stack = builder()
        .workers(2)
        .env("LINNET__JOBS__RUNNING_PER_USER", 8)
        .env("LINNET__JOBS__UPLOADS", 10)
        .env("LINNET__JOBS__UPLOADS_PER_USER", 10)
        .start()
        .await;
    let client = stack.client();
    let mut uploads = Vec::new();
    for n in 0..10 {
        // Half of the files are reversed, so that imports conflict in both directions.
        let mut rows: Vec<String> =
            (0..50).map(|code| format!("same{code},https://example.com/{n}")).collect();
        if n % 2 == 1 {
            rows.reverse();
        }
        let csv = format!("short_code,original_url\n{}\n", rows.join("\n"));
        let request = upload(&client, URLS, csv);
        uploads.push(tokio::spawn(async move { accepted_job_id(&request.send().await) }));
    }
    let creations: Vec<_> = (0..50)
        .map(|code| {
            let body = json!({"original_url": "https://example.com/api", "short_code": format!("same{code}")});
            let request = client.post("/api/v1/urls", &body);
            tokio::spawn(async move { request.send().await.status })
        })
        .collect();
    let mut written = 0;
    for creation in creations {
        let status = creation.await.unwrap();
        assert!([201, 409].contains(&status), "{status}");
        written += i64::from(status == 201);
    }
    for upload in uploads {
        let id = upload.await.unwrap();
        let job = wait_for_job_end(&client, id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        let [read, mine, skipped, failed] = row_counts(&job);
        assert_eq!((read, skipped, mine + failed), (50, 0, 50), "{job}");
        written += mine;
    }
    assert_eq!(written, 50, "each code once");
    let mut database = stack.database().await;
    assert_eq!(count_links_created_once(&mut database, "same").await, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_10_error_reports_contain_no_formula_and_keep_the_text_when_imported_again() {
    let stack = builder().start().await;
    let client = stack.client();
    let titles = ["=cmd()|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "'=quoted", "plain", "a=b"];
    let mut csv = "title,original_url\n".to_owned();
    for title in titles {
        writeln!(csv, "\"{title}\",https://example.com/").unwrap();
        writeln!(csv, "\"{title}\",ftp://example.com/").unwrap();
    }
    let id = import(&client, csv).await;
    let job = wait_for_job_end(&client, id).await;
    assert_eq!(row_counts(&job), [14, 7, 0, 7], "{job}");
    let reports = client.get(&format!("/api/v1/jobs/{id}/errors?format=csv")).send().await.text();
    for (title, line) in titles.iter().zip(reports.lines().skip(1)) {
        let cell = line.rsplit_once(",ftp:").unwrap().0.rsplit([',']).next().unwrap();
        let cell = cell.trim_matches('"');
        let is_formula = cell.starts_with(['=', '+', '-', '@', '\t']);
        assert!(!is_formula, "{title}: {line}");
    }
    // After the correction of the targets, the rows are imported with their original titles.
    let corrected = import(&client, reports.replace("ftp:", "https:")).await;
    assert_eq!(row_counts(&wait_for_job_end(&client, corrected).await), [7, 7, 0, 0]);
    let links = client.get("/api/v1/urls?limit=100").send().await.json();
    let mut stored: Vec<&str> =
        links.as_array().unwrap().iter().map(|link| link["title"].as_str().unwrap()).collect();
    // The import removes an apostrophe that protects a formula, even if the user wrote it.
    let mut wanted: Vec<&str> = titles
        .iter()
        .flat_map(|title| [*title; 2])
        .map(|title| if title == "'=quoted" { "=quoted" } else { title })
        .collect();
    stored.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(stored, wanted);
}
