//! Figures in `docs/ARCHITECTURE.md` and the decision records equal those of the code.
//!
//! - Settings are compared by their defaults. Constants are compared by the text of the sources, because they are
//!   private to their modules. A test fails when a constant is renamed or moved to another crate.
//! - A phrase must be in its section word for word; line breaks count as blanks.
//! - A test of `crates/worker` compares the table of maintenance tasks, and `scripts/lint modules` the order of crates.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use linnet_domain::{CODE_ALPHABET, GENERATED_CODE_LENGTH};
use linnet_platform::{exit_code, settings::ShutdownSettings};
use linnet_resolve::CacheSettings;
use linnet_system_tests::{CONTAINER_LIMITS, CONTAINER_NGINX, CONTAINER_SETTINGS};

const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";

#[test]
fn cache_consistency_table_has_the_constants_of_the_code() {
    let expected = [
        ("heartbeat interval of the invalidation bus", "platform", "HEARTBEAT_EVERY"),
        ("heartbeat age at which the bus is stale", "platform", "STALE_AFTER"),
        ("longest life of an L1 entry while the bus is stale", "resolve", "STALE_TTL"),
        ("the same for an entry that was read from L2", "resolve", "STALE_TTL_FROM_L2"),
        ("longest life of a cached API key while the bus is stale", "gateway", "STALE_TTL"),
        ("longest interval between two polls of the outbox", "resolve", "POLL_EVERY"),
        ("age at which the relay publishes an outbox row", "resolve", "MIN_AGE"),
        ("probe interval of a Redis client", "platform", "PROBE_EVERY"),
        ("lease of a Redis master that a majority names", "platform", "LEASE"),
        ("longest wait of a reconnected Redis client for the outbox", "resolve", "RELAY_TIMEOUT"),
        ("failure of PostgreSQL after which it does not wait", "resolve", "POSTGRES_TIMEOUT"),
        ("longest wait of a change that could not be published", "resolve", "PUBLISH_TIMEOUT"),
    ]
    .map(|(row, owner, name)| (row.to_owned(), shown(duration(owner, name))));
    let section = Section::read(ARCHITECTURE, "## Cache consistency");
    let rows = section.rows("constant").into_iter();
    let rows = rows.map(|cells| <[String; 2]>::try_from(cells).expect("two cells").into());
    assert_eq!(rows.collect::<Vec<(String, String)>>(), expected);
}

/// `docs/ARCHITECTURE.md`, "Why the bound is 1 s": the longest time that each case takes.
#[test]
fn constants_keep_the_bound_of_one_second() {
    let bound = Duration::from_secs(1);
    // Cases 3, 5 and 7: an entry that was read before the change, while the bus is stale.
    assert!(duration("resolve", "STALE_TTL") < bound);
    // The same for an entry of L2, which lacks a change until a relay publishes it.
    let unpublished = duration("resolve", "MIN_AGE") + duration("resolve", "POLL_EVERY");
    assert!(
        duration("resolve", "STALE_TTL_FROM_L2") + unpublished < duration("resolve", "STALE_TTL")
    );
    // Cases 2 and 5: the bus becomes stale, and L1 is flushed.
    assert!(duration("platform", "STALE_AFTER") < bound);
    // Case 4: the row's age and the next poll, and the same time again for two statements.
    assert!((duration("resolve", "MIN_AGE") + duration("resolve", "POLL_EVERY")) * 2 < bound);
    // A single lost heartbeat does not make the bus stale.
    assert!(duration("platform", "HEARTBEAT_EVERY") * 2 < duration("platform", "STALE_AFTER"));
    // A cached API key is dropped within the bound.
    assert!(duration("gateway", "STALE_TTL") <= bound);
}

#[test]
fn cache_sections_state_the_figures_of_the_code() {
    let cache = CacheSettings::default();
    let digits = number("resolve", "DIGITS");
    let l1 = Section::read(ARCHITECTURE, "### L1: tickets and epochs");
    l1.states(&format!("{} slots", grouped(number("resolve", "EPOCH_SLOTS"))));
    l1.states(&format!("at most {}, for at most", number("resolve", "PLACES")));
    l1.states(&format!("for at most {} or until", shown(duration("resolve", "RECHECK"))));
    l1.states(&format!("A link lives {} ± 10 %", shown(Duration::from_millis(cache.l1_ttl_ms))));
    l1.states(&format!(
        "a negative entry {}",
        shown(Duration::from_millis(cache.l1_negative_ttl_ms))
    ));

    let l2 = Section::read(ARCHITECTURE, "### L2: compare and set");
    l2.states(&format!("{digits} decimal digits"));
    l2.states(&format!("A link lives {} ± 10 %", shown(Duration::from_secs(cache.l2_ttl_s))));
    l2.states(&format!("a negative entry {} s", cache.l2_negative_ttl_s));
    Section::read("docs/adr/003-versions-from-one-sequence.md", "## Consequences")
        .states(&format!("{digits} decimal digits"));

    let bus = Section::read(ARCHITECTURE, "### Invalidation bus");
    bus.states(&format!("every {} it publishes", shown(duration("platform", "HEARTBEAT_EVERY"))));
    bus.states(&format!("within {}", shown(duration("platform", "STALE_AFTER"))));
    bus.states(&format!("live at most {}", shown(duration("resolve", "STALE_TTL"))));
    bus.states(&format!("with {} instead of", shown(duration("gateway", "STALE_TTL"))));

    // Intervals are jittered: half to all of the base.
    let (poll, age) = (duration("resolve", "POLL_EVERY"), duration("resolve", "MIN_AGE"));
    Section::read(ARCHITECTURE, "### Outbox").states(&format!(
        "every {} to {} for rows older than {}",
        (poll / 2).as_millis(),
        shown(poll),
        shown(age)
    ));
    let reconnecting = Section::read(ARCHITECTURE, "### Reconnecting to Redis");
    reconnecting.states(&format!("in batches of {}", grouped(number("resolve", "BATCH"))));
    reconnecting.states(&format!("at most {}", shown(duration("resolve", "RELAY_TIMEOUT"))));
}

/// The Lua script of L2 reads the version that an entry begins with, and the letter after it.
#[test]
fn script_of_l2_reads_as_many_digits_as_an_entry_has() {
    let digits = number("resolve", "DIGITS");
    let script = sources("resolve").join("\n");
    assert!(script.contains(&format!("'GETRANGE', key, 0, {digits}")));
    assert!(script.contains(&format!("string.sub(current, 1, {digits})")));
    assert!(script.contains(&format!("string.sub(entry, {0}, {0})", digits + 1)));
    assert!(script.contains(&format!("string.sub(entry, 1, {digits})")));
}

#[test]
fn number_of_generated_codes_is_documented() {
    let letters = u64::try_from(CODE_ALPHABET.len()).unwrap();
    let length = u32::try_from(GENERATED_CODE_LENGTH).unwrap();
    let trillions = letters.pow(length) as f64 / 1e12;
    Section::read(ARCHITECTURE, "### Outbox")
        .states(&format!("{trillions:.1} trillion ({letters}^{length})"));
    // With a million links, one guess in this number of millions finds a link.
    Section::read("docs/adr/009-over-budget-is-429-for-hits-too.md", "## Consequences")
        .states(&format!("one guess in {trillions:.1} million hits"));
}

#[test]
fn delivery_table_names_registered_metrics_and_every_reason_of_a_drop() {
    let delivery = Section::read(ARCHITECTURE, "### Delivery of clicks");
    let clicks = sources("clicks").join("\n");
    let (mut names, mut reasons) = (BTreeSet::new(), BTreeSet::new());
    for cells in delivery.rows("what happens") {
        for span in cells.last().expect("a cell").split('`').filter(|s| s.starts_with("linnet_")) {
            let (name, labels) = span.split_once('{').unwrap_or((span, ""));
            names.insert(name.to_owned());
            reasons.extend(
                labels
                    .strip_suffix("\"}")
                    .and_then(|rest| rest.strip_prefix("reason=\""))
                    .map(str::to_owned),
            );
        }
    }
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        // The exporter appends the unit and `_total`.
        let registered = name.trim_end_matches("_total").trim_end_matches("_seconds");
        assert!(clicks.contains(&format!("\"{registered}\"")), "no code registers {name}");
    }
    let registered = clicks
        .split("dropped(\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(reason, _)| reason.to_owned())
        .collect::<BTreeSet<String>>();
    assert_eq!(reasons, registered, "reasons in the document, in the code");
}

#[test]
fn streams_are_named_as_in_the_code() {
    let pipeline = Section::read(ARCHITECTURE, "## Click pipeline");
    pipeline.states(&format!("`{}`", linnet_clicks::DEAD_LETTERS));
    let jobs = Section::read(ARCHITECTURE, "## Bulk jobs");
    let code = sources("jobs").join("\n");
    let names: BTreeSet<&str> = code
        .split('"')
        .filter(|text| text.starts_with("linnet:jobs:") && !text.contains(char::is_whitespace))
        .collect();
    assert_eq!(names.len(), 2, "one stream for each lane: {names:?}");
    for name in names {
        jobs.states(&format!("`{name}`"));
    }
}

#[test]
fn startup_and_shutdown_state_the_figures_of_the_code() {
    let cache = CacheSettings::default();
    let startup = Section::read(ARCHITECTURE, "### Startup");
    startup.states(&format!("exit code {}", exit_code::BAD_CONFIGURATION));
    startup.states(&shown(Duration::from_millis(cache.warmup_ms)));
    Section::read(ARCHITECTURE, "### Threads, pools and Redis clients")
        .states(&format!("exits with {}", exit_code::TASK_ENDED));

    let settings = ShutdownSettings::default();
    let shutdown = Section::read(ARCHITECTURE, "### Shutdown");
    let drain = shown(Duration::from_millis(settings.drain_ms));
    shutdown.states(&format!("After {drain} (`shutdown.drain_ms`)"));
    let grace = shown(Duration::from_secs(settings.grace_s));
    shutdown.states(&format!("get {grace} (`shutdown.grace_s`)"));
    let flush = shown(duration("clicks", "LAST_FLUSH"));
    shutdown.states(&format!("the stream or the spool (at most {flush})"));
    let close = shown(duration("worker", "CLOSE_TIMEOUT"));
    shutdown.states(&format!("pools close (at most {close})"));
    let telemetry =
        duration("telemetry", "SPAN_FLUSH_TIMEOUT") + duration("telemetry", "LOG_FLUSH_TIMEOUT");
    shutdown.states(&format!("logs and spans are flushed (at most {})", shown(telemetry)));
}

/// Row 31 of GUARANTEES: no process leaves a core dump, the stores included.
#[test]
fn must_31_containers_and_units_forbid_core_dumps() {
    let compose = fs::read_to_string(root().join("deploy/compose.yaml")).unwrap();
    let (_, base) = compose.split_once("\nx-service: &service\n").unwrap();
    let (base, _) = base.split_once("\n\n").unwrap();
    assert!(base.contains("\n  ulimits: {nofile: {soft: 16384, hard: 16384}, core: 1}"), "{base}");
    assert_eq!(compose.matches("ulimits:").count(), 1, "a service has limits of its own");
    let (_, services) = compose.split_once("\nservices:\n").unwrap();
    let (services, _) = services.split_once("\nnetworks:\n").unwrap();
    let names = services.lines().filter(|line| {
        line.starts_with("  ") && !line.starts_with("   ") && !line.trim_start().starts_with('#')
    });
    let merges = services.lines().filter(|line| line.starts_with("    <<: *"));
    assert_eq!(merges.count(), names.count(), "each service has the limits of `x-service`");
    for name in ["observer", "shortener", "colored-gateway", "colored-shortener"] {
        let base = if name == "colored-shortener" { "shortener" } else { "service" };
        let block = format!("\nx-{name}: &{name}\n  <<: *{base}\n");
        assert!(compose.contains(&block), "{name}");
    }
    for unit in ["gateway", "shortener", "worker", "migrate"] {
        let unit = format!("deploy/systemd/linnet-{unit}.service");
        let text = fs::read_to_string(root().join(&unit)).unwrap();
        assert!(text.lines().any(|line| line == "LimitCORE=1"), "{unit}");
    }
}

/// Tests that run processes in the containers' limits use what `deploy/compose.yaml` sets.
#[test]
fn limits_and_settings_of_containers_are_those_of_the_compose_file() {
    let compose = fs::read_to_string(root().join("deploy/compose.yaml")).unwrap();
    let sets = |(key, value): &(_, _)| compose.contains(&format!("{key}: \"{value}\"\n"));
    assert!(CONTAINER_SETTINGS.iter().chain(&CONTAINER_NGINX[1..]).all(sets));
    assert!(compose.contains(&format!("worker_processes {};", CONTAINER_NGINX[0].1)));
    let limits = CONTAINER_LIMITS;
    for (start, bytes) in [
        ("\n  nginx:\n", limits.nginx),
        ("\nx-colored-gateway: ", limits.gateway),
        ("\nx-colored-shortener: ", limits.shortener),
        ("\n  worker:\n", limits.worker),
    ] {
        let (_, block) = compose.split_once(start).expect("the service");
        let (_, rest) = block.split_once(" mem_limit: ").expect("its limit");
        let mib: u64 = rest.split_once('m').and_then(|(mib, _)| mib.parse().ok()).expect("MiB");
        assert_eq!(bytes, Some(mib * 1024 * 1024), "{start}");
    }
}

#[test]
fn durations_and_numbers_are_read_from_sources() {
    let source = "/// Doc.\nconst A: Duration = Duration::from_millis(1_500);\npub(crate) const B: usize =\n    4 * 1_024;";
    assert_eq!(declared(source, "A"), ["Duration::from_millis(1_500)"]);
    assert_eq!(declared(source, "B"), ["4 * 1_024"]);
    assert_eq!(declared(source, "C"), [""; 0]);
    assert_eq!(parsed_duration("Duration::from_millis(1_500)"), Some(Duration::from_millis(1_500)));
    assert_eq!(parsed_duration("OTHER"), None);
    assert_eq!(parsed_number("4 * 1_024"), Some(4_096));
    assert_eq!(shown(Duration::from_millis(2_500)), "2.5 s");
    assert_eq!(shown(Duration::from_mins(10)), "10 min");
    assert_eq!(shown(Duration::from_hours(24)), "24 h");
    assert_eq!(grouped(1_024), "1,024");
}

/// A part of a document, from its heading to the next one of the same or a higher level.
struct Section {
    place: String,
    text: String,
}

impl Section {
    fn read(document: &str, heading: &str) -> Self {
        let text = fs::read_to_string(root().join(document)).expect(document);
        let level = heading.bytes().take_while(|byte| *byte == b'#').count();
        let mut lines = text.lines().skip_while(|line| *line != heading).peekable();
        assert!(lines.peek().is_some(), "{document} has no section `{heading}`");
        let ends = |line: &&str| {
            let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
            (1..=level).contains(&hashes)
        };
        let text = lines.skip(1).take_while(|line| !ends(line)).collect::<Vec<_>>().join("\n");
        Self { place: format!("{document}, `{heading}`"), text }
    }

    #[track_caller]
    fn states(&self, phrase: &str) {
        let words = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(phrase), "{} must state \"{phrase}\"", self.place);
    }

    /// The cells of each row of the table whose first column is named `first`.
    fn rows(&self, first: &str) -> Vec<Vec<String>> {
        let head = format!("| {first} |");
        let mut lines = self.text.lines().skip_while(|line| !line.starts_with(&head)).skip(2);
        let rows: Vec<_> = lines
            .by_ref()
            .take_while(|line| line.starts_with('|'))
            .map(|line| {
                let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
                inner.split('|').map(|cell| cell.trim().to_owned()).collect()
            })
            .collect();
        assert!(!rows.is_empty(), "{} has no table `{head}`", self.place);
        rows
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The sources of a crate, without its tests folder.
fn sources(owner: &str) -> Vec<String> {
    fn collect(folder: &Path, texts: &mut Vec<String>) {
        for entry in fs::read_dir(folder).expect("a crate's folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, texts);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.push(fs::read_to_string(path).expect("a source"));
            }
        }
    }
    let mut texts = Vec::new();
    collect(&root().join("crates").join(owner).join("src"), &mut texts);
    texts
}

/// The expressions of the constants of this name in a source.
fn declared<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
    source
        .split(&format!("const {name}:"))
        .skip(1)
        .filter_map(|rest| rest.split_once(';')?.0.split_once('='))
        .map(|(_, expression)| expression.trim())
        .collect()
}

/// The one constant of this name in a crate, as `parse` reads it.
#[track_caller]
fn constant<T>(owner: &str, name: &str, parse: impl Fn(&str) -> Option<T>) -> T {
    let sources = sources(owner);
    let found: Vec<&str> = sources.iter().flat_map(|source| declared(source, name)).collect();
    let [expression] = found.as_slice() else {
        panic!("crates/{owner}/src declares {} constants `{name}`", found.len());
    };
    parse(expression).unwrap_or_else(|| panic!("crates/{owner}/src: `{name}` = {expression}"))
}

#[track_caller]
fn duration(owner: &str, name: &str) -> Duration {
    constant(owner, name, parsed_duration)
}

#[track_caller]
fn number(owner: &str, name: &str) -> u64 {
    constant(owner, name, parsed_number)
}

fn parsed_duration(expression: &str) -> Option<Duration> {
    let (unit, amount) =
        expression.strip_prefix("Duration::from_")?.strip_suffix(')')?.split_once('(')?;
    let amount = parsed_number(amount)?;
    match unit {
        "millis" => Some(Duration::from_millis(amount)),
        "secs" => Some(Duration::from_secs(amount)),
        "mins" => Some(Duration::from_mins(amount)),
        "hours" => Some(Duration::from_hours(amount)),
        _ => None,
    }
}

/// A number, or a product of numbers.
fn parsed_number(expression: &str) -> Option<u64> {
    let factors = expression.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>());
    factors.collect::<Result<Vec<_>, _>>().ok().map(|factors| factors.iter().product())
}

/// A duration as documents write it: `150 ms`, `2.5 s`, `10 min`, `24 h`.
fn shown(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms < 1_000 => format!("{ms} ms"),
        ms if ms < 60_000 => format!("{} s", duration.as_secs_f64()),
        ms if ms < 3_600_000 => format!("{} min", duration.as_secs_f64() / 60.0),
        _ => format!("{} h", duration.as_secs_f64() / 3_600.0),
    }
}

/// A number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
