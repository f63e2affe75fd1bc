//! Faults: the certificate in use stays, the reason is reported, and the order succeeds later.

use std::{fs, time::Duration};

use linnet_system_tests::{eventually, pebble::BLOCKED, within};

use crate::support::{DAY_S, NAME, Site, WAIT, names, value, wait_for_failure};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_order_keeps_the_certificate_and_waits() {
    let site = Site::start(90 * DAY_S).await;
    let file = site.path("names");
    fs::write(&file, "").unwrap();
    let mut env = site.env(NAME);
    env.insert("LINNET__ACME__NAMES_FILE".into(), file.to_str().unwrap().to_owned());
    let acme = site.acme(env.clone()).await;
    let (live, _) = site.next_certificate(None).await;

    fs::write(&file, BLOCKED).unwrap();
    let detail = wait_for_failure(&acme, "refused").await;
    assert!(detail.contains(BLOCKED), "{detail}");
    assert_eq!(site.installed().unwrap().0, live);
    assert!(acme.is_ready().await, "nginx has a certificate");
    let (is_good, status) = site.status(&env).await;
    assert!(!is_good && status.contains("missing") && status.contains("next attempt"), "{status}");

    // After the second failure, 10 s pass: nothing is ordered in that time, not even after a restart.
    let failures = || async { value(&acme.metrics().await, "consecutive_failures") };
    within(WAIT, "the second failure", || async { failures().await == Some(2.0) }).await;
    let begin = std::time::Instant::now();
    within(WAIT, "the third failure", || async { failures().await == Some(3.0) }).await;
    assert!(begin.elapsed() > Duration::from_secs(8), "{:?}", begin.elapsed());

    // The operator corrects the names.
    fs::write(&file, "www.example.com").unwrap();
    let (_, certificate) = site.next_certificate(Some(&live)).await;
    assert_eq!(certificate.names, names(&[NAME, "www.example.com"]));
    within(WAIT, "the failures to end", || async { failures().await == Some(0.0) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_that_leads_elsewhere_is_reported_before_an_order() {
    let site = Site::start(90 * DAY_S).await;
    let mut env = site.env(NAME);
    // Another server answers there: Pebble itself, which expects TLS.
    let other = site.pebble.directory().replace("https://", "").replace("/dir", "");
    env.insert("LINNET__ACME__PROBE_ADDRESS".into(), other);
    let acme = site.acme(env).await;
    let detail = wait_for_failure(&acme, "dns").await;
    assert!(detail.starts_with("DNS of go.example.com does not point here"), "{detail}");
    assert!(!site.pebble.log().contains("new-account"), "nothing reached the CA");
    assert!(site.installed().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ca_that_is_unreachable_and_lost_its_accounts_is_tried_again() {
    let mut site = Site::start(60).await;
    let acme = site.acme(site.env(NAME)).await;
    let (live, _) = site.next_certificate(None).await;
    site.pebble.stop().await;
    let detail = wait_for_failure(&acme, "unreachable").await;
    assert!(detail.to_lowercase().contains("connect"), "{detail}");
    assert_eq!(site.installed().unwrap().0, live, "the certificate in use stays");
    // A restarted Pebble does not know the account.
    site.pebble.start_again().await;
    site.next_certificate(Some(&live)).await;
    assert!(acme.log().contains("the CA does not know the account"), "{}", acme.log_tail(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_orders_nothing_and_keeps_the_certificate() {
    let site = Site::start(60).await;
    let mut acme = site.acme(site.env(NAME)).await;
    let (live, _) = site.next_certificate(None).await;
    acme.stop().await;
    // No file may grow beyond 24 KiB, as if the disk were full.
    let limit = "trap '' XFSZ; ulimit -f 48; exec \"$0\"";
    let limited = site.acme_through(site.env(NAME), "/bin/sh", &["-c", limit]).await;
    wait_for_failure(&limited, "storage").await;
    assert_eq!(site.installed().unwrap().0, live);
    drop(limited);
    let entries = fs::read_dir(site.path("certificates")).unwrap().count();
    let _acme = site.acme(site.env(NAME)).await;
    site.next_certificate(Some(&live)).await;
    assert!(fs::read_dir(site.path("certificates")).unwrap().count() <= entries + 1);
}

/// A clock that is wrong by years must not lead to one order after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_clock_causes_no_more_than_one_order() {
    let library = faketime().expect("libfaketime: run scripts/install-packages libfaketime");
    for offset in ["-400d", "+10y"] {
        let site = Site::start(90 * DAY_S).await;
        let mut env = site.env(NAME);
        env.insert("LD_PRELOAD".into(), library.clone());
        env.insert("FAKETIME".into(), offset.into());
        env.insert("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into());
        let acme = site.acme(env).await;
        let (live, _) = site.next_certificate(None).await;
        // The schedule is read again each second.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(site.installed().unwrap().0, live, "{offset}");
        let metrics = eventually(WAIT, "metrics", || async { Some(acme.metrics().await) }).await;
        assert_eq!(value(&metrics, "orders_total"), Some(1.0), "{offset}");
    }
}

fn faketime() -> Option<String> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    let mut paths = folders.flatten().map(|f| f.path().join("faketime/libfaketimeMT.so.1"));
    paths.find(|path| path.exists()).and_then(|path| path.to_str().map(str::to_owned))
}
