//! PostgreSQL on several hosts: every process continues at the new primary.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use linnet_system_tests::{
    Load, OutcomeCounts, Stack, client::get_unix, expected::metric, redis_proxy::Mode,
    stack::Builder, stack::redis_group::command, within,
};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

/// Longest wait for any response; a request that gets none in this time has failed.
const NO_HANG: Duration = Duration::from_secs(10);
/// Longest wait for the processes to use another server.
const WAIT: Duration = Duration::from_secs(30);

fn builder() -> Builder {
    Stack::builder().shorteners(2).workers(1).standbys()
}

async fn create_links(stack: &Stack, count: usize) -> Vec<String> {
    let mut codes = Vec::new();
    for _ in 0..count {
        let link = stack.client().shorten(&json!({"original_url": "https://example.com/a"})).await;
        codes.push(link["short_code"].as_str().unwrap().to_owned());
    }
    codes
}

/// Resolves cached links at both shorteners.
async fn start_redirects(stack: &Stack, codes: &[String]) -> Load {
    for code in codes {
        for shortener in [0, 1] {
            assert_eq!(stack.resolve_at(shortener, code).await.0, 302);
        }
    }
    let (folder, codes) = (stack.folder().to_owned(), codes.to_vec());
    Load::start(2, move |number| {
        let socket = folder.join(format!("r{}", number % 2));
        let path = format!("/{}", codes[number / 2 % codes.len()]);
        async move {
            let response = tokio::time::timeout(NO_HANG, get_unix(&socket, &path)).await;
            match response {
                Ok(Some(response)) => response.status.to_string(),
                _ => "no response".to_owned(),
            }
        }
    })
}

/// Looks up codes in PostgreSQL, each for the first time.
fn start_lookups(stack: &Stack) -> Load {
    let client = stack.client().anonymous();
    Load::start(2, move |number| {
        let request = client.get(&format!("/absent{number}")).timeout(NO_HANG);
        async move {
            match request.try_send().await {
                Ok(response) => response.status.to_string(),
                Err(error) => error,
            }
        }
    })
}

/// Creates links, and collects the codes of those that were acknowledged.
fn start_creations(stack: &Stack) -> (Load, Arc<Mutex<Vec<String>>>) {
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let (client, codes) = (stack.client(), Arc::clone(&acknowledged));
    let load = Load::start(2, move |number| {
        let body = json!({"original_url": format!("https://example.com/{number}")});
        let (request, codes) = (client.post("/api/v1/urls", &body), Arc::clone(&codes));
        async move {
            match request.timeout(NO_HANG).try_send().await {
                Ok(response) if response.status == 201 => {
                    let code = response.json()["short_code"].as_str().unwrap().to_owned();
                    codes.lock().unwrap().push(code);
                    "201".to_owned()
                }
                Ok(response) => response.status.to_string(),
                Err(error) => error,
            }
        }
    });
    (load, acknowledged)
}

fn assert_only(counts: &OutcomeCounts, allowed: &[&str]) {
    assert!(counts.keys().all(|outcome| allowed.contains(&outcome.as_str())), "{counts:?}");
}

async fn wait_for_writes(stack: &Stack) {
    within(WAIT, "201 from the API", || async {
        let body = json!({"original_url": "https://example.com/new"});
        let response = stack.client().post("/api/v1/urls", &body).timeout(NO_HANG).try_send().await;
        response.is_ok_and(|response| response.status == 201)
    })
    .await;
}

/// Waits until clicks on this link are ingested again.
async fn wait_for_ingestion(stack: &Stack, code: &str) {
    let ingested = async || stack.workers[0].metrics().await.sum(metric::CLICKS_INGESTED, &[]);
    let before = ingested().await;
    within(WAIT, "clicks to be ingested", || async {
        assert_eq!(stack.resolve_at(0, code).await.0, 302);
        ingested().await > before
    })
    .await;
}

/// The sessions of Linnet's pools at one server that have run a statement after a time. Others are idle until their pool
/// is used again.
async fn sessions_since(stack: &Stack, server: usize, time: DateTime<Utc>) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity
                WHERE application_name = 'linnet-shortener' AND state_change > $1";
    let mut superuser = stack.postgres_group().superuser(server).await;
    sqlx::query_scalar(sql).bind(time).fetch_one(&mut superuser).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_failover_of_postgresql_fails_no_cached_link_and_loses_no_acknowledged_write() {
    let mut stack = builder().start().await;
    let cached = create_links(&stack, 8).await;
    let redirects = start_redirects(&stack, &cached).await;
    let lookups = start_lookups(&stack);
    let (creations, acknowledged) = start_creations(&stack);
    redirects.wait_for_requests(100).await;
    creations.wait_for_requests(20).await;

    stack.kill_postgres().await;
    redirects.wait_for_requests(100).await;
    stack.promote(1).await;
    wait_for_writes(&stack).await;
    stack.wait_until_ready().await;
    creations.wait_for_requests(20).await;
    wait_for_ingestion(&stack, &cached[0]).await;

    // The old primary returns as a standby, and becomes the primary again.
    stack.return_as_standby().await;
    redirects.wait_for_requests(50).await;
    assert_eq!(sessions_since(&stack, 0, DateTime::UNIX_EPOCH).await, 0);
    stack.postgres_group.as_mut().unwrap().standbys[0].kill().await;
    stack.promote(0).await;
    wait_for_writes(&stack).await;
    wait_for_ingestion(&stack, &cached[0]).await;
    lookups.wait_for_requests(20).await;

    assert_only(&redirects.finish().await, &["302"]);
    assert_only(&lookups.finish().await, &["404", "503"]);
    assert_only(&creations.finish().await, &["201", "503"]);
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() >= 40);
    let mut database = stack.database().await;
    let found: Vec<String> =
        sqlx::query_scalar("SELECT short_code FROM urls WHERE short_code = ANY ($1)")
            .bind(&acknowledged)
            .fetch_all(&mut database)
            .await
            .unwrap();
    assert_eq!(found.len(), acknowledged.len());
    let (status, _, error) = stack.cli(&["admin", "run-task", "expired-links"]).await;
    assert_eq!(status, 0, "{error}");
}

/// Connections to a host that disappears stay open and silent. The server replaces nothing by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_primary_that_falls_silent_is_left_as_soon_as_another_one_exists() {
    let mut stack = builder().start().await;
    let cached = create_links(&stack, 8).await;
    let redirects = start_redirects(&stack, &cached).await;
    let lookups = start_lookups(&stack);
    let (creations, _) = start_creations(&stack);
    creations.wait_for_requests(20).await;

    stack.postgres_group().proxies[0].set(Mode::BlackHole);
    // Statements of every process are now waiting for the old primary.
    redirects.wait_for_requests(100).await;
    lookups.wait_for_requests(4).await;
    stack.promote(1).await;
    wait_for_writes(&stack).await;
    wait_for_ingestion(&stack, &cached[0]).await;
    creations.wait_for_requests(20).await;
    lookups.wait_for_requests(20).await;

    assert_only(&redirects.finish().await, &["302"]);
    assert_only(&lookups.finish().await, &["404", "503"]);
    assert_only(&creations.finish().await, &["201", "503", "504"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_07_replaced_primary_that_still_runs_is_neither_read_nor_written() {
    let mut stack = builder().start().await;
    let codes = create_links(&stack, 2).await;
    for code in &codes {
        assert_eq!(stack.resolve_at(0, code).await.0, 302);
    }
    // Without a standby that confirms, its commits would wait.
    let mut old = stack.postgres_group().superuser(0).await;
    for statement in ["ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()"]
    {
        sqlx::raw_sql(statement).execute(&mut old).await.unwrap();
    }
    stack.promote(1).await;
    within(WAIT, "a second without statements at the old primary", || async {
        create_links(&stack, 2).await;
        sessions_since(&stack, 0, Utc::now() - TimeDelta::seconds(1)).await == 0
    })
    .await;
    let time = Utc::now();
    let written = create_links(&stack, 5).await;
    let count = "SELECT count(*) FROM urls WHERE short_code = ANY ($1)";
    let at_old: i64 = sqlx::query_scalar(count).bind(&written).fetch_one(&mut old).await.unwrap();
    assert_eq!(at_old, 0);
    // A process that starts sees both, and chooses the same.
    stack.shorteners[0].stop().await;
    stack.shorteners[0].start();
    stack.wait_until_ready().await;
    for code in &written {
        command(stack.redis_port(), &["DEL", &format!("l:{code}")]).await;
        within(WAIT, "a redirect from the new primary", || async {
            stack.resolve_at(0, code).await.0 == 302
        })
        .await;
    }
    assert_eq!(sessions_since(&stack, 0, time).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_find_the_primary_among_several_hosts() {
    let mut stack = builder().start().await;
    stack.postgres_group().proxies[0].set(Mode::Refuse);
    stack.promote(2).await;
    // The first host is unreachable and the second one a standby.
    for arguments in [
        &["migrate"][..],
        &["preflight"],
        &["admin", "jobs", "list"],
        &["admin", "run-task", "expired-links"],
    ] {
        let (status, _, error) = stack.cli(arguments).await;
        assert_eq!(status, 0, "{arguments:?}: {error}");
    }
    let without_primary = {
        let url = stack.postgres_group().url();
        let last = url.rfind(',').unwrap();
        let query = url.find("/linnet?").unwrap();
        format!("{}{}", &url[..last], &url[query..])
    };
    let env = [("LINNET__POSTGRES__URL", without_primary.as_str())];
    let (status, _, error) = stack.cli_with(&env, &["migrate"]).await;
    assert_ne!(status, 0);
    assert!(error.contains("no host accepts writes"), "{error}");
    assert!(error.contains("the server accepts no writes"), "{error}");
}

/// The wait is that of a process that starts, not that of a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_wait_for_the_first_primary() {
    let stack = builder().start().await;
    let set_all = |mode| stack.postgres_group().proxies.iter().for_each(|proxy| proxy.set(mode));
    set_all(Mode::Refuse);
    let command = stack.spawn_cli(&["admin", "jobs", "list"]);
    // The duration of the outage, several times the wait of a request.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!command.is_finished(), "the command did not wait: {:?}", command.await);
    set_all(Mode::Pass);
    let (status, _, error) = command.await.unwrap();
    assert_eq!(status, 0, "{error}");
}

async fn count_imported(database: &mut PgConnection, events: &'static str) -> (i64, i64) {
    let links = "SELECT count(*) FROM urls WHERE short_code LIKE 'adm%'";
    (
        sqlx::query_scalar(links).fetch_one(&mut *database).await.unwrap(),
        sqlx::query_scalar(events).fetch_one(database).await.unwrap(),
    )
}

/// The old primary is silent, so a transaction waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_command_writes_no_row_twice_over_a_failover() {
    const ROWS: i64 = 6_000;
    const CREATED: &str = "SELECT count(*) FROM events JOIN urls ON urls.id = url_id
                            WHERE short_code LIKE 'adm%' AND event_type = 'created'";
    let mut stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 20).start().await;
    let file = stack.folder().join("urls.csv");
    let rows = (0..ROWS).map(|row| format!("adm{row:06},https://example.com/{row}\n"));
    let csv: String = std::iter::once("short_code,original_url\n".to_owned()).chain(rows).collect();
    std::fs::write(&file, csv).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let command = stack.spawn_cli(&["admin", "import", "--urls", &file]);
    let database = tokio::sync::Mutex::new(stack.database().await);
    within(WAIT, "some rows", || async {
        count_imported(&mut *database.lock().await, CREATED).await.0 > 100
    })
    .await;
    stack.postgres_group().proxies[0].set(Mode::BlackHole);
    stack.promote(1).await;
    let (status, _, error) = command.await.unwrap();
    if status != 0 {
        assert!(error.contains("PostgreSQL did not confirm whether"), "{error}");
        let repeat = ["admin", "import", "--urls", &file, "--on-conflict", "skip"];
        let (status, _, error) = stack.cli(&repeat).await;
        assert_eq!(status, 0, "{error}");
    }
    let (links, created) = count_imported(&mut stack.database().await, CREATED).await;
    assert!(links == ROWS && (created == ROWS || created == 0), "{links} links, {created} events");
}

#[tokio::test]
async fn several_hosts_are_validated_at_the_start() {
    let stack = Stack::start().await;
    let url = "postgres://linnet@a:5432,b:0/linnet";
    let env = [("LINNET__POSTGRES__URL", url), ("LINNET__POSTGRES__MAX_CONNECTIONS", "1")];
    let (status, _, error) = stack.cli_with(&env, &["preflight"]).await;
    assert_eq!(status, 64, "{error}");
    for problem in ["target_session_attrs=read-write", "ports from 1 to 65535", "max_connections"] {
        assert!(error.contains(problem), "{problem} is not in: {error}");
    }
}

/// An installation with one host pays nothing for several hosts.
#[tokio::test]
async fn one_host_is_not_observed() {
    let stack = Stack::builder().standbys().start().await;
    let observers = "SELECT count(*) FROM pg_stat_activity
                      WHERE application_name = 'linnet-observer' AND datname = current_database()";
    let mut database = stack.database().await;
    let count: i64 = sqlx::query_scalar(observers).fetch_one(&mut database).await.unwrap();
    assert!(count > 0, "the processes do not observe several hosts");
    let plain = Stack::start().await;
    let mut database = PgConnection::connect(plain.database_url()).await.unwrap();
    let count: i64 = sqlx::query_scalar(observers).fetch_one(&mut database).await.unwrap();
    assert_eq!(count, 0);
}
