//! Malformed files, and files that are made to exhaust memory or disk.

use linnet_system_tests::{Process, Stack, client::Method};
use serde_json::json;

use super::support::{
    JOB_TIMEOUT, URLS, accepted_job_id, builder, count_jobs, count_links_created_once, gzip,
    import, invalid_rows, links_csv, row_counts, upload, wait_for_job_end, wait_until_no_uploads,
};

const MIB: usize = 1024 * 1024;
/// Limit for the growth of a process's peak memory.
const MAX_GROWTH_KIB: u64 = 48 * 1024;

/// An entry of [`invalid_rows`]: line, column and code.
fn row_error(line: i64, column: &str, code: &str) -> (i64, String, String) {
    (line, column.to_owned(), code.to_owned())
}

/// CSV files that cannot be imported, with the field and the code of the error.
fn unreadable_csv_files() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let utf16: Vec<u8> = "\u{feff}original_url\nhttps://example.com/\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let columns = |count: usize, name: &str| {
        let mut header = "original_url".to_owned();
        (0..count).for_each(|_| header.push_str(name));
        format!("{header}\nhttps://example.com/\n").into_bytes()
    };
    let mut cut = gzip(links_csv("x", 1_000));
    cut.truncate(cut.len() / 2);
    let mut damaged = gzip(links_csv("x", 1_000));
    let middle = damaged.len() / 2;
    damaged[middle..middle + 200].fill(0x55);
    vec![
        ("file", "empty_file", b"".to_vec()),
        ("file", "empty_file", b"\n\r\n\n".to_vec()),
        ("file", "empty_file", b"\xef\xbb\xbf".to_vec()),
        ("file", "empty_file", gzip("")),
        ("file", "encoding", utf16.clone()),
        ("file", "encoding", utf16[2..].to_vec()),
        ("file", "encoding", vec![0; 100_000]),
        ("header", "encoding", b"original_url,gr\xf6\xdfe\nhttps://example.com/,1\n".to_vec()),
        ("header", "repeated_column", b"original_url,Original_URL\nx,y\n".to_vec()),
        ("header", "repeated_column", b"title,original_url,title\n1,2,3\n".to_vec()),
        ("header", "missing_columns", b"short_code,title\n1,2\n".to_vec()),
        ("header", "missing_columns", b"https://example.com/\nhttps://example.com/2\n".to_vec()),
        ("header", "unclosed_quote", b"original_url,\"title\nhttps://example.com/,1\n".to_vec()),
        ("header", "too_many_columns", columns(1_000, ",c")),
        ("header", "too_many_columns", columns(100_000, ",c")),
        ("header", "header_too_long", columns(1_000_000, ",column")),
        ("header", "header_too_long", columns(1, &"c".repeat(2 * MIB))),
        ("file", "invalid", cut),
        ("file", "invalid", damaged),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_files_are_rejected_at_upload() {
    let stack = builder().start().await;
    let client = stack.client();
    for (number, (field, code, body)) in unreadable_csv_files().into_iter().enumerate() {
        let response = upload(&client, URLS, body).send().await;
        let problem = response.problem(422);
        let error = &problem["errors"][0];
        assert_eq!(
            (&error["field"], &error["code"]),
            (&json!(field), &json!(code)),
            "{number}: {problem}"
        );
    }
    for (body, code) in [
        (&b"{\"original_url\": \"https://example.com/\"}"[..], "not_an_array"),
        (b"", "empty_file"),
        (b"  \n ", "empty_file"),
        (b"original_url\nhttps://example.com/\n", "not_an_array"),
    ] {
        let request = client.request(Method::POST, URLS).body("application/json", body);
        let problem = request.send().await.problem(422);
        assert_eq!(problem["errors"][0]["code"], code, "{problem}");
    }
    assert_eq!(count_jobs(&stack).await, 0);
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_rows_are_reported_by_line_and_the_others_imported() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 3).start().await;
    let client = stack.client();
    let mut csv = b"\xef\xbb\xbfTITLE,\"Original_Url\",short_code\r\n".to_vec();
    let mut push = |row: &[u8]| csv.extend_from_slice(row);
    push(b"\"two\r\nlines, and a \"\"quote\"\"\",https://example.com/2,h00001\r\n"); // 2 and 3
    push(b"gr\xfc\xdfe,https://example.com/4,h00002\r\n");
    push(b"nul\0,https://example.com/5,h00003\r\n");
    push(b"\r\n\r\n"); // 6 and 7
    push(b"eight,https://example.com/8,h00008\n");
    push(b"few\n"); // 9
    push(b"many,https://example.com/10,h00010,more,more\n");
    push(",".repeat(1_000_000).as_bytes()); // 11
    push(b"\nlong,https://example.com/12?");
    push(&vec![b'a'; 2 * MIB]);
    push(b",h00012\n");
    push(b"old,https://example.com/13,h00013\rmac,https://example.com/14,h00014\r");
    push("grüße 🦀,https://example.com/15,h00015\n".as_bytes());
    push(b"quoted,\"https://example.com/16\",h00016\n");
    push(b"\"never closed,https://example.com/17,h00017\nmore\nand more\n");
    let id = import(&client, csv).await;
    let job = wait_for_job_end(&client, id).await;
    let found = invalid_rows(&client, id).await;
    assert_eq!(
        found,
        [
            // The quoted line breaks are parsed, but a title must not contain any.
            row_error(2, "title", "invalid"),
            row_error(4, "title", "encoding"),
            row_error(5, "title", "invalid"),
            row_error(9, "", "field_count"),
            row_error(10, "", "field_count"),
            row_error(11, "", "too_many_fields"),
            row_error(12, "", "too_long"),
            row_error(17, "", "unclosed_quote"),
        ]
    );
    assert_eq!((&job["state"], row_counts(&job)), (&json!("succeeded"), [13, 5, 0, 8]));
    let titles: Vec<String> = sqlx::query_scalar("SELECT title FROM urls ORDER BY short_code")
        .fetch_all(&mut stack.database().await)
        .await
        .unwrap();
    let wanted = ["eight", "old", "mac", "grüße 🦀", "quoted"];
    assert_eq!(titles, wanted);
    // The report is bounded, although the rows are large.
    let reports = client.get(&format!("/api/v1/jobs/{id}/errors?format=csv")).send().await;
    assert!(reports.body.len() < 100_000, "{}", reports.body.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_json_is_reported_by_line() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 2).start().await;
    let client = stack.client();
    let send = async |content_type: &str, body: String| {
        let request = client.request(Method::POST, URLS).body(content_type, body);
        let id = accepted_job_id(&request.send().await);
        (wait_for_job_end(&client, id).await, invalid_rows(&client, id).await)
    };
    let good = |n: usize| {
        format!("{{\"original_url\":\"https://example.com/\",\"short_code\":\"j{n:05}\"}}")
    };
    let deep = "[".repeat(100_000);
    let lines = [
        good(1),
        "{\"original_url\": 5}".to_owned(),
        "nonsense".to_owned(),
        deep.clone(),
        "{\"original_url\":\"https://example.com/\\u0000\"}".to_owned(),
        "{\"title\":\"no target\"}".to_owned(),
        "{\"original_url\":\"https://example.com/\",\"is_active\":{}}".to_owned(),
        good(2),
    ];
    let (job, found) = send("application/x-ndjson", lines.join("\n")).await;
    assert_eq!((&job["state"], row_counts(&job)), (&json!("succeeded"), [8, 2, 0, 6]), "{found:?}");
    let places: Vec<(i64, &str)> = found.iter().map(|row| (row.0, row.1.as_str())).collect();
    assert_eq!(
        places,
        [
            (2, "original_url"),
            (3, ""),
            (4, ""),
            (5, "original_url"),
            (6, "original_url"),
            (7, "is_active")
        ]
    );
    // Nothing after malformed JSON can be parsed. The job fails without becoming a dead letter, because
    // another attempt would fail too.
    let (job, _) =
        send("application/json", format!("[{},\n{},\n{}\n{}]", good(3), good(4), good(5), good(6)))
            .await;
    assert_eq!((&job["state"], &job["is_dead"]), (&json!("failed"), &json!(false)), "{job}");
    assert_eq!(job["error"]["code"], "malformed_json");
    assert!(
        job["error"]["message"].as_str().unwrap().starts_with("must be valid JSON: line 4: "),
        "{job}"
    );
    let written = row_counts(&job)[1];
    let made = count_links_created_once(&mut stack.database().await, "j").await;
    assert_eq!(made, 2 + written, "rows committed before the error");
    let (job, _) = send("application/json", format!("[{},{deep}", good(9))).await;
    assert_eq!(
        (&job["state"], &job["error"]["code"]),
        (&json!("failed"), &json!("malformed_json"))
    );
    wait_until_no_uploads(&stack).await;
}

/// The end of an attempt is not recorded, so that the next one reads the upload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_file_is_kept_until_its_refusal_is_recorded() {
    let stack = builder().start().await;
    let client = stack.client();
    let mut database = stack.database().await;
    // An error of the class 57, as of a server that stops.
    let down = "CREATE SEQUENCE ends;
                CREATE FUNCTION down() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF nextval('ends') = 1 THEN RAISE 'stopping' USING ERRCODE = '57P01'; END IF;
                  RETURN NEW; END $$;
                CREATE TRIGGER down BEFORE UPDATE ON jobs FOR EACH ROW
                  WHEN (NEW.state = 'failed') EXECUTE FUNCTION down()";
    sqlx::raw_sql(down).execute(&mut database).await.unwrap();
    let body = r#"[{"original_url":"https://example.com/"}"#;
    let request = client.request(Method::POST, URLS).body("application/json", body);
    let id = accepted_job_id(&request.send().await);
    let job = wait_for_job_end(&client, id).await;
    assert_eq!(
        (&job["state"], &job["error"]["code"]),
        (&json!("failed"), &json!("malformed_json")),
        "{job}"
    );
    wait_until_no_uploads(&stack).await;
}

/// Name and peak memory in KiB of each process.
fn peak_memory(stack: &Stack) -> Vec<(String, u64)> {
    let all = stack.gateways.iter().chain(&stack.shorteners).chain(&stack.workers);
    all.map(|process: &Process| (process.name().to_owned(), process.peak_memory_kib())).collect()
}

/// Asserts that no process's peak memory has grown by [`MAX_GROWTH_KIB`] or more.
fn assert_bounded_memory(before: &[(String, u64)], stack: &Stack) {
    let after = peak_memory(stack);
    eprintln!("peak memory in KiB: {before:?}, then {after:?}");
    for ((name, before), (_, after)) in before.iter().zip(after) {
        // The kernel's count is approximate, so a peak may decrease slightly.
        assert!(
            after.saturating_sub(*before) < MAX_GROWTH_KIB,
            "{name}: {before} KiB, then {after}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line_of_100_mb_is_one_invalid_row_in_bounded_memory() {
    // One repeated byte expands far more than rows do.
    let stack = builder().env("LINNET__JOBS__EXPANSION", 2_000).start().await;
    let client = stack.client();
    let warm = import(&client, links_csv("w", 2_000)).await;
    assert_eq!(wait_for_job_end(&client, warm).await["rows_written"], 2_000);
    let before = peak_memory(&stack);
    let mut csv = b"short_code,original_url\nl00001,https://example.com/1\nl00002,\"".to_vec();
    csv.resize(csv.len() + 100_000_000, b'a');
    csv.extend_from_slice(b"\"\nl00003,https://example.com/3\n");
    for compressed in [false, true] {
        let body = if compressed { gzip(&csv) } else { csv.clone() };
        let id = accepted_job_id(
            &client
                .request(Method::POST, URLS)
                .body("text/csv", body)
                .timeout(JOB_TIMEOUT)
                .send()
                .await,
        );
        let job = wait_for_job_end(&client, id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        assert_eq!(job["bytes"], csv.len());
        let found = invalid_rows(&client, id).await;
        assert!(found.contains(&row_error(3, "", "too_long")), "{found:?}");
        assert_bounded_memory(&before, &stack);
    }
    assert_eq!(count_links_created_once(&mut stack.database().await, "l").await, 2);
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gzip_bomb_is_rejected_in_bounded_memory_and_disk() {
    let stack = builder().env("LINNET__JOBS__UPLOAD_BYTES", 64 * MIB).start().await;
    let client = stack.client();
    let warm = import(&client, links_csv("w", 2_000)).await;
    assert_eq!(wait_for_job_end(&client, warm).await["rows_written"], 2_000);
    let before = peak_memory(&stack);
    // 512 gzip members of 16 MiB each: 8 GiB.
    let bomb = gzip(vec![b'0'; 16 * MIB]).repeat(512);
    for request in [
        client.request(Method::POST, URLS).body("text/csv", bomb.clone()),
        client.request(Method::POST, URLS).body("application/json", bomb.clone()),
        upload(&client, URLS, &bomb),
    ] {
        let response = request.timeout(JOB_TIMEOUT).send().await;
        assert_eq!(response.problem(413)["code"], "too_large");
        wait_until_no_uploads(&stack).await;
    }
    assert_bounded_memory(&before, &stack);
    assert_eq!(count_jobs(&stack).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_import_runs_in_bounded_memory() {
    let stack = builder().start().await;
    let client = stack.client();
    let warm = import(&client, links_csv("w", 2_000)).await;
    assert_eq!(wait_for_job_end(&client, warm).await["rows_written"], 2_000);
    let before = peak_memory(&stack);
    // Large invalid rows, all of which are reported.
    let mut csv = "original_url,title\n".to_owned();
    for n in 0..400 {
        csv.push_str(&format!("ftp://example.com/{n},{}\n", "t".repeat(100_000)));
    }
    let id = import(&client, &csv).await;
    let job = wait_for_job_end(&client, id).await;
    assert_eq!(row_counts(&job), [400, 0, 0, 400]);
    assert_eq!(invalid_rows(&client, id).await.len(), 400);
    assert_bounded_memory(&before, &stack);
}
