use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use super::*;
use crate::counters::Kind;

/// A pod's admin listener on loopback, which returns the text as `/metrics`.
pub(crate) struct Server {
    pub(crate) address: String,
    metrics: Arc<Mutex<Option<String>>>,
}

impl Server {
    pub(crate) fn start(metrics: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Mutex::new(Some(metrics.to_owned())));
        let body = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // Closing with unread bytes would reset the connection.
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n")
                    && stream.read(&mut byte).is_ok_and(|read| read > 0)
                {
                    request.extend(byte);
                }
                if let Some(body) = body.lock().unwrap().as_ref() {
                    let _ = write!(stream, "HTTP/1.1 200 OK\r\n\r\n{body}");
                }
            }
        });
        Self { address, metrics: shared }
    }

    /// `None` closes each connection without a response.
    pub(crate) fn returns(&self, metrics: Option<&str>) {
        *self.metrics.lock().unwrap() = metrics.map(str::to_owned);
    }
}

/// Metrics of a shortener with so many redirects and errors.
pub(crate) fn shortener(redirects: u64, errors: u64, started: u64) -> String {
    format!(
        "http_server_request_duration_seconds_count{{http_response_status_code=\"302\",http_route=\"/{{code}}\"}} {redirects}\n\
         http_server_request_duration_seconds_count{{http_response_status_code=\"500\",http_route=\"/{{code}}\"}} {errors}\n\
         process_start_time_seconds {started}\nprocess_resident_memory_bytes 50\nlinnet_process_memory_limit_bytes 200\n"
    )
}

pub(crate) const GATEWAY: &str = "process_start_time_seconds 7\n";

fn redirects(look: &Look) -> Option<u64> {
    look.counters.as_ref().map(|counters| counters.total(Kind::Redirects).all)
}

#[test]
fn counters_begin_at_the_first_look_and_the_memory_is_a_share_of_the_limit() {
    let (gateway, server) = (Server::start(GATEWAY), Server::start(&shortener(100, 0, 5)));
    let names = Names { gateway: gateway.address, shortener: server.address.clone() };
    let mut pods = Pods::new(names.clone(), false);
    assert_eq!(redirects(&pods.look()), Some(0));
    server.returns(Some(&shortener(130, 2, 5)));
    let look = pods.look();
    assert_eq!(redirects(&look), Some(32));
    assert!((look.memory_share - 0.25).abs() < 1e-9 && look.restarts == 0);
    let whole = Pods::new(names, true).look();
    assert_eq!(redirects(&whole), Some(132));
}

#[test]
fn another_start_time_is_a_restart_and_counts_from_zero() {
    let (gateway, server) = (Server::start(GATEWAY), Server::start(&shortener(100, 0, 5)));
    let names = Names { gateway: gateway.address, shortener: server.address.clone() };
    let mut pods = Pods::new(names, false);
    pods.look();
    server.returns(Some(&shortener(9, 0, 50)));
    let look = pods.look();
    assert_eq!((redirects(&look), look.restarts), (Some(9), 1));
}

#[test]
fn pod_that_stops_responding_and_pod_that_never_responded_are_no_data() {
    let (gateway, server) = (Server::start(GATEWAY), Server::start(&shortener(1, 0, 5)));
    let names = Names { gateway: gateway.address.clone(), shortener: server.address.clone() };
    let mut pods = Pods::new(names, false);
    pods.look();
    server.returns(None);
    assert_eq!(redirects(&pods.look()), None);
    server.returns(Some(&shortener(4, 0, 5)));
    assert_eq!(redirects(&pods.look()), Some(3));
    for names in [
        Names { gateway: gateway.address, shortener: "127.0.0.1:1".to_owned() },
        Names { gateway: "no.such.name.invalid:1".to_owned(), shortener: server.address },
    ] {
        assert_eq!(redirects(&Pods::new(names, false).look()), None);
    }
}

#[test]
fn durations_can_begin_later_than_responses() {
    let timed = |slow: u64| {
        format!(
            "http_server_request_duration_seconds_bucket{{http_route=\"/{{code}}\",le=\"0.025\"}} 10\n{}",
            shortener(10 + slow, 0, 5)
        )
    };
    let (gateway, server) = (Server::start(GATEWAY), Server::start(&timed(0)));
    let names = Names { gateway: gateway.address, shortener: server.address.clone() };
    let mut pods = Pods::new(names, false);
    pods.look();
    server.returns(Some(&timed(20)));
    pods.look();
    pods.skip_durations();
    server.returns(Some(&timed(25)));
    let counters = pods.look().counters.unwrap();
    let route = &counters.routes[crate::counters::REDIRECT];
    assert_eq!((route.all, route.slower_than(25_000).bad), (25, 5));
}
