//! Startup, shutdown, configuration errors, warm-up and health checks.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, process::Command, time::Duration};

use linnet_system_tests::{
    Builder, Client, Load, OutcomeCounts, Signal, Stack,
    expected::metric,
    services::{self, binary, free_port, local, workspace},
    stack::Postgres,
    within,
};
use serde_json::json;

/// Two processes of each kind with a drain like the product's, which exceeds nginx's keep-alive.
fn builder_with_real_drain() -> Builder {
    Stack::builder()
        .shorteners(2)
        .gateways(2)
        .env("LINNET__SHUTDOWN__DRAIN_MS", 2_500)
        .env("LINNET__SHUTDOWN__GRACE_S", 15)
}

/// Visits, lists and creates links through nginx in the background. Outcomes are `success` or an error.
fn start_traffic(client: &Client, code: &str) -> Load {
    let (client, path) = (client.clone(), format!("/{code}"));
    Load::start(8, move |n| {
        let (client, path) = (client.clone(), path.clone());
        async move {
            let (what, wanted, request) = match n % 4 {
                0 => {
                    let body = json!({"original_url": format!("https://example.com/{n}")});
                    ("POST", 201, client.post("/api/v1/urls", &body))
                }
                1 => ("list", 200, client.get("/api/v1/urls?limit=5")),
                _ => ("visit", 302, client.get(&path)),
            };
            match request.try_send().await {
                Ok(response) if response.status == wanted => "success".to_owned(),
                Ok(response) => format!("{what}: {} {}", response.status, response.text()),
                Err(error) => format!("{what}: {error}"),
            }
        }
    })
}

fn assert_no_failure(counts: &OutcomeCounts) {
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["success"], "{counts:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_33_replacing_a_shortener_under_load_fails_no_request() {
    let mut stack = builder_with_real_drain().start().await;
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    let load = start_traffic(&stack.client(), link["short_code"].as_str().unwrap());
    load.wait_for_requests(200).await;
    for number in 0..2 {
        stack.shorteners[number].signal(Signal::TERM);
        let status = stack.shorteners[number].wait_for_end(Duration::from_secs(30)).await;
        assert_eq!(status.code(), Some(0), "{}", stack.shorteners[number].log_tail(5));
        load.wait_for_requests(200).await;
        stack.shorteners[number].start();
        stack.wait_until_ready().await;
        // The other shortener stops only after the gateways use this one again.
        let place = number.to_string();
        for gateway in &stack.gateways {
            within(Duration::from_secs(10), "the gateway marks the shortener as up", || async {
                let metrics = gateway.metrics().await;
                metrics.sum(metric::GATEWAY_UPSTREAM_UP, &[("upstream", &place)]) == 1.0
            })
            .await;
        }
        load.wait_for_requests(200).await;
    }
    assert_no_failure(&load.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_33_replacing_a_gateway_under_load_fails_no_request() {
    let mut stack = builder_with_real_drain().start().await;
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    let load = start_traffic(&stack.client(), link["short_code"].as_str().unwrap());
    load.wait_for_requests(200).await;
    for number in 0..2 {
        stack.gateways[number].signal(Signal::TERM);
        let status = stack.gateways[number].wait_for_end(Duration::from_secs(30)).await;
        assert_eq!(status.code(), Some(0), "{}", stack.gateways[number].log_tail(5));
        load.wait_for_requests(200).await;
        stack.gateways[number].start();
        stack.wait_until_ready().await;
        load.wait_for_requests(200).await;
    }
    assert_no_failure(&load.finish().await);
}

/// Runs `nginx/slots.sh` for a directory of slots and sockets. Returns its output.
fn slots(folder: &std::path::Path, args: &[&str]) -> String {
    let output = Command::new("sh")
        .arg(workspace().join("nginx/slots.sh"))
        .args(args)
        .env("LINNET_NGINX_SLOTS", folder.join("slots"))
        .env("LINNET_NGINX_SOCKETS", folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_33_requests_move_between_colors_without_a_failure() {
    let mut stack = builder_with_real_drain().start().await;
    let folder = stack.folder().join("colors");
    for name in ["redirects", "web", "slots"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    for (number, color) in ["blue", "green"].iter().enumerate() {
        for (group, kind) in [("redirects", "r"), ("web", "g")] {
            let socket = stack.folder().join(format!("{kind}{number}"));
            symlink(socket, folder.join(group).join(format!("{color}.sock"))).unwrap();
        }
    }
    assert!(slots(&folder, &[]).contains("resolve blue=10 green=0"));
    let ten = |group: &str| -> Vec<String> {
        let slot = |index| format!("unix:{}/slots/{group}-{index}", folder.display());
        (0..10).map(slot).collect()
    };
    let port = free_port();
    let (resolve, web) = (ten("resolve"), ten("web"));
    let _nginx = services::nginx(&folder, port, &resolve, &web, &BTreeMap::new(), None);
    let client = Client::new(local(port)).with_key(&stack.admin_key);
    within(Duration::from_secs(20), "nginx forwards requests", || async {
        client.get("/health").try_send().await.is_ok_and(|health| health.status == 200)
    })
    .await;

    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let load = start_traffic(&client, link["short_code"].as_str().unwrap());
    load.wait_for_requests(200).await;
    for (color, old) in [("green", 0), ("blue", 1)] {
        for count in ["1", "5", "10"] {
            assert!(slots(&folder, &[color, count]).contains(&format!("{color}={count}")));
            load.wait_for_requests(300).await;
        }
        // The old color is retired, and started again as the next release.
        for process in [&mut stack.gateways[old], &mut stack.shorteners[old]] {
            process.signal(Signal::TERM);
            let status = process.wait_for_end(Duration::from_secs(30)).await;
            assert_eq!(status.code(), Some(0), "{}", process.log_tail(5));
        }
        load.wait_for_requests(200).await;
        stack.gateways[old].start();
        stack.shorteners[old].start();
        stack.wait_until_ready().await;
    }
    assert_no_failure(&load.finish().await);
}

#[tokio::test]
async fn draining_process_is_live_but_not_ready_and_ends_at_a_second_signal() {
    let mut stack = Stack::builder()
        .env("LINNET__SHUTDOWN__DRAIN_MS", 10_000)
        .env("LINNET__SHUTDOWN__GRACE_S", 25)
        .start()
        .await;
    for process in stack.shorteners.iter_mut().chain(&mut stack.gateways) {
        process.signal(Signal::TERM);
        let process = &mut *process;
        within(Duration::from_secs(5), "503 from /readyz", || async {
            process.admin_get("/readyz").await.is_some_and(|response| response.status == 503)
        })
        .await;
        assert_eq!(process.admin_get("/livez").await.unwrap().status, 200);
        process.signal(Signal::TERM);
        // This is far less than the drain.
        let status = process.wait_for_end(Duration::from_secs(5)).await;
        assert_ne!(status.code(), Some(0), "{} reports an incomplete shutdown", process.name());
    }
}

#[tokio::test]
async fn processes_start_without_redis_and_postgresql_and_recover() {
    let mut stack = Stack::builder().postgres(Postgres::Own).start().await;
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    let code = link["short_code"].as_str().unwrap();
    stack.shorteners[0].stop().await;
    stack.gateways[0].stop().await;
    stack.redis.kill().await;
    stack.kill_postgres().await;
    stack.shorteners[0].start();
    stack.gateways[0].start();
    for process in [&stack.shorteners[0], &stack.gateways[0]] {
        within(Duration::from_secs(10), "200 from /livez", || async {
            process.admin_get("/livez").await.is_some_and(|response| response.status == 200)
        })
        .await;
    }
    within(Duration::from_secs(10), "503 for a link that is not cached", || async {
        stack.client().resolve(code).await.0 == 503
    })
    .await;
    let readiness = stack.shorteners[0].admin_get("/readyz").await.unwrap();
    assert_eq!(readiness.status, 503, "{}", readiness.text());
    within(Duration::from_secs(10), "503 from the API", || async {
        let response = stack.client().get("/api/v1/urls").send().await;
        response.problem(503)["code"] == "unavailable" && response.header("retry-after").is_some()
    })
    .await;

    stack.start_postgres().await;
    within(Duration::from_secs(15), "links resolve with PostgreSQL alone", || async {
        stack.client().resolve(code).await.0 == 302
    })
    .await;
    within(Duration::from_secs(15), "the API works with PostgreSQL alone", || async {
        stack.client().get("/api/v1/urls").send().await.status == 200
    })
    .await;
    stack.start_redis().await;
    stack.wait_until_ready().await;
    within(Duration::from_secs(10), "a live invalidation bus", || async {
        stack.shortener_metrics(0).await.sum(metric::INVALIDATION_BUS_LIVE, &[]) == 1.0
    })
    .await;
    let pids = [stack.shorteners[0].pid(), stack.gateways[0].pid()];
    assert!(pids.iter().all(Option::is_some) && stack.shorteners[0].is_running());
}

#[test]
fn every_configuration_error_is_reported_before_startup() {
    for (program, keys) in [
        (
            "linnet-shortener",
            ["postgres.url", "cache.l1_bytes", "shortener.no_such", "shortener.api_listen"],
        ),
        (
            "linnet-gateway",
            ["upstream.shorteners", "limits.key_burst", "gateway.no_such", "gateway.listen"],
        ),
    ] {
        for arguments in [&["serve"][..], &["serve", "--check-config"], &["--check-config"]] {
            let mut command = Command::new(binary(program));
            command.env_clear().args(arguments);
            for key in keys.iter().chain(&["service.token", "redis.url", "no_such_section.key"]) {
                let name = format!("LINNET__{}", key.to_uppercase().replace('.', "__"));
                command.env(name, "::");
            }
            let output = command.output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{program} {arguments:?}: {error}");
            for key in keys.iter().chain(&["service.token", "redis.url", "no_such_section.key"]) {
                assert!(
                    error.contains(key),
                    "{program} {arguments:?} does not report {key}: {error}"
                );
            }
        }
        let mut good = Command::new(binary(program));
        good.env_clear().env("LINNET__SERVICE__TOKEN", "0123456789abcdef0123456789abcdef");
        let output = good.arg("--check-config").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn startup_warms_l1_with_the_most_clicked_links() {
    let mut stack = Stack::builder().env("LINNET__CACHE__WARMUP_LINKS", 5).start().await;
    let mut codes = Vec::new();
    for n in 0..20 {
        let body = json!({"original_url": format!("https://example.com/{n}")});
        codes.push(stack.client().shorten(&body).await["short_code"].as_str().unwrap().to_owned());
    }
    let mut database = stack.database().await;
    for (n, code) in codes.iter().enumerate() {
        sqlx::query("UPDATE urls SET clicks = $1 WHERE short_code = $2")
            .bind(i64::try_from(n).unwrap())
            .bind(code)
            .execute(&mut database)
            .await
            .unwrap();
    }
    stack.shorteners[0].stop().await;
    stack.shorteners[0].start();
    stack.wait_until_ready().await;
    let metrics = stack.shortener_metrics(0).await;
    assert_eq!(metrics.sum(metric::CACHE_WARMUP_LINKS, &[]), 5.0);
    let l1_hits = metrics.sum(metric::CACHE_LOOKUPS, &[("tier", "local")]);
    for code in &codes[15..] {
        assert_eq!(stack.client().resolve(code).await.0, 302);
    }
    let metrics = stack.shortener_metrics(0).await;
    assert_eq!(metrics.sum(metric::CACHE_LOOKUPS, &[("tier", "local")]) - l1_hits, 5.0);
}

#[tokio::test]
async fn healthcheck_commands_report_readiness() {
    let mut stack = Stack::start().await;
    let check = |process: &linnet_system_tests::Process, program: &str| {
        let mut command = Command::new(binary(program));
        command.arg("healthcheck").envs(process.env());
        command.output().unwrap().status.code()
    };
    assert_eq!(check(&stack.shorteners[0], "linnet-shortener"), Some(0));
    assert_eq!(check(&stack.gateways[0], "linnet-gateway"), Some(0));
    stack.shorteners[0].kill().await;
    assert_ne!(check(&stack.shorteners[0], "linnet-shortener"), Some(0));
    within(Duration::from_secs(10), "the gateway is unhealthy without a shortener", || async {
        check(&stack.gateways[0], "linnet-gateway") != Some(0)
    })
    .await;
}

/// Migrations are compatible with the previous release, so that an upgrade can be reverted.
#[tokio::test]
async fn newer_schema_is_accepted() {
    let stack = Stack::start().await;
    let mut database = stack.database().await;
    let newer =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (29991231000001, 'of a release to come', true, '', 0)";
    sqlx::raw_sql(newer).execute(&mut database).await.unwrap();
    let (status, _, error) = stack.cli(&["migrate"]).await;
    assert_eq!(status, 0, "{error}");
    let versions = "SELECT count(*) FROM _sqlx_migrations WHERE version = 29991231000001";
    let count: i64 = sqlx::query_scalar(versions).fetch_one(&mut database).await.unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn postgres_options_of_the_environment_have_no_effect() {
    let builder = Stack::builder().env("PGOPTIONS", "-c default_transaction_read_only=on");
    let stack = builder.start().await;
    stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
}
