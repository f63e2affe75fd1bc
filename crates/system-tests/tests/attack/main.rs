//! Attacks an installation in memory control groups of the containers' sizes, and checks that visitors see no failure.
//!
//! * nginx, a gateway, two shorteners and a worker run with the settings and memory limits of `deploy/compose.yaml`, with
//!   a PostgreSQL and a Redis of their own.
//! * A [prober](prober) sends 200 requests for links and one edit each second, during all attacks. It must get no
//!   failure, and no target that was replaced more than a second before the request.
//! * The attacks run one after the other. No attack may end a process.
//! * `make test-attack` runs each attack at its full size (`LINNET_ATTACK=full`). Otherwise each is scaled down.
//! * Requests come from addresses in 127.0.0.0/8, one for each attacker, and go through nginx.

mod arena;
mod attacks;
mod prober;
mod report;
mod watch;

use arena::Arena;
use report::Report;

/// Rows 25, 26 and 28 of the guarantees, for everything that an attacker can send at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the whole machine for minutes: make test-attack"]
async fn must_25_attacks_within_the_memory_of_the_containers_affect_no_visitor() {
    assert!(
        linnet_system_tests::MemoryGroup::is_available(),
        "memory control groups are not available here"
    );
    let arena = Arena::start().await;
    let mut report = Report::start(&arena).await;
    if arena.is_full {
        // These fill caches and buffers, which processes keep. A second time they must take no more.
        report
            .attack("unread responses, first", attacks::connections::unread_responses(&arena))
            .await;
        report.attack("random codes, first", attacks::guesses::random_codes(&arena)).await;
        report.attack("unknown keys, first", attacks::guesses::unknown_keys(&arena)).await;
        report.attack("hostile JSON, first", attacks::json::on_every_route(&arena)).await;
        report
            .attack("unfinished heads, first", attacks::connections::unfinished_heads(&arena))
            .await;
        report
            .attack("floods of headers, first", attacks::connections::header_floods(&arena))
            .await;
        report.begin_measuring().await;
    }
    report
        .attack("large responses that are not read", attacks::connections::unread_responses(&arena))
        .await;
    report.attack("hostile JSON on every route", attacks::json::on_every_route(&arena)).await;
    report.attack("unfinished heads", attacks::connections::unfinished_heads(&arena)).await;
    report.attack("floods of headers", attacks::connections::header_floods(&arena)).await;
    report.attack("stalled bodies", attacks::connections::stalled_bodies(&arena)).await;
    report.attack("stalled streams of HTTP/2", attacks::http2::stalled_streams(&arena)).await;
    report.attack("live streams and visits", attacks::streams::live(&arena)).await;
    report.attack("exports that are read slowly", attacks::streams::slow_exports(&arena)).await;
    report.attack("uploads that are sent slowly", attacks::streams::slow_uploads(&arena)).await;
    report.attack("gzip and nesting bombs", attacks::bombs::all(&arena)).await;
    report.attack("random codes", attacks::guesses::random_codes(&arena)).await;
    report.attack("unknown keys", attacks::guesses::unknown_keys(&arena)).await;
    report.attack("a user at every quota", attacks::quotas::all(&arena)).await;
    report.finish().await;
}
