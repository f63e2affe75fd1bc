//! Tests of smoke tests against sockets, and of reports.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use super::*;

#[test]
fn readiness_needs_the_expected_release_and_a_200() {
    let response = |status, body: &str| Response { status, location: None, body: body.to_owned() };
    let ready = r#"{"ready":true,"release":"v2","checks":{}}"#;
    assert_eq!(compare(&response(200, ready), "v2"), Ok(()));
    assert!(compare(&response(200, ready), "v3").unwrap_err().contains("v2 instead of v3"));
    assert!(compare(&response(503, ready), "v2").unwrap_err().contains("not ready"));
    assert!(compare(&response(200, "<html>"), "v2").is_err());
}

#[test]
fn color_is_reachable_only_if_both_sockets_answer_nginx() {
    assert!(reachable(Color::Green, "200 404").is_ok());
    for statuses in ["000 404", "200 000", "200", "", "502 404"] {
        assert!(reachable(Color::Green, statuses).is_err(), "{statuses}");
    }
}

/// A color whose first `failures` responses are 503.
fn color(folder: &Path, failures: u32) -> Sockets {
    let failures = Arc::new(AtomicU32::new(failures));
    let socket = |name: &str| {
        let path = folder.join(name);
        let (listener, failures) = (UnixListener::bind(&path).unwrap(), failures.clone());
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 512];
                let count = stream.read(&mut head).unwrap();
                let path = String::from_utf8_lossy(&head[..count]).into_owned();
                let fails = failures.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
                let status = match path.split(' ').nth(1) {
                    _ if fails.is_ok() => "503",
                    Some("/health" | "/docs/") => "200",
                    Some("/api/v1/urls") => "401",
                    _ => "404",
                };
                write!(stream, "HTTP/1.0 {status} \r\n\r\n").unwrap();
            }
        });
        path
    };
    Sockets { web: socket("web"), redirects: socket("redirects"), host: "localhost".to_owned() }
}

#[test]
fn busy_server_loses_a_request_without_failing_a_release_and_a_wrong_release_fails() {
    let [busy, good] = [1, 0].map(|failures| {
        let folder = tempfile::tempdir().unwrap();
        (color(folder.path(), failures), folder)
    });
    assert!(busy.0.synthetic(&good.0, 2).0.bad == 0);
    let folder = tempfile::tempdir().unwrap();
    let (tried, reason) = color(folder.path(), 3).synthetic(&good.0, 3);
    assert_eq!((tried.bad, tried.all), (1, 3));
    assert!(reason.unwrap().contains("/health returned 503 instead of 200"));
}

#[test]
fn gauge_is_read_by_its_whole_name() {
    let text = "# TYPE x gauge\nx_more 3\nx 12.5\n";
    assert_eq!(gauge(text, "x"), Some(12.5));
    assert_eq!(gauge(text, "y"), None);
}

#[test]
fn smoke_test_passes_with_and_without_anonymous_access() {
    for (path, status) in [("/health", 200), ("/api/v1/urls", 401), ("/api/v1/urls", 200)] {
        assert!(expected(path, status).is_ok(), "{path} {status}");
    }
    for (path, status) in [("/health", 401), ("/api/v1/urls", 403), ("/docs/", 404)] {
        assert!(expected(path, status).is_err(), "{path} {status}");
    }
}
