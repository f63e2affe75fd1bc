//! The program of `make fuzz`: libFuzzer with the target that `LINNET_FUZZ_TARGET` names.
//!
//! All targets are one program, because linking takes longer than many targets need to run. Without a name, the program
//! lists the targets with the lengths of their longest inputs.

#![no_main]

use std::{env, process::exit, sync::OnceLock};

use libfuzzer_sys::fuzz_target;
use linnet_fuzz::{TARGETS, Target, find};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn select() {
    let name = env::var("LINNET_FUZZ_TARGET").unwrap_or_default();
    if name.is_empty() {
        for target in TARGETS {
            println!("{} {}", target.name, target.max_len);
        }
        exit(0);
    }
    let Some(target) = find(&name) else {
        eprintln!("LINNET_FUZZ_TARGET names no target: {name}");
        exit(64);
    };
    // Builds the tables and caches that are built once, so that their memory does not count for an input.
    (target.run)(b"");
    TARGET.get_or_init(|| target);
}

fuzz_target!(init: select(), |input: &[u8]| {
    if let Some(target) = TARGET.get() {
        (target.run)(input);
    }
});
