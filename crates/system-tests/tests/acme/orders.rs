//! First orders, renewals, and names that are added.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use linnet_system_tests::{
    Client, eventually, https,
    pebble::PebbleOptions,
    services::{binary, path_text},
    within,
};

use crate::support::{DAY_S, NAME, Site, WAIT, names, value};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_order_replaces_the_placeholder_without_a_reload() {
    let site = Site::start(90 * DAY_S).await;
    let env = site.env("go.example.com,www.example.com");
    let nginx = site.nginx.pid();
    // Without a certificate, nginx runs and serves HTTP, but no handshake succeeds.
    assert!(https::connect(site.https, NAME, &[]).await.is_err());

    let acme = site.acme(env.clone()).await;
    assert!(fs::read_link(site.path("certificates/live")).is_ok(), "a placeholder at least");
    let (live, certificate) = site.next_certificate(None).await;
    assert_eq!(certificate.names, names(&[NAME, "www.example.com"]));
    let folder = site.path("certificates").join(&live);
    for file in ["cert.pem", "key.pem"] {
        let mode = fs::metadata(folder.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{file}");
    }
    // nginx caches the pair for a minute, if it can.
    within(Duration::from_secs(90), "nginx to serve the certificate", || async {
        let served = site.connect().await.certificate();
        served.as_ref() == pem_der(&folder.join("cert.pem"))
    })
    .await;
    assert_eq!(site.nginx.pid(), nginx);
    assert!(!site.nginx.log().contains("reconfiguring"), "{}", site.nginx.log());

    within(WAIT, "the metrics", || async {
        let metrics = acme.metrics().await;
        value(&metrics, "certificate_issued") == Some(1.0)
            && value(&metrics, "certificate_life_left_ratio").is_some_and(|left| left > 0.99)
            && value(&metrics, "missing_names") == Some(0.0)
            && value(&metrics, "orders_total") == Some(1.0)
            && value(&metrics, "last_success_timestamp_seconds").is_some()
    })
    .await;
    let (is_good, status) = site.status(&env).await;
    assert!(is_good && status.contains("go.example.com, www.example.com"), "{status}");
    assert!(status.contains("renewal"), "{status}");
    let left = fs::read_dir(site.path("challenges/.well-known/acme-challenge")).unwrap().count();
    assert_eq!(left, 0, "challenges are removed");
}

/// The DER form of the first certificate of a file.
fn pem_der(path: &std::path::Path) -> Vec<u8> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};

    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_is_redirected_and_https_has_hsts_and_http_2() {
    let site = Site::start(90 * DAY_S).await;
    let _acme = site.acme(site.env(NAME)).await;
    site.next_certificate(None).await;
    let plain = Client::new(site.http);
    let response = plain.get("/abc?x=1").send().await;
    assert_eq!(response.status, 308);
    let expected = format!("https://127.0.0.1:{}/abc?x=1", site.https.port());
    assert_eq!(response.headers["location"], expected);
    // The challenge path is the exception. It lists no folder and leaves none.
    for path in ["", "unknown", "../../certificates/live/key.pem", "%2e%2e/%2e%2e/x"] {
        let response = plain.get(&format!("/.well-known/acme-challenge/{path}")).send().await;
        assert!(matches!(response.status, 308 | 400 | 403 | 404), "{path}: {}", response.status);
        assert!(!response.text().contains("PRIVATE KEY"));
    }

    let mut connection = https::connect(site.https, NAME, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(connection.alpn().as_deref(), Some("h2"));
    connection = https::connect(site.https, NAME, &["http/1.1"]).await.unwrap();
    for path in ["/robots.txt", "/metrics", "/api/v1/urls"] {
        // The file is looked up at most once a minute.
        let head = connection.get(path).await.unwrap();
        let expected = "strict-transport-security: max-age=63072000";
        assert!(head.to_ascii_lowercase().contains(expected), "{path}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn placeholder_has_no_hsts() {
    let mut site = Site::start(90 * DAY_S).await;
    site.pebble.stop().await;
    let _acme = site.acme(site.env(NAME)).await;
    let head = site.connect().await.get("/robots.txt").await.unwrap();
    assert!(!head.to_ascii_lowercase().contains("strict-transport-security"), "{head}");
    let (is_good, status) = site.status(&site.env(NAME)).await;
    assert!(!is_good && status.contains("placeholder"), "{status}");
}

/// With Pebble 2.6 and later, the CA suggests the time. Older ones have no renewal information, so a half of the life is
/// the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewal_follows_the_suggestion_of_the_ca() {
    let site = Site::start(60).await;
    let has_renewal_info = site.pebble.has_renewal_info().await;
    let acme = site.acme(site.env(NAME)).await;
    let (first, old) = site.next_certificate(None).await;
    // The suggestion is requested each second.
    let (renewal, window) = eventually(WAIT, "the time of the renewal", || async {
        let metrics = acme.metrics().await;
        let time = |name: &str| value(&metrics, &format!("{name}_timestamp_seconds"));
        let window = time("renewal_window_start").zip(time("renewal_window_end"));
        let renewal = time("renewal")?;
        (window.is_some() == has_renewal_info).then_some((renewal, window))
    })
    .await;
    let (_, new) = site.next_certificate(Some(&first)).await;
    let life = (old.not_after - old.not_before).num_seconds();
    let age = (new.not_before - old.not_before).num_seconds();
    match window {
        // Pebble's window is a day long, so it may have begun before the certificate.
        Some((start, end)) => {
            assert!((start..=end).contains(&renewal), "{renewal} is not from {start} to {end}");
            assert!(new.not_before.timestamp() as f64 >= renewal - 1.0);
        }
        None => assert!((life / 4..life).contains(&age), "renewed after {age} of {life} s"),
    }
    let orders: Vec<bool> = acme
        .log_lines()
        .iter()
        .filter(|line| line["message"] == "certificate ordered")
        .filter_map(|line| line["replaces"].as_bool())
        .collect();
    assert_eq!(
        orders[..2],
        [false, has_renewal_info],
        "a renewal names the certificate it replaces"
    );
    if !has_renewal_info {
        eprintln!("this Pebble has no renewal information: only the renewal without it was tested");
    }
    assert_eq!(value(&acme.metrics().await, "consecutive_failures"), Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_orders_nothing_while_the_certificate_is_valid() {
    let site = Site::start(90 * DAY_S).await;
    let mut acme = site.acme(site.env(NAME)).await;
    let (live, _) = site.next_certificate(None).await;
    for _ in 0..2 {
        acme.stop().await;
        acme.start();
        within(WAIT, "readiness", || acme.is_ready()).await;
        within(WAIT, "the certificate to be read", || async {
            value(&acme.metrics().await, "certificate_issued") == Some(1.0)
        })
        .await;
    }
    assert_eq!(site.installed().unwrap().0, live);
    assert_eq!(value(&acme.metrics().await, "orders_total"), Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn added_name_is_ordered_and_one_that_leads_elsewhere_delays_no_other() {
    let site = Site::start(90 * DAY_S).await;
    let file = site.path("names");
    fs::write(&file, format!("{NAME}\n")).unwrap();
    let mut env = site.env("");
    env.insert("LINNET__ACME__NAMES_FILE".into(), path_text(&file));
    let acme = site.acme(env.clone()).await;
    let (first, _) = site.next_certificate(None).await;

    fs::write(&file, format!("{NAME}\nlinks.example.org\n")).unwrap();
    let (second, certificate) = site.next_certificate(Some(&first)).await;
    assert_eq!(certificate.names, names(&[NAME, "links.example.org"]));

    // A file that becomes invalid changes nothing.
    fs::write(&file, "*.example.org\n").unwrap();
    within(WAIT, "the warning", || async { acme.log().contains("names file not read") }).await;
    assert_eq!(site.installed().unwrap().0, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_nonces_and_slow_validations_are_retried() {
    let site = Site::start_with(PebbleOptions { life_s: 90 * DAY_S, is_moody: true }).await;
    let acme = site.acme(site.env("a.example.com,b.example.com,c.example.com")).await;
    let (_, certificate) = site.next_certificate(None).await;
    assert_eq!(certificate.names.len(), 3);
    drop(acme);
}

#[tokio::test]
async fn settings_are_checked_together() {
    let output = tokio::process::Command::new(binary("linnet-acme"))
        .arg("--check-config")
        .env("LINNET__ACME__NAMES", "*.example.com")
        .env("LINNET__ACME__DIRECTORY", "ftp://x")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("acme.names") && text.contains("acme.directory"), "{text}");
}
