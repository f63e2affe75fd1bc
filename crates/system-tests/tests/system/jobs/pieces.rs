//! Uploads that wait in PostgreSQL: shorteners and workers on machines without a shared disk.

use linnet_system_tests::{Postgres, Stack, client::Method, eventually};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{
    IMPORTER, JOB_TIMEOUT, URLS, accepted_job_id, begin_upload, count_jobs,
    count_links_created_once, get_job, gzip, import, invalid_rows, json_rows, links_csv,
    multipart_form, pieces_builder, query_count, row_counts, upload, upload_files,
    wait_for_job_end, wait_for_rows_read, wait_for_upload_bytes, wait_until_no_uploads,
};

/// Links whose file has about 1.1 MB, which are several pieces.
const MANY: usize = 30_000;

/// Files of uploads in the directory of any process.
fn files_of_processes(stack: &Stack) -> usize {
    let entries = std::fs::read_dir(stack.folder()).unwrap().map(|entry| entry.unwrap());
    let dirs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("uploads-"));
    dirs.map(|dir| std::fs::read_dir(dir.path()).unwrap().count()).sum::<usize>()
        + upload_files(stack).len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_need_no_directory_that_machines_share() {
    let stack = pieces_builder().shorteners(2).workers(2).start().await;
    let client = stack.client();
    let (multipart, form) = multipart_form("rows.csv.gz", &gzip(links_csv("f3-", MANY)));
    let array = json!(json_rows(&["f4-1", "f4-2"])).to_string().into_bytes();
    let cases = [
        ("f1-", "text/csv", links_csv("f1-", MANY).into_bytes(), MANY),
        ("f2-", "text/csv", gzip(links_csv("f2-", MANY)), MANY),
        ("f3-", multipart.as_str(), form, MANY),
        ("f4-", "application/octet-stream", array, 2),
    ];
    for (prefix, content_type, body, rows) in cases {
        let request = client.request(Method::POST, URLS).body(content_type, body);
        let id = accepted_job_id(&request.timeout(JOB_TIMEOUT).send().await);
        let job = wait_for_job_end(&client, id).await;
        let rows = i64::try_from(rows).unwrap();
        assert_eq!((&job["state"], row_counts(&job)), (&json!("succeeded"), [rows, rows, 0, 0]));
        // Also of an array, whose last bracket is no row.
        assert_eq!(job["bytes_done"], job["bytes"], "{job}");
        let mut database = stack.database().await;
        assert_eq!(count_links_created_once(&mut database, prefix).await, rows, "{prefix}");
    }
    wait_until_no_uploads(&stack).await;
    assert_eq!(files_of_processes(&stack), 0);
    // Rows that the database refuses are read again, for the report.
    let csv = links_csv("f1-", 2) + "f5-1,https://example.com/\n";
    let id = import(&client, csv).await;
    assert_eq!(row_counts(&wait_for_job_end(&client, id).await), [3, 1, 0, 2]);
    let path = format!("/api/v1/jobs/{id}/errors");
    let reports = client.get(&path).header("accept", "text/csv").send().await;
    assert!(reports.text().contains("f1-000001,https://example.com/1"), "{}", reports.text());
    assert_eq!(invalid_rows(&client, id).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_continues_the_job_of_a_killed_worker() {
    let mut stack = pieces_builder().workers(2).env("LINNET__JOBS__CHUNK_ROWS", 200).start().await;
    let client = stack.client();
    // Worker 0 is the only one that can take the job.
    stack.workers[1].stop().await;
    let id = import(&client, links_csv("k", MANY)).await;
    wait_for_rows_read(&client, id, 8_000).await;
    stack.workers[0].kill().await;
    let left = get_job(&client, id).await["rows_read"].as_i64().unwrap();
    stack.workers[1].start();
    let job = wait_for_job_end(&client, id).await;
    let rows = i64::try_from(MANY).unwrap();
    assert!((8_000..rows).contains(&left), "{left}");
    assert_eq!((&job["state"], row_counts(&job)), (&json!("succeeded"), [rows, rows, 0, 0]));
    let mut database = stack.database().await;
    assert_eq!(count_links_created_once(&mut database, "k").await, rows);
    let wrong = "SELECT count(*) FROM urls WHERE starts_with(short_code, 'k')
                    AND original_url <> 'https://example.com/' || substr(short_code, 2)::int";
    assert_eq!(query_count(&mut database, wrong).await, 0, "links with another row's target");
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_continues_after_postgresql_with_its_pieces_crashes() {
    let mut stack = pieces_builder()
        .postgres(Postgres::Own)
        .env("LINNET__JOBS__CHUNK_ROWS", 200)
        // A failed attempt without progress would make the job a dead letter.
        .env("LINNET__JOBS__MAX_ATTEMPTS", 2)
        .start()
        .await;
    let client = stack.client();
    let id = import(&client, links_csv("p", MANY)).await;
    for goal in [2_000, 12_000] {
        wait_for_rows_read(&client, id, goal).await;
        stack.kill_postgres().await;
        stack.start_postgres().await;
        eventually(JOB_TIMEOUT, "a response", || async {
            let response = client.get(&format!("/api/v1/jobs/{id}")).try_send().await.ok()?;
            (response.status == 200).then_some(())
        })
        .await;
    }
    let job = wait_for_job_end(&client, id).await;
    let rows = i64::try_from(MANY).unwrap();
    assert_eq!((&job["state"], row_counts(&job)), (&json!("succeeded"), [rows, rows, 0, 0]));
    assert_eq!(count_links_created_once(&mut stack.database().await, "p").await, rows);
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_that_is_cut_off_leaves_no_pieces() {
    let mut stack = pieces_builder().start().await;
    let csv = links_csv("b", MANY);
    let head = format!("Content-Type: text/csv\r\nContent-Length: {}\r\n", csv.len());
    let half = &csv.as_bytes()[..csv.len() / 2];
    // The client closes the connection.
    let stream = begin_upload(&stack.client(), &stack.admin_key, &head, half).await;
    wait_for_upload_bytes(&stack, 200_000).await;
    drop(stream);
    wait_until_no_uploads(&stack).await;
    // It closes only its sending half.
    let mut stream = begin_upload(&stack.client(), &stack.admin_key, &head, half).await;
    wait_for_upload_bytes(&stack, 200_000).await;
    stream.shutdown().await.unwrap();
    wait_until_no_uploads(&stack).await;
    assert_eq!(count_jobs(&stack).await, 0);
    // The shortener is killed. The maintenance task removes the pieces 5 min later.
    let stream = begin_upload(&stack.client(), &stack.admin_key, &head, half).await;
    wait_for_upload_bytes(&stack, 200_000).await;
    stack.shorteners[0].kill().await;
    drop(stream);
    stack.shorteners[0].start();
    let mut database = stack.database().await;
    assert_eq!(query_count(&mut database, "SELECT count(*) FROM uploads").await, 1);
    let run = ["admin", "run-task", "uploads"];
    assert_eq!(stack.cli(&run).await.0, 0);
    assert_eq!(query_count(&mut database, "SELECT count(*) FROM uploads").await, 1, "too young");
    let age = "UPDATE uploads SET changed_at = now() - interval '6 minutes'";
    sqlx::raw_sql(age).execute(&mut database).await.unwrap();
    assert_eq!(stack.cli(&run).await.0, 0);
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_of_a_killed_shortener_does_not_block_its_user_until_it_is_removed() {
    let csv = links_csv("b", MANY);
    let mut stack =
        pieces_builder().env("LINNET__JOBS__BYTES_PER_USER", csv.len() + 100_000).start().await;
    let head = format!("Content-Type: text/csv\r\nContent-Length: {}\r\n", csv.len());
    let half = &csv.as_bytes()[..csv.len() / 2];
    let stream = begin_upload(&stack.client(), &stack.admin_key, &head, half).await;
    wait_for_upload_bytes(&stack, 200_000).await;
    stack.shorteners[0].kill().await;
    drop(stream);
    stack.shorteners[0].start();
    let client = stack.client();
    eventually(JOB_TIMEOUT, "a response", || async {
        let response = client.get("/api/v1/jobs").try_send().await.ok()?;
        (response.status == 200).then_some(())
    })
    .await;
    let refused = upload(&client, URLS, &csv).send().await;
    assert_eq!(refused.problem(429)["code"], "too_many_jobs");
    let age =
        "UPDATE uploads SET changed_at = now() - interval '6 minutes' WHERE state = 'receiving'";
    sqlx::raw_sql(age).execute(&mut stack.database().await).await.unwrap();
    let id = import(&client, &csv).await;
    assert_eq!(wait_for_job_end(&client, id).await["state"], "succeeded");
}

/// The file of a form is stored, and PostgreSQL stops before the last field arrives and the file's header is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_that_postgresql_outlasts_is_unavailable() {
    let mut stack = pieces_builder().postgres(Postgres::Own).start().await;
    let (content_type, form) = multipart_form("rows.csv", links_csv("b", 10).as_bytes());
    let boundary = content_type.split_once("boundary=").unwrap().1;
    let rest = format!(
        "Content-Disposition: form-data; name=\"on_conflict\"\r\n\r\nskip\r\n--{boundary}--\r\n"
    );
    // Without the end of the form, which the last field replaces.
    let first = [form.strip_suffix(b"--\r\n").unwrap(), b"\r\n"].concat();
    let head = format!(
        "Connection: close\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n",
        first.len() + rest.len()
    );
    let mut stream = begin_upload(&stack.client(), &stack.admin_key, &head, &first).await;
    wait_for_upload_bytes(&stack, 100).await;
    stack.kill_postgres().await;
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut response = String::new();
    let read = stream.read_to_string(&mut response);
    tokio::time::timeout(JOB_TIMEOUT, read).await.expect("a response").unwrap();
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    stack.start_postgres().await;
}

/// The deletion of a gigabyte takes longer than a response may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_and_deleting_do_not_wait_for_the_deletion_of_pieces() {
    let mut stack = pieces_builder().start().await;
    stack.workers[0].stop().await;
    let (ada, client) = stack.create_user("ada", &IMPORTER).await;
    let mut ids = Vec::new();
    for prefix in ["c", "d", "e"] {
        ids.push(import(&client, links_csv(prefix, 10)).await);
    }
    // Pieces whose deletion takes twelve statements of half a second; the gateway waits for 5 s.
    let slow = "INSERT INTO upload_pieces
                SELECT uploads.id, 1000000 + n, '' FROM uploads, generate_series(1, 1500) AS n;
                CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  PERFORM pg_sleep(0.5); RETURN NULL; END $$;
                CREATE TRIGGER slow AFTER DELETE ON upload_pieces EXECUTE FUNCTION slow()";
    let mut database = stack.database().await;
    sqlx::raw_sql(slow).execute(&mut database).await.unwrap();
    let cancel = format!("/api/v1/jobs/{}/cancel", ids[0]);
    assert_eq!(client.request(Method::POST, &cancel).send().await.status, 200);
    assert_eq!(client.delete(&format!("/api/v1/jobs/{}", ids[1])).send().await.status, 204);
    let user = format!("/api/v1/users/{ada}");
    assert_eq!(stack.client().delete(&user).send().await.status, 204);
    let marked = "SELECT count(*) FROM uploads WHERE state <> 'removed'";
    assert_eq!(query_count(&mut database, marked).await, 0);
    sqlx::raw_sql("DROP TRIGGER slow ON upload_pieces").execute(&mut database).await.unwrap();
    assert_eq!(stack.cli(&["admin", "run-task", "uploads"]).await.0, 0);
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_26_uploads_in_the_database_are_bounded_for_a_user_and_for_all() {
    let stack = pieces_builder()
        .env("LINNET__JOBS__BYTES_PER_USER", 600_000)
        .env("LINNET__JOBS__UPLOAD_TOTAL_BYTES", 1_000_000)
        .start()
        .await;
    let (_, ada) = stack.create_user("ada", &IMPORTER).await;
    let (_, bob) = stack.create_user("bob", &IMPORTER).await;
    let refused = upload(&ada, URLS, links_csv("a", MANY)).send().await;
    assert_eq!(refused.problem(429)["code"], "too_many_jobs");
    wait_until_no_uploads(&stack).await;
    // Pieces that cannot be compressed count fully for all users.
    let noise = "INSERT INTO uploads (content_bytes, stored_bytes) VALUES (0, 999990)";
    let mut database = stack.database().await;
    sqlx::raw_sql(noise).execute(&mut database).await.unwrap();
    let refused = upload(&bob, URLS, links_csv("b", 10)).send().await;
    assert_eq!(refused.problem(507)["code"], "insufficient_storage");
    sqlx::raw_sql("DELETE FROM uploads").execute(&mut database).await.unwrap();
    for (client, prefix) in [(&ada, "a"), (&bob, "b")] {
        let id = import(client, links_csv(prefix, 10)).await;
        assert_eq!(wait_for_job_end(client, id).await["rows_written"], 10);
    }
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_deleted_and_erased_jobs_leave_no_pieces() {
    let mut stack = pieces_builder().start().await;
    let (ada, client) = stack.create_user("ada", &IMPORTER).await;
    stack.workers[0].stop().await;
    let cancelled = import(&client, links_csv("c", MANY)).await;
    let path = format!("/api/v1/jobs/{cancelled}/cancel");
    assert_eq!(client.request(Method::POST, &path).send().await.status, 200);
    wait_until_no_uploads(&stack).await;
    let deleted = import(&client, links_csv("d", 10)).await;
    assert_eq!(client.delete(&format!("/api/v1/jobs/{deleted}")).send().await.status, 204);
    wait_until_no_uploads(&stack).await;
    import(&client, links_csv("e", MANY)).await;
    let (status, _, errors) = stack.cli(&["admin", "erase-user", "--id", &ada.to_string()]).await;
    assert_eq!(status, 0, "{errors}");
    wait_until_no_uploads(&stack).await;
}

/// A job of the last release, or from before a change of the setting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_whose_upload_is_a_file_continues_after_the_setting_has_changed() {
    let mut stack =
        super::support::builder().env("LINNET__JOBS__UPLOAD_STORE", "postgres").start().await;
    let client = stack.client();
    stack.workers[0].stop().await;
    let (in_file, in_pieces) = (links_csv("o", 5_000), links_csv("n", 10));
    std::fs::create_dir_all(stack.folder().join("uploads")).unwrap();
    std::fs::write(stack.folder().join("uploads/0f.rows"), &in_file).unwrap();
    let old: i64 = sqlx::query_scalar(
        "INSERT INTO jobs (kind, user_id, by_admin, format, on_conflict, dry_run, upload, upload_bytes, is_large)
         VALUES ('import_urls', $1, true, 'csv', 'fail', false, '0f.rows', $2, false) RETURNING id",
    )
    .bind(stack.admin_id)
    .bind(i64::try_from(in_file.len()).unwrap())
    .fetch_one(&mut stack.database().await)
    .await
    .unwrap();
    let new = import(&client, in_pieces).await;
    stack.workers[0].start();
    for (id, rows) in [(old, 5_000), (new, 10)] {
        let job = wait_for_job_end(&client, id).await;
        assert_eq!((&job["state"], row_counts(&job)), (&json!("succeeded"), [rows, rows, 0, 0]));
    }
    wait_until_no_uploads(&stack).await;
}
