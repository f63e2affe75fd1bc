//! How rows may come, and how they may not.

use linnet_system_tests::client::Method;
use serde_json::{Value, json};

use super::support::{
    SOON, URLS, builder, counts, ended, form, gzip, job_of, jobs, links, made_once,
    no_upload_is_left, objects, upload,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_in_any_format_packed_or_not() {
    let stack = builder().start().await;
    let client = stack.client();
    let csv = |prefix: &str| links(prefix, 3).into_bytes();
    let codes = |prefix: &str| ["1", "2", "3"].map(|n| format!("{prefix}{n}"));
    let array = |prefix: &str| {
        let codes = codes(prefix);
        Value::from(objects(&codes.each_ref().map(String::as_str))).to_string().into_bytes()
    };
    let lines = |prefix: &str| {
        let codes = codes(prefix);
        let objects = objects(&codes.each_ref().map(String::as_str));
        let lines: Vec<String> = objects.iter().map(ToString::to_string).collect();
        lines.join("\n").into_bytes()
    };
    let (multipart, whole_form) = form("rows.csv.gz", &gzip(csv("f9-")));
    let cases = [
        ("f1-", "text/csv", "csv", csv("f1-")),
        ("f2-", "text/csv; charset=utf-8", "csv", gzip(csv("f2-"))),
        ("f3-", "application/json", "json", array("f3-")),
        ("f4-", "application/json", "json", gzip(array("f4-"))),
        ("f5-", "application/x-ndjson", "ndjson", lines("f5-")),
        ("f6-", "application/jsonl", "ndjson", gzip(lines("f6-"))),
        ("f9-", multipart.as_str(), "csv", whole_form),
        // Several packed pieces, one behind the other, are one file.
        ("f10-", "text/csv", "csv", [gzip("short_code,orig"), gzip(&csv("f10-")[15..])].concat()),
    ];
    for (prefix, content_type, format, body) in cases {
        let request = client.request(Method::POST, URLS).body(content_type, body);
        let id = job_of(&request.header("prefer", "wait=0").send().await);
        let job = ended(&client, id).await;
        assert_eq!((&job["state"], &job["format"]), (&json!("succeeded"), &json!(format)), "{job}");
        assert_eq!(counts(&job), [3, 3, 0, 0], "{prefix}");
        assert_eq!(made_once(&mut stack.database().await, prefix).await, 3, "{prefix}");
    }
    no_upload_is_left(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_types_are_refused() {
    let stack = builder().start().await;
    let client = stack.client();
    let types =
        ["", "text/plain", "application/zip", "application/xml", "application/octet-stream", "csv"];
    for content_type in types {
        let request = client.request(Method::POST, URLS).body(content_type, links("t", 1));
        let answer = request.send().await;
        assert_eq!(answer.problem(415)["code"], "unsupported_media_type", "{content_type}");
        assert_eq!(answer.problem_fields(), ["body"]);
    }
    // A form that is none.
    for content_type in ["multipart/form-data", "multipart/form-data; boundary=absent"] {
        let answer =
            client.request(Method::POST, URLS).body(content_type, links("t", 1)).send().await;
        assert!((400..500).contains(&answer.status), "{content_type}: {}", answer.status);
        assert_eq!(answer.problem_fields(), ["body"], "{content_type}");
    }
    assert_eq!(jobs(&stack).await, 0);
    no_upload_is_left(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_packed_and_unpacked() {
    let stack = builder().env("LINNET__JOBS__UPLOAD_BYTES", 300_000).start().await;
    let client = stack.client();
    let fits = links("f", 8_000);
    assert!((200_000..300_000).contains(&fits.len()), "{}", fits.len());
    let large = links("x", 100_000);
    for body in [large.clone().into_bytes(), gzip(&large), gzip(links("x", 12_000))] {
        for content_type in ["text/csv", "multipart/form-data"] {
            let (content_type, body) = match content_type {
                "text/csv" => (content_type.to_owned(), body.clone()),
                _ => form("rows.csv", &body),
            };
            let request = client.request(Method::POST, URLS).body(&content_type, body);
            let answer = request.send().await;
            assert_eq!(answer.problem(413)["code"], "too_large", "{content_type}");
            no_upload_is_left(&stack).await;
        }
    }
    assert_eq!(jobs(&stack).await, 0);
    for body in [fits.clone().into_bytes(), gzip(fits.replace('f', "g"))] {
        let request = client.request(Method::POST, URLS).body("text/csv", body);
        job_of(&request.send().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_with_a_key_is_one_job() {
    let stack = builder().start().await;
    let client = stack.client();
    let send = async |csv: String, path: &str, key: &str| {
        upload(&client, path, csv).header("idempotency-key", key).send().await
    };
    let first = send(links("i", 5), URLS, "one").await;
    let id = job_of(&first);
    ended(&client, id).await;
    let again = send(links("i", 5), URLS, "one").await;
    assert_eq!((again.status, &again.body), (202, &first.body), "as it was then");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.header("location"), first.header("location"));
    let other = send(links("o", 5), URLS, "one").await;
    assert_eq!(other.problem(422)["errors"][0]["field"], "Idempotency-Key");
    // The same file with another wish is another request.
    let other = send(links("i", 5), "/api/v1/urls/bulk?dry_run=true", "one").await;
    assert_eq!(other.problem(422)["errors"][0]["field"], "Idempotency-Key");
    assert_eq!(jobs(&stack).await, 1);
    no_upload_is_left(&stack).await;
    assert_eq!(made_once(&mut stack.database().await, "i").await, 5);
    // At the same time, too.
    let same: Vec<_> = (0..5)
        .map(|_| {
            let request = upload(&client, URLS, links("p", 5)).header("idempotency-key", "two");
            tokio::spawn(async move { request.send().await })
        })
        .collect();
    let mut ids = Vec::new();
    for same in same {
        ids.push(job_of(&same.await.unwrap()));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(counts(&ended(&client, ids[0]).await), [5, 5, 0, 0]);
    assert_eq!(jobs(&stack).await, 2);
    no_upload_is_left(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_uploads_at_a_time_than_a_process_takes_are_put_off() {
    let stack = builder().env("LINNET__JOBS__UPLOADS", 1).start().await;
    let client = stack.client();
    let slow = super::support::half_an_upload(&stack).await;
    let answer = upload(&client, URLS, links("u", 1)).send().await;
    answer.problem(503);
    assert!(answer.header("retry-after").is_some());
    drop(slow);
    let id = linnet_system_tests::eventually(SOON, "a free place", || async {
        let answer = upload(&client, URLS, links("u", 1)).send().await;
        (answer.status == 202).then(|| job_of(&answer))
    })
    .await;
    assert_eq!(ended(&client, id).await["rows_written"], 1);
}
