//! TLS to PostgreSQL, Redis and the collector, with certificates of the tests' own CAs.

use std::{path::Path, sync::Arc, time::Duration};

use linnet_system_tests::{
    EventStream, Process, Stack,
    certificates::{Certificates, Flaw},
    services::local,
    within,
};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

const WAIT: Duration = Duration::from_secs(20);

/// Responds to each export over TLS with 200. Returns its port and the number of exports.
async fn collector(folder: &Path) -> (u16, watch::Receiver<usize>) {
    let certificate = CertificateDer::from_pem_file(folder.join("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(local(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (exports, received) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, exports) = (acceptor.clone(), exports.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut buffer = vec![0; 64 * 1024];
                if stream.read(&mut buffer).await.is_ok_and(|read| read > 0)
                    && buffer.starts_with(b"POST /v1/traces ")
                {
                    exports.send_modify(|count| *count += 1);
                }
                let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(response).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (port, received)
}

/// Asserts that every connection of Linnet's processes to PostgreSQL and Redis uses TLS, and that there are some.
async fn assert_only_tls(stack: &Stack, redis_tls_port: &str) {
    let sql = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl)
        FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'linnet%'";
    let (tls, plain): (i64, i64) =
        sqlx::query_as(sql).fetch_one(&mut stack.database().await).await.unwrap();
    assert!(tls > 0 && plain == 0, "PostgreSQL: {tls} with and {plain} without TLS");

    let client = redis::Client::open(stack.redis_url("operator")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
    let tls_address = format!(" laddr=127.0.0.1:{redis_tls_port} ");
    for role in ["gateway", "shortener", "worker"] {
        let of_role: Vec<_> =
            clients.lines().filter(|line| line.contains(&format!(" user={role} "))).collect();
        assert!(!of_role.is_empty(), "no client of {role}: {clients}");
        assert!(of_role.iter().all(|line| line.contains(&tls_address)), "{of_role:#?}");
    }
}

async fn clicks_of(stack: &Stack, link: &serde_json::Value) -> i64 {
    let link = stack.client().get(&format!("/api/v1/urls/{}", link["id"])).send().await.json();
    link["clicks"].as_i64().unwrap_or_default()
}

/// Visits a link and waits for the click to reach PostgreSQL through Redis.
async fn visit_and_count(stack: &Stack, link: &serde_json::Value, clicks: i64) {
    let code = link["short_code"].as_str().unwrap();
    assert_eq!(stack.client().anonymous().get(&format!("/{code}")).send().await.status, 302);
    within(WAIT, "the click to be counted", || async { clicks_of(stack, link).await == clicks })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_32_every_connection_uses_tls_and_is_opened_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let of_collector = Certificates::create(folder.path().join("tls"));
    let (port, mut exports) = collector(of_collector.folder()).await;
    let mut stack = Stack::builder()
        .workers(1)
        .tls()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://localhost:{port}"))
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", of_collector.ca_file())
        .env("OTEL_BSP_SCHEDULE_DELAY", 100)
        .start()
        .await;
    let redis_url = stack.env()["LINNET__REDIS__URL"].clone();
    let redis_tls_port = redis_url.rsplit([':', '/']).nth(1).unwrap().to_owned();
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    visit_and_count(&stack, &link, 1).await;
    let path = format!("/api/v1/urls/{}/live", link["id"]);
    let events = EventStream::open(&client, &stack.admin_key, &path, None).await;
    assert_only_tls(&stack, &redis_tls_port).await;
    drop(events);
    tokio::time::timeout(WAIT, exports.wait_for(|count| *count > 0)).await.unwrap().unwrap();

    // Commands use the same settings.
    for args in [
        &["preflight"][..],
        &["migrate"],
        &["admin", "jobs", "list"],
        &["admin", "run-task", "click-partitions"],
    ] {
        let (status, out, error) = stack.cli(args).await;
        assert_eq!(status, 0, "{args:?}: {out}{error}");
    }

    stack.redis.stop().await;
    stack.start_redis().await;
    stack.kill_postgres().await;
    stack.start_postgres().await;
    stack.wait_until_ready().await;
    within(WAIT, "every Redis client to reconnect", || async {
        let ready = stack.shorteners[0].admin_get("/readyz").await;
        ready.is_some_and(|ready| ready.json()["checks"]["redis"]["status"] == "up")
    })
    .await;
    visit_and_count(&stack, &link, 2).await;
    assert_only_tls(&stack, &redis_tls_port).await;
}

/// The output of `preflight`, which must fail.
async fn refusal(stack: &Stack, env: &[(&str, &str)]) -> String {
    let (status, _, error) = stack.cli_with(env, &["preflight"]).await;
    assert_ne!(status, 0, "{error}");
    error
}

fn assert_both(error: &str, reason: &str) {
    for key in ["postgres.url", "redis.url"] {
        let found = error.lines().any(|line| line.contains(&format!("{key}: {reason}")));
        assert!(found, "{key}: {reason} is not in: {error}");
    }
}

async fn wait_for_reason(process: &Process, reason: &str) {
    within(WAIT, reason, || async {
        let ready = process.admin_get("/readyz").await;
        ready.is_some_and(|ready| ready.text().contains(reason))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_32_a_server_that_cannot_be_verified_is_refused_with_the_reason() {
    let mut stack = Stack::builder().tls().start().await;
    let other = tempfile::tempdir().unwrap();
    let other = Certificates::create(other.path().join("tls"));
    let other = other.ca_file();

    let wrong_ca =
        [("LINNET__POSTGRES__CA_FILE", other.as_str()), ("LINNET__REDIS__CA_FILE", &other)];
    assert_both(&refusal(&stack, &wrong_ca).await, "no trusted CA has signed");
    let public_cas = [("LINNET__POSTGRES__CA_FILE", ""), ("LINNET__REDIS__CA_FILE", "")];
    assert_both(&refusal(&stack, &public_cas).await, "no trusted CA has signed");

    // Running processes refuse a certificate that has become invalid, and recover.
    for (flaw, reason) in [
        (Flaw::OtherHost, "the server's certificate is for another host name"),
        (Flaw::Expired, "the server's certificate has expired"),
    ] {
        stack.certificates().issue(flaw);
        stack.redis.stop().await;
        stack.start_redis().await;
        stack.kill_postgres().await;
        stack.start_postgres().await;
        assert_both(&refusal(&stack, &[]).await, reason);
        wait_for_reason(&stack.shorteners[0], reason).await;
        wait_for_reason(&stack.gateways[0], reason).await;
    }
    stack.certificates().issue(Flaw::None);
    stack.redis.stop().await;
    stack.start_redis().await;
    stack.kill_postgres().await;
    stack.start_postgres().await;
    stack.wait_until_ready().await;
}

#[tokio::test]
async fn must_32_a_server_without_tls_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::create(folder.path().join("tls"));
    let ca = certificates.ca_file();
    let plain = std::net::TcpListener::bind(local(0)).unwrap();
    let plain_port = plain.local_addr().unwrap().port();
    let stack = Stack::start().await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{}?sslmode={mode}", stack.env()["LINNET__POSTGRES__URL"]);
        let error = refusal(&stack, &[("LINNET__POSTGRES__URL", &url)]).await;
        assert!(error.contains("postgres.url: the server does not use TLS"), "{error}");
    }
    // Once, because Redis lets the handshake time out, which preflight repeats.
    let url = stack.env()["LINNET__REDIS__URL"].replace("redis://", "rediss://");
    let error = refusal(&stack, &[("LINNET__REDIS__URL", &url)]).await;
    assert!(error.contains("check whether the server uses TLS"), "{error}");
    // Without TLS in the settings, no certificate may be named: it would verify nothing.
    let endpoint = format!("http://127.0.0.1:{plain_port}");
    let env = [
        ("LINNET__POSTGRES__CA_FILE", ca.as_str()),
        ("LINNET__POSTGRES__URL", "postgres://linnet@127.0.0.1/linnet?sslmode=prefer"),
        ("LINNET__REDIS__CA_FILE", &ca),
        ("LINNET__TELEMETRY__OTLP_CA_FILE", &ca),
        ("LINNET__TELEMETRY__OTLP_ENDPOINT", &endpoint),
    ];
    let (status, _, error) = stack.cli_with(&env, &["preflight"]).await;
    assert_eq!(status, 64, "{error}");
    for key in ["postgres.ca_file", "redis.ca_file", "telemetry.otlp_ca_file"] {
        assert!(error.contains(key), "{key} is not in: {error}");
    }
}

#[tokio::test]
async fn must_32_a_collector_that_cannot_be_verified_gets_no_spans() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::create(folder.path().join("tls"));
    for (flaw, host, reason) in [
        (Flaw::OtherHost, "localhost", "the server's certificate is for another host name"),
        (Flaw::Expired, "127.0.0.1", "the server's certificate has expired"),
    ] {
        certificates.issue(flaw);
        let (port, exports) = collector(certificates.folder()).await;
        let stack = Stack::builder()
            .env("LINNET__TELEMETRY__OTLP_ENDPOINT", format!("https://{host}:{port}"))
            .env("LINNET__TELEMETRY__OTLP_CA_FILE", certificates.ca_file())
            .env("OTEL_BSP_SCHEDULE_DELAY", 100)
            .start()
            .await;
        stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
        for process in [&stack.shorteners[0], &stack.gateways[0]] {
            within(WAIT, reason, || async {
                process.log_lines().iter().any(|line| {
                    line["message"] == "span export failed; retrying"
                        && line["error"].as_str().is_some_and(|error| error.contains(reason))
                })
            })
            .await;
        }
        assert_eq!(*exports.borrow(), 0);
    }
}

/// The sessions of Linnet at one server of a group.
async fn sessions_at(stack: &Stack, server: usize) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'linnet-%'";
    let mut superuser = stack.postgres_group().superuser(server).await;
    sqlx::query_scalar(sql).fetch_one(&mut superuser).await.unwrap()
}

/// Of several hosts, each is verified by its own name. The host with the wrong name is a standby at first, and then the
/// only primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_32_host_with_a_certificate_for_another_name_is_never_used() {
    let reason = "the server's certificate is for another host name";
    let mut stack = Stack::builder().workers(1).standbys().tls().start().await;
    stack.certificates().issue(Flaw::OtherHost);
    let group = stack.postgres_group.as_mut().unwrap();
    group.standbys[0].stop().await;
    group.standbys[0].start();
    within(WAIT, "the standby's certificate to be refused", || async {
        let log = stack.postgres_group().standbys[0].log();
        log.contains("could not accept SSL connection")
    })
    .await;
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    visit_and_count(&stack, &link, 1).await;
    assert_eq!(sessions_at(&stack, 1).await, 0);
    assert!(sessions_at(&stack, 0).await > 0 && sessions_at(&stack, 2).await > 0);

    stack.kill_postgres().await;
    stack.promote(1).await;
    let error = refusal(&stack, &[]).await;
    assert!(error.contains(reason), "{error}");
    let refused =
        stack.client().post("/api/v1/urls", &json!({"original_url": "https://a.example/"}));
    assert_eq!(refused.send().await.status, 503);
    assert_eq!(sessions_at(&stack, 1).await, 0);

    stack.promote(2).await;
    within(WAIT, "201 from the API", || async {
        let body = json!({"original_url": "https://example.com/new"});
        let response = stack.client().post("/api/v1/urls", &body).try_send().await;
        response.is_ok_and(|response| response.status == 201)
    })
    .await;
    assert_eq!(sessions_at(&stack, 1).await, 0);
}

/// `sslmode=prefer`, the default, uses TLS where the server offers it. It protects from eavesdroppers only.
#[tokio::test]
async fn connections_are_encrypted_if_the_server_offers_it() {
    let stack = Stack::builder().tls().start().await;
    let url = stack.database_url().to_owned();
    let env = [("LINNET__POSTGRES__URL", url.as_str()), ("LINNET__POSTGRES__CA_FILE", "")];
    let (status, _, error) = stack.cli_with(&env, &["preflight"]).await;
    assert_eq!(status, 0, "{error}");
    let mut connection = PgConnection::connect(&format!("{url}?sslmode=prefer")).await.unwrap();
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let ssl: bool = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    assert!(ssl);
}
