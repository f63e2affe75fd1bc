//! The short form of `make test-kill`.

use linnet_system_tests::kill_cycles::{run_round, run_tampered_round};
use rand::RngExt;

/// A round takes about a minute on an idle machine.
const CYCLES: u64 = 15;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_07_must_17_no_acknowledged_write_is_lost_when_random_processes_are_killed() {
    let seed = rand::rng().random();
    eprintln!("seed {seed}");
    let totals = run_round(seed, CYCLES).await;
    eprintln!("{totals:?}");
    assert!(totals.violations.is_empty(), "seed {seed}: {:#?}", totals.violations);
    assert!(totals.writes > 0 && totals.clicks > 0 && totals.checked_reads > 0, "{totals:?}");
}

/// The comparison itself: each kind of damage is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comparison_of_a_round_finds_every_kind_of_damage() {
    let totals = run_tampered_round(7, 1, async |stack| {
        let damage = "
            -- A lost creation or edit, and one that was executed twice.
            UPDATE urls SET original_url = 'https://example.com/k/lost/1'
             WHERE id = (SELECT min(id) FROM urls WHERE original_url LIKE '%w0n%' AND max_clicks IS NULL);
            INSERT INTO events (url_id, user_id, event_type)
            SELECT url_id, user_id, event_type FROM events
             WHERE event_type = 'created' AND details::text LIKE '%w2n%' LIMIT 1;
            INSERT INTO urls (short_code, original_url)
            SELECT 'twice', original_url FROM urls WHERE original_url LIKE '%w1n%' LIMIT 1;
            -- A lost job, and one whose rows are not all written.
            DELETE FROM jobs WHERE id = (SELECT min(id) FROM jobs);
            DELETE FROM urls WHERE id = (SELECT max(id) FROM urls WHERE short_code LIKE 'i%r%');
            -- Lost clicks of one link.
            DELETE FROM raw_clicks WHERE url_id = (SELECT min(url_id) FROM raw_clicks);
        ";
        sqlx::raw_sql(damage).execute(&mut stack.database().await).await.unwrap();
    })
    .await;
    let found = totals.violations.join("\n");
    for kind in [
        "lost write",
        "events of",
        "import ",
        "links, ",
        "clicks of",
        "raw clicks, hours",
        "links of one creation",
    ] {
        assert!(found.contains(kind), "{kind}: {found}");
    }
}
