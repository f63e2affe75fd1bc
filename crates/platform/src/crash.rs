//! Keeps personal data out of what a crash leaves behind: core dumps and panic messages.
//!
//! * A core dump is the memory of the process: addresses, user agents, keys.
//! * A panic message may quote the text that a function could not handle. A message without arguments is part of the
//!   program; every other one is withheld, and the location remains.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Write as _,
    io::Write as _,
    panic::PanicHookInfo,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit of core dumps, in bytes. The kernel ignores 0 if `core_pattern` is a program; 1 prevents these dumps too.
const CORE_BYTES: u64 = 1;

/// Forbids core dumps, and withholds data from panic messages. Call it first in `main`.
pub fn withhold_data() {
    forbid_core_dumps();
    std::panic::set_hook(Box::new(|panic| {
        // Nothing else can report a failure of the standard error.
        let _ = std::io::stderr().write_all(describe(panic).as_bytes());
    }));
}

fn forbid_core_dumps() {
    let hard = getrlimit(Resource::Core).maximum.map_or(CORE_BYTES, |most| most.min(CORE_BYTES));
    // It cannot fail: a limit may always be lowered.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(hard), maximum: Some(hard) });
}

/// The lines that the standard hook writes, without data.
fn describe(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let mut text = format!("thread '{}' panicked", thread.name().unwrap_or("<unnamed>"));
    if let Some(location) = panic.location() {
        let _ = write!(text, " at {location}");
    }
    let message = panic.payload().downcast_ref::<&'static str>();
    let _ = writeln!(text, ": {}", message.unwrap_or(&"(message withheld: it may contain data)"));
    // `RUST_BACKTRACE` enables it. It contains names of functions only.
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        let _ = writeln!(text, "{trace}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{catch_unwind, set_hook, take_hook},
        sync::{Arc, Mutex},
    };

    use super::*;

    /// The text for a panic of `cause`. Other tests of this process must not panic meanwhile.
    fn text_of(cause: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let text = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&text);
        let thread = std::thread::current().id();
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if std::thread::current().id() == thread {
                *written.lock().unwrap() = describe(panic);
            }
        }));
        catch_unwind(cause).unwrap_err();
        set_hook(before);
        let text = text.lock().unwrap();
        text.clone()
    }

    #[test]
    fn must_31_panic_names_its_location_and_quotes_no_data() {
        let agent = "MarkedAgent ü/5.0";
        let cut = agent.find('ü').unwrap() + 1;
        let failed: Result<(), _> = Err(format!("203.0.113.77 sent {agent}"));
        for (text, message) in [
            (text_of(|| drop(agent[..cut].to_owned())), "withheld"),
            (text_of(|| failed.clone().unwrap()), "withheld"),
            (text_of(|| panic!("{agent}")), "withheld"),
            (text_of(|| panic!("constant")), ": constant\n"),
            (text_of(|| std::hint::black_box(None).unwrap()), "on a `None` value"),
        ] {
            assert!(text.contains(message) && text.contains(file!()), "{text}");
            assert!(!text.contains("MarkedAgent") && !text.contains("203.0.113"), "{text}");
        }
    }

    #[test]
    fn must_31_process_leaves_no_core_dump() {
        forbid_core_dumps();
        let limit = getrlimit(Resource::Core);
        assert!(limit.current.is_some_and(|bytes| bytes <= CORE_BYTES), "{limit:?}");
        assert_eq!(limit.current, limit.maximum, "the process cannot raise it again");
    }
}
