//! Kills random processes under load and checks that nothing acknowledged is lost (`make test-kill`).
//!
//! `linnet-kill-cycles STATE_FILE CYCLES [SEED]`
//!
//! The state file keeps the totals after each round. A run that was interrupted continues there when it is started
//! again with the same file; cycles of the unfinished round are repeated. Exits with 1 if it finds a violation.

use std::{path::Path, process::ExitCode};

use linnet_system_tests::kill_cycles::{Totals, run_round};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Cycles of one round.
const CYCLES_PER_ROUND: u64 = 25;

#[derive(Serialize, Deserialize)]
struct State {
    seed: u64,
    rounds: u64,
    totals: Totals,
}

fn load(path: &Path, seed: Option<u64>) -> State {
    let text = std::fs::read_to_string(path).ok();
    let state = text.map(|text| serde_json::from_str(&text).expect("a state file of this program"));
    state.unwrap_or_else(|| State {
        seed: seed.unwrap_or_else(|| rand::rng().random()),
        rounds: 0,
        totals: Totals::default(),
    })
}

fn save(path: &Path, state: &State) {
    let text = serde_json::to_string_pretty(state).expect("a state");
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).expect("a writable folder");
    std::fs::rename(&fresh, path).expect("a writable folder");
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let usage = "linnet-kill-cycles STATE_FILE CYCLES [SEED]";
    let path = args.next().expect(usage);
    let path = Path::new(&path);
    let cycles: u64 = args.next().and_then(|text| text.parse().ok()).expect(usage);
    let seed = args.next().map(|text| text.parse().expect(usage));
    let mut state = load(path, seed);
    println!("seed {}, {} of {cycles} cycles are done", state.seed, state.totals.cycles);
    while state.totals.cycles < cycles {
        let seed = state.seed.wrapping_add(state.rounds);
        let round = CYCLES_PER_ROUND.min(cycles - state.totals.cycles);
        let totals = run_round(seed, round).await;
        state.totals.add(&totals);
        state.rounds += 1;
        save(path, &state);
        println!("{}", serde_json::to_string(&totals).expect("totals"));
    }
    println!("{}", serde_json::to_string_pretty(&state.totals).expect("totals"));
    ExitCode::from(u8::from(!state.totals.violations.is_empty()))
}
