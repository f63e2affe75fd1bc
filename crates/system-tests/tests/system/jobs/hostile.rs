//! Files that were made to do harm, and those that were only made badly.

use linnet_system_tests::{Process, Stack, client::Method};
use serde_json::json;

use super::support::{
    SOON, URLS, bad_rows, builder, counts, ended, gzip, import, job_of, jobs, links, made_once,
    no_upload_is_left, upload,
};

const MIB: usize = 1024 * 1024;
/// What a process may grow by, whatever it reads.
const GROWTH_KIB: u64 = 48 * 1024;

/// A row error: line, column and code.
fn bad(line: i64, column: &str, code: &str) -> (i64, String, String) {
    (line, column.to_owned(), code.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_read_are_refused_at_once() {
    let stack = builder().start().await;
    let client = stack.client();
    let utf16: Vec<u8> = "\u{feff}original_url\nhttps://example.com/\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let columns = |count: usize, name: &str| {
        let mut header = "original_url".to_owned();
        (0..count).for_each(|_| header.push_str(name));
        format!("{header}\nhttps://example.com/\n").into_bytes()
    };
    let mut cut = gzip(links("x", 1_000));
    cut.truncate(cut.len() / 2);
    let mut damaged = gzip(links("x", 1_000));
    let middle = damaged.len() / 2;
    damaged[middle..middle + 200].fill(0x55);
    let cases: [(&str, &str, Vec<u8>); 19] = [
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
    ];
    for (number, (field, code, body)) in cases.into_iter().enumerate() {
        let answer = upload(&client, URLS, body).send().await;
        let problem = answer.problem(422);
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
    assert_eq!(jobs(&stack).await, 0);
    no_upload_is_left(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_rows_are_told_by_their_lines_and_the_others_come_in() {
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
    let job = ended(&client, id).await;
    let found = bad_rows(&client, id).await;
    assert_eq!(
        found,
        [
            // A title has no line breaks; that they are within quotes is well read.
            bad(2, "title", "invalid"),
            bad(4, "title", "encoding"),
            bad(5, "title", "invalid"),
            bad(9, "", "field_count"),
            bad(10, "", "field_count"),
            bad(11, "", "too_many_fields"),
            bad(12, "", "too_long"),
            bad(17, "", "unclosed_quote"),
        ]
    );
    assert_eq!((&job["state"], counts(&job)), (&json!("succeeded"), [13, 5, 0, 8]));
    let titles: Vec<String> = sqlx::query_scalar("SELECT title FROM urls ORDER BY short_code")
        .fetch_all(&mut stack.database().await)
        .await
        .unwrap();
    let wanted = ["eight", "old", "mac", "grüße 🦀", "quoted"];
    assert_eq!(titles, wanted);
    // What is told of them is bounded, whatever they were.
    let reports = client.get(&format!("/api/v1/jobs/{id}/errors?format=csv")).send().await;
    assert!(reports.body.len() < 100_000, "{}", reports.body.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_json_is_told_by_its_line() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 2).start().await;
    let client = stack.client();
    let send = async |content_type: &str, body: String| {
        let request = client.request(Method::POST, URLS).body(content_type, body);
        let id = job_of(&request.send().await);
        (ended(&client, id).await, bad_rows(&client, id).await)
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
    assert_eq!((&job["state"], counts(&job)), (&json!("succeeded"), [8, 2, 0, 6]), "{found:?}");
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
    // Nothing behind it can be trusted: the job fails, and is no dead letter, since nothing would
    // come of another attempt.
    let (job, _) =
        send("application/json", format!("[{},\n{},\n{}\n{}]", good(3), good(4), good(5), good(6)))
            .await;
    assert_eq!((&job["state"], &job["is_dead"]), (&json!("failed"), &json!(false)), "{job}");
    assert_eq!(job["error"]["code"], "malformed_json");
    assert!(job["error"]["message"].as_str().unwrap().starts_with("line 4: "), "{job}");
    let read = counts(&job)[1];
    let made = made_once(&mut stack.database().await, "j").await;
    assert_eq!(made, 2 + read, "what was committed before stays, and is told");
    let (job, _) = send("application/json", format!("[{},{deep}", good(9))).await;
    assert_eq!(
        (&job["state"], &job["error"]["code"]),
        (&json!("failed"), &json!("malformed_json"))
    );
    no_upload_is_left(&stack).await;
}

fn peaks(stack: &Stack) -> Vec<(String, u64)> {
    let all = stack.gateways.iter().chain(&stack.shorteners).chain(&stack.workers);
    all.map(|process: &Process| (process.name().to_owned(), process.peak_memory_kib())).collect()
}

/// No process has grown beyond the bound.
fn is_flat(before: &[(String, u64)], stack: &Stack) {
    let after = peaks(stack);
    eprintln!("peaks in KiB: {before:?}, then {after:?}");
    for ((name, before), (_, after)) in before.iter().zip(after) {
        assert!(after - before < GROWTH_KIB, "{name}: {before} KiB, then {after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_100_mb_is_one_bad_row_and_costs_no_memory() {
    let stack = builder().start().await;
    let client = stack.client();
    let warm = import(&client, links("w", 2_000)).await;
    assert_eq!(ended(&client, warm).await["rows_written"], 2_000);
    let before = peaks(&stack);
    let mut csv = b"short_code,original_url\nl00001,https://example.com/1\nl00002,\"".to_vec();
    csv.resize(csv.len() + 100_000_000, b'a');
    csv.extend_from_slice(b"\"\nl00003,https://example.com/3\n");
    for packed in [false, true] {
        let body = if packed { gzip(&csv) } else { csv.clone() };
        let id = job_of(
            &client.request(Method::POST, URLS).body("text/csv", body).patience(SOON).send().await,
        );
        let job = ended(&client, id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        assert_eq!(job["bytes"], csv.len());
        let found = bad_rows(&client, id).await;
        assert!(found.contains(&bad(3, "", "too_long")), "{found:?}");
        is_flat(&before, &stack);
    }
    assert_eq!(made_once(&mut stack.database().await, "l").await, 2);
    no_upload_is_left(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bomb_of_gzip_is_too_large_and_costs_neither_memory_nor_disk() {
    let stack = builder().env("LINNET__JOBS__UPLOAD_BYTES", 64 * MIB).start().await;
    let client = stack.client();
    let warm = import(&client, links("w", 2_000)).await;
    assert_eq!(ended(&client, warm).await["rows_written"], 2_000);
    let before = peaks(&stack);
    // 8 GiB, in pieces one behind the other.
    let bomb = gzip(vec![b'0'; 16 * MIB]).repeat(512);
    for request in [
        client.request(Method::POST, URLS).body("text/csv", bomb.clone()),
        client.request(Method::POST, URLS).body("application/json", bomb.clone()),
        upload(&client, URLS, &bomb),
    ] {
        let answer = request.patience(SOON).send().await;
        assert_eq!(answer.problem(413)["code"], "too_large");
        no_upload_is_left(&stack).await;
    }
    is_flat(&before, &stack);
    assert_eq!(jobs(&stack).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_import_costs_no_memory() {
    let stack = builder().start().await;
    let client = stack.client();
    let warm = import(&client, links("w", 2_000)).await;
    assert_eq!(ended(&client, warm).await["rows_written"], 2_000);
    let before = peaks(&stack);
    // Rows as large as they may be, so that few of them are many bytes; all of them are told.
    let mut csv = "original_url,title\n".to_owned();
    for n in 0..400 {
        csv.push_str(&format!("ftp://example.com/{n},{}\n", "t".repeat(100_000)));
    }
    let id = import(&client, &csv).await;
    let job = ended(&client, id).await;
    assert_eq!(counts(&job), [400, 0, 0, 400]);
    assert_eq!(bad_rows(&client, id).await.len(), 400);
    is_flat(&before, &stack);
}
