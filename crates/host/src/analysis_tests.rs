use super::*;
use crate::{
    nginx_check::tests::Nginx,
    pods::tests::{GATEWAY, Server, shortener},
};

fn step(weight: u64) -> Analysis {
    Analysis { color: Color::Green, weight, bake_seconds: 0, longest_bake_seconds: 0 }
}

/// The verdict on a color with so many redirects and errors after its first look, against 1,000 redirects of the old one.
fn verdict(redirects: u64, errors: u64, synthetic: Sample) -> Result<String, HostError> {
    verdict_with(&Nginx::start(None), redirects, errors, synthetic)
}

/// The same with new pods of nginx.
fn verdict_with(
    nginx: &Nginx,
    redirects: u64,
    errors: u64,
    synthetic: Sample,
) -> Result<String, HostError> {
    let stable = Nginx::start(None);
    let mut nginx = NginxCheck::new(nginx.beside(&stable));
    let servers = [GATEWAY, &shortener(50, 0, 5), GATEWAY, &shortener(50, 0, 5)].map(Server::start);
    let names = |gateway: &Server, shortener: &Server| Names {
        gateway: gateway.address.clone(),
        shortener: shortener.address.clone(),
    };
    let mut new = Pods::new(names(&servers[0], &servers[1]), false);
    let mut old = Pods::new(names(&servers[2], &servers[3]), false);
    // The first look is the base.
    assert!(new.look().counters.is_some() && old.look().counters.is_some());
    servers[1].returns(Some(&shortener(50 + redirects, errors, 5)));
    servers[3].returns(Some(&shortener(1050, 0, 5)));
    step(10).watch(&mut new, &mut old, &mut nginx, &|| (synthetic, Some("refused".to_owned())))
}

#[test]
fn nginx_that_fails_every_request_returns_although_both_colors_are_well() {
    let error = verdict_with(&Nginx::start(Some(502)), 110, 0, Sample::default()).unwrap_err();
    assert!(error.to_string().contains("requests through nginx's new pods failed"), "{error}");
    assert!(error.to_string().contains("/health returned 502 instead of 200"), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn bad_release_returns_and_good_release_continues() {
    let none = Sample::default();
    assert!(verdict(110, 0, none).unwrap().contains("110 redirects"));
    let error = verdict(104, 6, none).unwrap_err();
    assert!(error.to_string().contains("6 of 110 redirects failed"), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn quiet_release_is_judged_by_synthetic_requests() {
    let passed = Sample { bad: 0, all: 10 };
    assert!(verdict(3, 0, passed).unwrap().contains("10 synthetic requests passed"));
    let error = verdict(3, 0, Sample { bad: 1, all: 10 }).unwrap_err();
    assert!(
        error.to_string().contains("1 of 10 synthetic requests failed, the first because refused"),
        "{error}"
    );
}

#[test]
fn options_name_a_color_and_a_weight() {
    let parsed = Analysis::parse(&["--color=green", "--weight=50", "--bake-seconds=90"]).unwrap();
    assert_eq!(
        parsed,
        Analysis { color: Color::Green, weight: 50, bake_seconds: 90, longest_bake_seconds: 90 }
    );
    for wrong in [
        &["--color=green"][..],
        &["--weight=10"],
        &["--color=red", "--weight=10"],
        &["--color=blue", "--weight=0"],
        &["--color=blue", "--weight=101"],
        &["--color=blue", "--weight=10", "--bake-seconds=soon"],
        &["--color=blue", "--weight=10", "--other=1"],
        &["--color", "blue"],
    ] {
        assert_eq!(Analysis::parse(wrong).unwrap_err().exit_code(), 64, "{wrong:?}");
    }
}

#[test]
fn expected_requests_are_the_weight_of_those_of_the_old_color() {
    let mut old = Counters::default();
    old.add(&shortener(900, 0, 5), crate::counters::Process::Shortener);
    let later = Duration::from_secs(20);
    assert_eq!(step(10).expected(Some(&old), later), [100, 0]);
    assert_eq!(step(50).expected(Some(&old), later), [900, 0]);
    assert_eq!(step(100).expected(Some(&old), later), [0, 0]);
    assert_eq!(step(10).expected(Some(&old), Duration::from_secs(9)), [0, 0]);
}
