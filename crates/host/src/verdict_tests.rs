//! Tests of the verdict: each rule decides, and stays silent just below its bound.

use super::*;
use crate::counters::REDIRECT;

/// A route with `all` requests, of which `slow` took between 25 ms and 250 ms and the rest less than 5 ms.
fn route(all: u64, errors: u64, not_found: u64, slow: u64) -> RouteCounters {
    let within =
        [(500, 0), (5_000, all - slow), (25_000, all - slow), (50_000, all - slow), (250_000, all)];
    RouteCounters { all, errors, not_found, timed: all, within: within.into_iter().collect() }
}

fn counters(redirects: RouteCounters, api: RouteCounters) -> Counters {
    let routes = [(REDIRECT.to_owned(), redirects), ("/api/v1/urls".to_owned(), api)];
    Counters { routes: routes.into_iter().collect(), ..Counters::default() }
}

fn healthy(all: u64) -> Counters {
    counters(route(all, 0, all / 50, 0), route(all / 10, 0, 0, 0))
}

/// The end of a step with 10 % of the requests.
fn end(canary: Counters) -> Observation {
    Observation {
        canary: Some(canary),
        reference: Some(healthy(1800)),
        least_requests: 100,
        phase: Phase::Ripe,
        ..Observation::default()
    }
}

fn verdict(seen: &Observation) -> Verdict {
    decide(seen, &Limits::default())
}

fn assert_back(seen: &Observation, reason: &str) {
    let found = verdict(seen);
    assert!(matches!(&found, Verdict::Back(text) if text.contains(reason)), "{found:?}");
}

#[test]
fn healthy_canary_continues_with_its_counts_as_the_reason() {
    let found = verdict(&end(healthy(200)));
    assert_eq!(found, Verdict::Go("200 redirects and 20 API requests, 0 errors".to_owned()));
    assert_eq!((found.word(), found.reason().is_empty()), ("go", false));
}

#[test]
fn before_the_end_of_the_step_it_waits() {
    let seen = Observation { phase: Phase::Early, ..end(healthy(2000)) };
    assert!(matches!(verdict(&seen), Verdict::Wait(_)));
}

#[test]
fn too_few_requests_wait_then_need_synthetic_ones_then_pass() {
    let seen = end(healthy(50));
    assert!(matches!(verdict(&seen), Verdict::Wait(_)));
    let seen = Observation { phase: Phase::Overdue, ..seen };
    assert!(matches!(verdict(&seen), Verdict::Inconclusive(_)));
    let passed = Observation { synthetic: Some(Sample { bad: 0, all: 60 }), ..seen.clone() };
    assert!(matches!(verdict(&passed), Verdict::Go(text) if text.contains("60 synthetic")));
    let failed = Observation { synthetic: Some(Sample { bad: 1, all: 60 }), ..seen };
    assert_back(&failed, "1 of 60 synthetic requests failed");
}

#[test]
fn missing_counters_are_a_verdict_of_their_own() {
    let seen = Observation { canary: None, ..end(healthy(200)) };
    assert!(matches!(verdict(&seen), Verdict::NoData(text) if text.contains("new color")));
    let seen = Observation { reference: None, ..end(healthy(200)) };
    assert!(matches!(verdict(&seen), Verdict::NoData(text) if text.contains("old color")));
}

#[test]
fn must_34_crashes_end_a_step_at_any_time_even_without_counters() {
    let early = Observation { phase: Phase::Early, canary: None, ..Observation::default() };
    assert_back(&Observation { restarts: 1, ..early.clone() }, "a process of the new color ended");
    assert_back(&Observation { is_out_of_memory: true, ..early.clone() }, "for its memory");
    assert_back(&Observation { memory_share: 0.98, ..early }, "98 % of its memory");
}

#[test]
fn must_34_most_requests_failing_end_a_step_at_once() {
    let early = |errors| Observation {
        phase: Phase::Early,
        ..end(counters(route(20, errors, 0, 0), route(0, 0, 0, 0)))
    };
    assert_back(&early(5), "5 of 20 redirects failed");
    assert!(matches!(verdict(&early(4)), Verdict::Wait(_)));
}

#[test]
fn must_34_api_errors_are_not_hidden_by_redirects() {
    let seen = end(counters(route(5000, 0, 100, 0), route(40, 4, 0, 0)));
    assert_back(&seen, "4 of 40 API requests failed, against 0 of 180");
}

#[test]
fn errors_that_the_old_color_has_as_well_are_no_reason() {
    let reference = counters(route(18_000, 90, 360, 0), route(1800, 0, 0, 0));
    let seen = Observation {
        reference: Some(reference),
        ..end(counters(route(2000, 14, 40, 0), route(200, 0, 0, 0)))
    };
    assert!(matches!(verdict(&seen), Verdict::Go(_)), "{:?}", verdict(&seen));
    let seen =
        Observation { canary: Some(counters(route(2000, 21, 40, 0), route(200, 0, 0, 0))), ..seen };
    assert_back(&seen, "21 of 2000 redirects failed");
}

#[test]
fn two_errors_are_never_enough() {
    let seen = end(counters(route(100, 2, 2, 0), route(10, 0, 0, 0)));
    assert!(matches!(verdict(&seen), Verdict::Go(_)));
}

#[test]
fn must_34_not_found_for_all_codes_is_noticed() {
    assert_back(
        &end(counters(route(150, 0, 150, 0), route(10, 0, 0, 0))),
        "150 of 150 redirects were 404, against 36 of 1800",
    );
    let seen = end(counters(route(200, 0, 8, 0), route(10, 0, 0, 0)));
    assert!(matches!(verdict(&seen), Verdict::Go(_)));
}

#[test]
fn must_34_slow_route_is_noticed_beside_a_fast_one() {
    assert_back(
        &end(counters(route(5000, 0, 100, 0), route(60, 0, 0, 20))),
        "20 of 60 requests to /api/v1/urls took longer than 25 ms",
    );
    let seen = end(counters(route(200, 0, 4, 4), route(20, 0, 0, 0)));
    assert!(matches!(verdict(&seen), Verdict::Go(_)));
}

#[test]
fn pool_waits_and_dropped_clicks_are_noticed() {
    let mut canary = healthy(200);
    canary.pool_timeouts = 3;
    assert_back(&end(canary), "3 statements got no database connection");
    let mut canary = healthy(200);
    canary.dropped_clicks = 500;
    assert_back(&end(canary), "500 clicks were dropped");
}

/// With 200 equal steps, p < 0.01 would end two of them by chance; the least number of errors keeps it below.
#[test]
fn equal_colors_rarely_differ_significantly() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |requests: u64, per_mille: u64| {
        (0..requests)
            .filter(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 20) % 1000 < per_mille
            })
            .count() as u64
    };
    let mut returned = 0;
    for _ in 0..200 {
        let new = counters(route(200, draw(200, 3), draw(200, 50), 0), route(20, 0, 0, 0));
        let old = counters(route(1800, draw(1800, 3), draw(1800, 50), 0), route(180, 0, 0, 0));
        let seen = Observation { reference: Some(old), ..end(new) };
        returned += u64::from(matches!(verdict(&seen), Verdict::Back(_)));
    }
    assert!(returned <= 3, "{returned} of 200");
}

#[test]
fn color_that_nginx_cannot_reach_is_given_up_instead_of_trusted() {
    let nothing = counters(route(0, 0, 0, 0), route(0, 0, 0, 0));
    let unreachable = Observation {
        phase: Phase::Overdue,
        synthetic: Some(Sample { bad: 0, all: 10 }),
        expected: [200, 20],
        ..end(nothing)
    };
    assert_back(&unreachable, "only 0 redirects of about 200 reached the new color");
    // One of its two sockets.
    let half = Observation {
        canary: Some(counters(route(200, 0, 4, 0), route(0, 0, 0, 0))),
        expected: [200, 30],
        ..unreachable.clone()
    };
    assert_back(&half, "only 0 API requests of about 30");
    // Without traffic, synthetic requests decide.
    let quiet = Observation { expected: [29, 29], ..unreachable.clone() };
    assert!(matches!(verdict(&quiet), Verdict::Go(_)));
    let fair = Observation {
        canary: Some(counters(route(100, 0, 2, 0), route(10, 0, 0, 0))),
        ..unreachable
    };
    assert!(matches!(verdict(&fair), Verdict::Go(_)));
}

#[test]
fn silence_of_docker_is_no_reason_to_return_and_none_to_go() {
    let seen = Observation { is_docker_silent: true, ..end(healthy(200)) };
    assert!(matches!(verdict(&seen), Verdict::Wait(_)));
    let few = Observation { phase: Phase::Overdue, canary: Some(healthy(5)), ..seen.clone() };
    assert!(matches!(verdict(&few), Verdict::Wait(_)));
    let failing = counters(route(20, 10, 0, 0), route(0, 0, 0, 0));
    assert_back(&Observation { canary: Some(failing), ..seen }, "10 of 20 redirects failed");
}
