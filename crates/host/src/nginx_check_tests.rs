use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use super::*;

/// A server on loopback that responds to the paths of a round as nginx does, or always with one status.
pub(crate) struct Nginx {
    address: String,
}

impl Nginx {
    pub(crate) fn start(status: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n")
                    && stream.read(&mut byte).is_ok_and(|read| read > 0)
                {
                    request.extend(byte);
                }
                let request = String::from_utf8_lossy(&request);
                let usual = match request.split(' ').nth(1) {
                    Some("/api/v1/urls") => 401,
                    Some(UNKNOWN_CODE) => 404,
                    _ => 200,
                };
                let _ = write!(stream, "HTTP/1.1 {} Text\r\n\r\n", status.unwrap_or(usual));
            }
        });
        Self { address }
    }

    pub(crate) fn beside(&self, stable: &Self) -> Entrances {
        Entrances { canary: self.address.clone(), stable: stable.address.clone() }
    }
}

fn after_rounds(canary: Option<u16>, stable: Option<u16>) -> NginxCheck {
    let mut check = NginxCheck::new(Nginx::start(canary).beside(&Nginx::start(stable)));
    while !check.is_enough() {
        check.round();
    }
    check
}

#[test]
fn pods_that_fail_alone_are_a_fault_and_those_that_fail_with_the_others_are_not() {
    let limits = Limits::default();
    let broken = after_rounds(Some(502), None);
    assert!(broken.fault(&limits).unwrap().starts_with("10 of 10 rounds"), "{broken:?}");
    assert!(broken.hard_fault(&limits).unwrap().contains("against 0 of 10"), "{broken:?}");
    for (canary, stable) in [(None, None), (Some(503), Some(503)), (None, Some(502))] {
        let check = after_rounds(canary, stable);
        assert_eq!((check.fault(&limits), check.hard_fault(&limits)), (None, None), "{check:?}");
    }
}

#[test]
fn a_service_without_pods_is_a_failure() {
    let stable = Nginx::start(None);
    let mut check = NginxCheck::new(Entrances {
        canary: "nginx-canary.invalid:8080".to_owned(),
        stable: stable.address,
    });
    check.round();
    assert_eq!(check.canary, Sample { bad: 1, all: 1 });
    assert!(check.failure.unwrap().contains("has no address"));
}
