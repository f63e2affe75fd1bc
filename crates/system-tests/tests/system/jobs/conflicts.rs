//! What becomes of rows that are there already, and of those that are only tried.

use linnet_system_tests::client::Method;
use serde_json::{Value, json};

use super::support::{
    URLS, USERS, bad_rows, builder, count, counts, ended, import, job_of, links, made_once, upload,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_there_are_skipped_changed_or_reported() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 2).start().await;
    let client = stack.client();
    let first = "short_code,original_url,title\n\
                 one,https://example.com/1,first\n\
                 two,https://example.com/2,first\n\
                 three,https://example.com/3,first\n";
    assert_eq!(counts(&ended(&client, import(&client, first).await).await), [3, 3, 0, 0]);
    let second = "short_code,original_url,title\n\
                  two,https://example.com/new,second\n\
                  four,https://example.com/4,second\n\
                  three,https://example.com/new,second\n";
    let links = async || -> Vec<(String, String, String)> {
        sqlx::query_as("SELECT short_code, original_url, title FROM urls ORDER BY short_code")
            .fetch_all(&mut stack.database().await)
            .await
            .unwrap()
    };
    let run = async |on_conflict: &str, dry_run: bool| {
        let path = format!("{URLS}?on_conflict={on_conflict}&dry_run={dry_run}");
        let id = job_of(&upload(&client, &path, second).send().await);
        let job = ended(&client, id).await;
        assert_eq!((&job["state"], &job["dry_run"]), (&json!("succeeded"), &json!(dry_run)));
        let lines: Vec<i64> = bad_rows(&client, id).await.iter().map(|row| row.0).collect();
        (counts(&job), lines)
    };
    let before = links().await;
    let mut tried = Vec::new();
    for on_conflict in ["fail", "skip", "update"] {
        tried.push(run(on_conflict, true).await);
        assert_eq!(links().await, before, "a trial writes nothing");
    }
    assert_eq!(tried, [([3, 1, 0, 2], vec![2, 4]), ([3, 1, 2, 0], vec![]), ([3, 3, 0, 0], vec![])]);
    // In earnest, the same comes of it. The new one goes again each time.
    for (on_conflict, tried) in ["fail", "skip", "update"].into_iter().zip(tried) {
        assert_eq!(run(on_conflict, false).await, tried, "{on_conflict}");
        let is_new = links().await.iter().any(|link| link.0 == "four");
        assert!(is_new, "{on_conflict}");
        if on_conflict != "update" {
            let kept = links().await.into_iter().filter(|link| link.0 != "four");
            assert_eq!(kept.collect::<Vec<_>>(), before, "{on_conflict}");
            let delete = "WITH gone AS (DELETE FROM urls WHERE short_code = 'four' RETURNING 1)
                          SELECT count(*) FROM gone";
            assert_eq!(count(&mut stack.database().await, delete).await, 1);
        }
    }
    let changed: Vec<String> =
        links().await.into_iter().map(|link| format!("{} {} {}", link.0, link.1, link.2)).collect();
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
async fn a_trial_of_users_and_links_leaves_no_trace() {
    let stack = builder().start().await;
    let client = stack.client();
    let users = "SELECT count(*) + (SELECT last_value FROM users_id_seq) FROM users";
    let mut database = stack.database().await;
    let before = count(&mut database, users).await;
    let csv =
        "id,username,email\n500,a,a@example.com\n,b,B@example.com\n,c,b@EXAMPLE.com\n,d,nothing\n";
    let id = job_of(&upload(&client, &format!("{USERS}?dry_run=true"), csv).send().await);
    let tried = ended(&client, id).await;
    let tried_bad = bad_rows(&client, id).await;
    assert_eq!(counts(&tried), [4, 2, 0, 2], "{tried_bad:?}");
    assert_eq!(count(&mut database, "SELECT count(*) FROM users").await, 1);
    let id = job_of(&upload(&client, USERS, csv).send().await);
    assert_eq!(counts(&ended(&client, id).await), counts(&tried));
    assert_eq!(bad_rows(&client, id).await, tried_bad);
    assert!(count(&mut database, users).await > before);

    let id =
        job_of(&upload(&client, &format!("{URLS}?dry_run=true"), links("t", 100)).send().await);
    assert_eq!(counts(&ended(&client, id).await), [100, 100, 0, 0]);
    assert_eq!(made_once(&mut database, "t").await, 0);
    assert_eq!(count(&mut database, "SELECT count(*) FROM events").await, 0);
    assert_eq!(client.resolve("t000001").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_rows_are_mended_and_sent_again() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 10).start().await;
    let client = stack.client();
    // A column that is passed over comes back with its row all the same.
    let mut csv = "note,short_code,original_url\r\n".to_owned();
    for n in 0..500 {
        let target = if n % 9 == 0 { "htp://example.com" } else { "https://example.com" };
        csv.push_str(&format!("\"a \"\"title\"\",\r\nof two lines\",m{n:04},{target}/{n}\r\n"));
    }
    let id = import(&client, csv).await;
    assert_eq!(counts(&ended(&client, id).await), [500, 444, 0, 56]);
    let lines: Vec<i64> = bad_rows(&client, id).await.into_iter().map(|row| row.0).collect();
    assert_eq!(lines, (0..56).map(|n| 2 + 18 * n).collect::<Vec<_>>(), "each row has two lines");
    let path = format!("/api/v1/jobs/{id}/errors");
    let report = client.get(&path).header("accept", "text/csv").send().await;
    assert_eq!(report.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    // As it is, it is the same again.
    let again = import(&client, &report.body).await;
    let again = ended(&client, again).await;
    assert_eq!(counts(&again), [56, 0, 0, 56]);
    assert_eq!(again["unknown_columns"], json!(["note"]));
    let mended = import(&client, report.text().replace("htp:", "https:")).await;
    assert_eq!(counts(&ended(&client, mended).await), [56, 56, 0, 0]);
    assert_eq!(made_once(&mut stack.database().await, "m").await, 500);
    assert!(report.text().contains("\"a \"\"title\"\",\r\nof two lines\""), "{}", report.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_bad_rows_than_are_kept_are_counted() {
    let stack = builder()
        .env("LINNET__JOBS__ROW_ERRORS", 25)
        .env("LINNET__JOBS__CHUNK_ROWS", 10)
        .start()
        .await;
    let client = stack.client();
    let csv = format!("original_url\n{}https://example.com/\n", "nothing\n".repeat(100));
    let id = import(&client, csv).await;
    assert_eq!(counts(&ended(&client, id).await), [101, 1, 0, 100]);
    let lines: Vec<i64> = bad_rows(&client, id).await.into_iter().map(|row| row.0).collect();
    assert_eq!(lines, (2..27).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_that_are_none_are_refused() {
    let stack = builder().start().await;
    let client = stack.client();
    for (query, field) in [
        ("on_conflict=replace", "on_conflict"),
        ("dry_run=perhaps", "dry_run"),
        ("colour=red", "colour"),
        ("dry_run=true&dry_run=true", "dry_run"),
    ] {
        let answer = upload(&client, &format!("{URLS}?{query}"), links("o", 1)).send().await;
        assert!((400..500).contains(&answer.status), "{query}: {}", answer.status);
        assert_eq!(answer.problem_fields(), [field], "{query}");
    }
    let fields = |fields: Value| {
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
    let trial =
        fields(json!({"file": file, "dry_run": "true", "on_conflict": "skip"})).send().await;
    let job = ended(&client, job_of(&trial)).await;
    assert_eq!((&job["dry_run"], &job["on_conflict"]), (&json!(true), &json!("skip")), "{job}");
    let refused = fields(json!({"file": file, "on_conflict": "replace"})).send().await;
    assert_eq!((refused.status, refused.problem_fields()), (422, vec!["on_conflict".to_owned()]));
    let refused = fields(json!({"file": file, "colour": "red"})).send().await;
    assert_eq!((refused.status, refused.problem_fields()), (422, vec!["colour".to_owned()]));
    let refused = fields(json!({"dry_run": "true"})).send().await;
    assert_eq!((refused.status, refused.problem_fields()), (422, vec!["file".to_owned()]));
    super::support::no_upload_is_left(&stack).await;
    assert_eq!(super::support::jobs(&stack).await, 1);
}
