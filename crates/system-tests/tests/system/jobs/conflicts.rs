//! `on_conflict`, `dry_run` and the error report.

use linnet_system_tests::{Stack, client::Method};
use serde_json::{Value, json};

use super::support::{
    URLS, USERS, accepted_job_id, builder, count_links_created_once, import, invalid_rows,
    links_csv, query_count, row_counts, upload, wait_for_job_end,
};

const EXISTING_LINKS: &str = "short_code,original_url,title\n\
    one,https://example.com/1,first\n\
    two,https://example.com/2,first\n\
    three,https://example.com/3,first\n";

/// A new link and two with existing codes.
const CONFLICTING_LINKS: &str = "short_code,original_url,title\n\
    two,https://example.com/new,second\n\
    four,https://example.com/4,second\n\
    three,https://example.com/new,second\n";

/// Code, target and title of every link.
async fn stored_links(stack: &Stack) -> Vec<(String, String, String)> {
    sqlx::query_as("SELECT short_code, original_url, title FROM urls ORDER BY short_code")
        .fetch_all(&mut stack.database().await)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicting_rows_are_skipped_updated_or_reported() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 2).start().await;
    let client = stack.client();
    assert_eq!(
        row_counts(&wait_for_job_end(&client, import(&client, EXISTING_LINKS).await).await),
        [3, 3, 0, 0]
    );
    let run = async |on_conflict: &str, dry_run: bool| {
        let path = format!("{URLS}?on_conflict={on_conflict}&dry_run={dry_run}");
        let id = accepted_job_id(&upload(&client, &path, CONFLICTING_LINKS).send().await);
        let job = wait_for_job_end(&client, id).await;
        assert_eq!((&job["state"], &job["dry_run"]), (&json!("succeeded"), &json!(dry_run)));
        let lines: Vec<i64> = invalid_rows(&client, id).await.iter().map(|row| row.0).collect();
        (row_counts(&job), lines)
    };
    let before = stored_links(&stack).await;
    let mut dry_runs = Vec::new();
    for on_conflict in ["fail", "skip", "update"] {
        dry_runs.push(run(on_conflict, true).await);
        assert_eq!(stored_links(&stack).await, before, "a dry run changes nothing");
    }
    assert_eq!(
        dry_runs,
        [([3, 1, 0, 2], vec![2, 4]), ([3, 1, 2, 0], vec![]), ([3, 3, 0, 0], vec![])]
    );
    // A real run has the same result. The new link is deleted after each run but the last.
    for (on_conflict, dry_run) in ["fail", "skip", "update"].into_iter().zip(dry_runs) {
        assert_eq!(run(on_conflict, false).await, dry_run, "{on_conflict}");
        let is_new = stored_links(&stack).await.iter().any(|link| link.0 == "four");
        assert!(is_new, "{on_conflict}");
        if on_conflict != "update" {
            let kept = stored_links(&stack).await.into_iter().filter(|link| link.0 != "four");
            assert_eq!(kept.collect::<Vec<_>>(), before, "{on_conflict}");
            let delete = "WITH gone AS (DELETE FROM urls WHERE short_code = 'four' RETURNING 1)
                          SELECT count(*) FROM gone";
            assert_eq!(query_count(&mut stack.database().await, delete).await, 1);
        }
    }
    let changed: Vec<String> = stored_links(&stack)
        .await
        .into_iter()
        .map(|link| format!("{} {} {}", link.0, link.1, link.2))
        .collect();
    assert_eq!(
        changed,
        [
            "four https://example.com/4 second",
            "one https://example.com/1 first",
            "three https://example.com/new second",
            "two https://example.com/new second"
        ]
    );
    assert_eq!(client.resolve("two").await.1.as_deref(), Some("https://example.com/new"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_run_of_users_and_links_writes_nothing() {
    let stack = builder().start().await;
    let client = stack.client();
    let users = "SELECT count(*) + (SELECT last_value FROM users_id_seq) FROM users";
    let mut database = stack.database().await;
    let before = query_count(&mut database, users).await;
    let csv =
        "id,username,email\n500,a,a@example.com\n,b,B@example.com\n,c,b@EXAMPLE.com\n,d,nothing\n";
    let id = accepted_job_id(&upload(&client, &format!("{USERS}?dry_run=true"), csv).send().await);
    let dry_run = wait_for_job_end(&client, id).await;
    let dry_run_errors = invalid_rows(&client, id).await;
    assert_eq!(row_counts(&dry_run), [4, 2, 0, 2], "{dry_run_errors:?}");
    assert_eq!(query_count(&mut database, "SELECT count(*) FROM users").await, 1);
    let id = accepted_job_id(&upload(&client, USERS, csv).send().await);
    assert_eq!(row_counts(&wait_for_job_end(&client, id).await), row_counts(&dry_run));
    assert_eq!(invalid_rows(&client, id).await, dry_run_errors);
    assert!(query_count(&mut database, users).await > before);

    let id = accepted_job_id(
        &upload(&client, &format!("{URLS}?dry_run=true"), links_csv("t", 100)).send().await,
    );
    assert_eq!(row_counts(&wait_for_job_end(&client, id).await), [100, 100, 0, 0]);
    assert_eq!(count_links_created_once(&mut database, "t").await, 0);
    assert_eq!(query_count(&mut database, "SELECT count(*) FROM events").await, 0);
    assert_eq!(client.resolve("t000001").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_report_can_be_corrected_and_imported_again() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 10).start().await;
    let client = stack.client();
    // The report also contains columns that the import ignores.
    let mut csv = "note,short_code,original_url\r\n".to_owned();
    for n in 0..500 {
        let target = if n % 9 == 0 { "htp://example.com" } else { "https://example.com" };
        csv.push_str(&format!("\"a \"\"title\"\",\r\nof two lines\",m{n:04},{target}/{n}\r\n"));
    }
    let id = import(&client, csv).await;
    assert_eq!(row_counts(&wait_for_job_end(&client, id).await), [500, 444, 0, 56]);
    let lines: Vec<i64> = invalid_rows(&client, id).await.into_iter().map(|row| row.0).collect();
    assert_eq!(lines, (0..56).map(|n| 2 + 18 * n).collect::<Vec<_>>(), "each row has two lines");
    let path = format!("/api/v1/jobs/{id}/errors");
    let report = client.get(&path).header("accept", "text/csv").send().await;
    assert_eq!(report.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    // Without a correction, the same rows fail again.
    let unchanged = import(&client, &report.body).await;
    let unchanged = wait_for_job_end(&client, unchanged).await;
    assert_eq!(row_counts(&unchanged), [56, 0, 0, 56]);
    assert_eq!(unchanged["unknown_columns"], json!(["note"]));
    let corrected = import(&client, report.text().replace("htp:", "https:")).await;
    assert_eq!(row_counts(&wait_for_job_end(&client, corrected).await), [56, 56, 0, 0]);
    assert_eq!(count_links_created_once(&mut stack.database().await, "m").await, 500);
    assert!(report.text().contains("\"a \"\"title\"\",\r\nof two lines\""), "{}", report.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_rows_beyond_the_report_limit_are_counted() {
    let stack = builder()
        .env("LINNET__JOBS__ROW_ERRORS", 25)
        .env("LINNET__JOBS__CHUNK_ROWS", 10)
        .start()
        .await;
    let client = stack.client();
    let csv = format!("original_url\n{}https://example.com/\n", "nothing\n".repeat(100));
    let id = import(&client, csv).await;
    assert_eq!(row_counts(&wait_for_job_end(&client, id).await), [101, 1, 0, 100]);
    let lines: Vec<i64> = invalid_rows(&client, id).await.into_iter().map(|row| row.0).collect();
    assert_eq!(lines, (2..27).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_invalid_options_are_rejected() {
    let stack = builder().start().await;
    let client = stack.client();
    for (query, field) in [
        ("on_conflict=replace", "on_conflict"),
        ("dry_run=perhaps", "dry_run"),
        ("color=red", "color"),
        ("dry_run=true&dry_run=true", "dry_run"),
    ] {
        let response = upload(&client, &format!("{URLS}?{query}"), links_csv("o", 1)).send().await;
        assert!((400..500).contains(&response.status), "{query}: {}", response.status);
        assert_eq!(response.problem_fields(), [field], "{query}");
    }
    let upload_form = |fields: Value| {
        let boundary = "x";
        let mut body = String::new();
        for (name, value) in fields.as_object().unwrap() {
            let value = value.as_str().unwrap();
            body.push_str(&format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            ));
        }
        body.push_str(&format!("--{boundary}--\r\n"));
        client
            .request(Method::POST, URLS)
            .body(&format!("multipart/form-data; boundary={boundary}"), body)
    };
    let file = "short_code,original_url\nform1,https://example.com/\n";
    let dry_run =
        upload_form(json!({"file": file, "dry_run": "true", "on_conflict": "skip"})).send().await;
    let job = wait_for_job_end(&client, accepted_job_id(&dry_run)).await;
    assert_eq!((&job["dry_run"], &job["on_conflict"]), (&json!(true), &json!("skip")), "{job}");
    let rejected = upload_form(json!({"file": file, "on_conflict": "replace"})).send().await;
    assert_eq!((rejected.status, rejected.problem_fields()), (422, vec!["on_conflict".to_owned()]));
    let rejected = upload_form(json!({"file": file, "color": "red"})).send().await;
    assert_eq!((rejected.status, rejected.problem_fields()), (422, vec!["color".to_owned()]));
    let rejected = upload_form(json!({"dry_run": "true"})).send().await;
    assert_eq!((rejected.status, rejected.problem_fields()), (422, vec!["file".to_owned()]));
    super::support::wait_until_no_uploads(&stack).await;
    assert_eq!(super::support::count_jobs(&stack).await, 1);
}
