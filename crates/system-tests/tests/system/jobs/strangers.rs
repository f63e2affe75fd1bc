//! Whose jobs are whose, and what a row may not do.

use std::fmt::Write;

use linnet_system_tests::{client::Method, stack::BASE_URL};
use serde_json::json;

use super::support::{
    IMPORTER, URLS, USERS, bad_rows, builder, counts, ended, import, job_of, links, upload,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_16_nobody_touches_anothers_job() {
    let mut stack = builder().start().await;
    stack.workers[0].stop().await;
    let (_, ada) = stack.user("ada", &IMPORTER).await;
    let (_, bob) = stack.user("bob", &IMPORTER).await;
    let id = import(&ada, links("a", 3)).await;
    let path = format!("/api/v1/jobs/{id}");
    for (method, of) in [
        (Method::GET, ""),
        (Method::GET, "/errors"),
        (Method::GET, "/errors?format=csv"),
        (Method::GET, "/events"),
        (Method::POST, "/cancel"),
        (Method::POST, "/replay"),
        (Method::DELETE, ""),
    ] {
        bob.request(method.clone(), &format!("{path}{of}")).send().await.problem(404);
        stack
            .client()
            .anonymous()
            .request(method, &format!("{path}{of}"))
            .send()
            .await
            .problem(401);
    }
    assert_eq!(bob.get("/api/v1/jobs").send().await.json(), json!([]));
    assert_eq!(ada.get("/api/v1/jobs").send().await.json()[0]["id"], id);
    assert_eq!(ada.get(&path).send().await.json()["state"], "queued", "it is untouched");
    // One who may only read changes nothing of one's own, either.
    let (_, reader) = stack.user("reader", &["urls:read"]).await;
    upload(&reader, URLS, links("r", 1)).send().await.problem(403);
    reader.request(Method::POST, &format!("{path}/cancel")).send().await.problem(403);
    // Jobs alone are not links.
    let (_, half) = stack.user("half", &["jobs:write"]).await;
    upload(&half, URLS, links("h", 1)).send().await.problem(403);
    for no_admin in [&ada, &half] {
        upload(no_admin, USERS, "username,email\na,a@example.com\n").send().await.problem(403);
    }
    stack.client().anonymous().request(Method::POST, URLS).send().await.problem(401);
    stack.workers[0].start();
    assert_eq!(ended(&ada, id).await["rows_written"], 3);
    // Dead letters are their owners', too.
    sqlx::query("UPDATE jobs SET state = 'failed', dead_at = now() WHERE id = $1")
        .bind(id)
        .execute(&mut stack.database().await)
        .await
        .unwrap();
    assert_eq!(bob.get("/api/v1/jobs/dead").send().await.json(), json!([]));
    assert_eq!(ada.get("/api/v1/jobs/dead").send().await.json()[0]["id"], id);
    bob.request(Method::POST, &format!("{path}/replay")).send().await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_16_rows_name_nobody_else_and_change_nothing_of_theirs() {
    let stack = builder().start().await;
    let (ada_id, ada) = stack.user("ada", &IMPORTER).await;
    let (bob_id, bob) = stack.user("bob", &IMPORTER).await;
    let link = json!({"original_url": "https://example.com/bobs", "short_code": "bobs"});
    let bobs = bob.shorten(&link).await;
    let csv = format!(
        "id,user_id,short_code,original_url\n\
         {},{ada_id},mine,https://example.com/1\n\
         ,{bob_id},for-bob,https://example.com/2\n\
         ,,bobs,https://example.com/3\n",
        bobs["id"]
    );
    for on_conflict in ["update", "skip", "fail"] {
        let path = format!("{URLS}?on_conflict={on_conflict}");
        let id = job_of(&upload(&ada, &path, &csv).send().await);
        let job = ended(&ada, id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        let bad = bad_rows(&ada, id).await;
        assert!(bad.contains(&(3, "user_id".into(), "forbidden".into())), "{bad:?}");
        let shown = bob.get(&format!("/api/v1/urls/{}", bobs["id"])).send().await.json();
        assert_eq!(shown, bobs, "{on_conflict}");
    }
    let mine = ada.get("/api/v1/urls").send().await.json();
    assert_eq!(mine.as_array().unwrap().len(), 1, "{mine}");
    assert_eq!(mine[0]["short_code"], "mine");
    assert_ne!(mine[0]["id"], bobs["id"], "ids are not theirs to choose");
    assert_eq!(bob.get("/api/v1/urls").send().await.json().as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_03_must_04_must_21_rows_obey_the_rules_of_links() {
    let stack = builder().start().await;
    let client = stack.client();
    client.shorten(&json!({"original_url": "https://example.com/", "short_code": "mine"})).await;
    let own = BASE_URL.trim_start_matches("http://");
    let targets = [
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
    ];
    let codes = [
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
    for on_conflict in ["fail", "skip", "update"] {
        let mut csv = "short_code,original_url\n".to_owned();
        let mut rows = 0;
        for target in &targets {
            writeln!(csv, "mine,\"{target}\"").unwrap();
            rows += 1;
        }
        for code in codes {
            writeln!(csv, "{code},https://example.com/").unwrap();
            rows += 1;
        }
        let id = job_of(
            &upload(&client, &format!("{URLS}?on_conflict={on_conflict}"), csv).send().await,
        );
        let job = ended(&client, id).await;
        assert_eq!(
            counts(&job),
            [rows, 0, 0, rows],
            "{on_conflict}: {:?}",
            bad_rows(&client, id).await
        );
        let bad = bad_rows(&client, id).await;
        let columns: Vec<&str> = bad.iter().map(|row| row.1.as_str()).collect();
        assert_eq!(columns[..targets.len()], vec!["original_url"; targets.len()]);
        assert_eq!(columns[targets.len()..], vec!["short_code"; codes.len()]);
    }
    let links = client.get("/api/v1/urls").send().await.json();
    assert_eq!(links.as_array().unwrap().len(), 1, "{links}");
    assert_eq!(links[0]["original_url"], "https://example.com/");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_06_a_code_that_many_imports_want_is_one_links() {
    let stack = builder()
        .workers(2)
        .env("LINNET__JOBS__RUNNING_PER_USER", 8)
        .env("LINNET__JOBS__UPLOADS", 10)
        .start()
        .await;
    let client = stack.client();
    let mut asked = Vec::new();
    for n in 0..10 {
        // In both directions, so that two of them meet.
        let mut rows: Vec<String> =
            (0..50).map(|code| format!("same{code},https://example.com/{n}")).collect();
        if n % 2 == 1 {
            rows.reverse();
        }
        let csv = format!("short_code,original_url\n{}\n", rows.join("\n"));
        let request = upload(&client, URLS, csv);
        asked.push(tokio::spawn(async move { job_of(&request.send().await) }));
    }
    let created: Vec<_> = (0..50)
        .map(|code| {
            let body = json!({"original_url": "https://example.com/api", "short_code": format!("same{code}")});
            let request = client.post("/api/v1/urls", &body);
            tokio::spawn(async move { request.send().await.status })
        })
        .collect();
    let mut written = 0;
    for created in created {
        let status = created.await.unwrap();
        assert!([201, 409].contains(&status), "{status}");
        written += i64::from(status == 201);
    }
    for asked in asked {
        let id = asked.await.unwrap();
        let job = ended(&client, id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        let [read, mine, skipped, failed] = counts(&job);
        assert_eq!((read, skipped, mine + failed), (50, 0, 50), "{job}");
        written += mine;
    }
    assert_eq!(written, 50, "each code once");
    let mut database = stack.database().await;
    assert_eq!(super::support::made_once(&mut database, "same").await, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_10_what_is_imported_and_exported_again_runs_nowhere_and_is_the_same() {
    let stack = builder().start().await;
    let client = stack.client();
    let titles = ["=cmd()|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "'=quoted", "plain", "a=b"];
    let mut csv = "title,original_url\n".to_owned();
    for title in titles {
        writeln!(csv, "\"{title}\",https://example.com/").unwrap();
        writeln!(csv, "\"{title}\",ftp://example.com/").unwrap();
    }
    let id = import(&client, csv).await;
    let job = ended(&client, id).await;
    assert_eq!(counts(&job), [14, 7, 0, 7], "{job}");
    let reports = client.get(&format!("/api/v1/jobs/{id}/errors?format=csv")).send().await.text();
    for (title, line) in titles.iter().zip(reports.lines().skip(1)) {
        let cell = line.rsplit_once(",ftp:").unwrap().0.rsplit([',']).next().unwrap();
        let cell = cell.trim_matches('"');
        let is_formula = cell.starts_with(['=', '+', '-', '@', '\t']);
        assert!(!is_formula, "{title}: {line}");
    }
    // Mended and sent as it is, the rest comes in, under the titles that it had.
    let mended = import(&client, reports.replace("ftp:", "https:")).await;
    assert_eq!(counts(&ended(&client, mended).await), [7, 7, 0, 0]);
    let links = client.get("/api/v1/urls?limit=100").send().await.json();
    let mut stored: Vec<&str> =
        links.as_array().unwrap().iter().map(|link| link["title"].as_str().unwrap()).collect();
    // A cell that was protected by somebody loses its protection.
    let mut wanted: Vec<&str> = titles
        .iter()
        .flat_map(|title| [*title; 2])
        .map(|title| if title == "'=quoted" { "=quoted" } else { title })
        .collect();
    stored.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(stored, wanted);
}
