//! Names of attributes and metrics are those of OpenTelemetry's registry of semantic conventions, as published in the crate
//! `opentelemetry-semantic-conventions`. The test reads the source files, so it also checks names that are added later.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path};

use opentelemetry_semantic_conventions::{SCHEMA_URL, attribute, metric};

/// The registry's names in the namespaces that Linnet uses.
const REGISTRY: [&str; 14] = [
    attribute::DB_OPERATION_NAME,
    attribute::DB_RESPONSE_STATUS_CODE,
    attribute::DB_SYSTEM_NAME,
    attribute::ERROR_TYPE,
    attribute::HTTP_REQUEST_METHOD,
    attribute::HTTP_RESPONSE_STATUS_CODE,
    attribute::HTTP_ROUTE,
    attribute::SERVICE_NAME,
    attribute::SERVICE_VERSION,
    attribute::URL_PATH,
    attribute::URL_SCHEME,
    metric::HTTP_SERVER_ACTIVE_REQUESTS,
    metric::HTTP_SERVER_REQUEST_DURATION,
    metric::DB_CLIENT_OPERATION_DURATION,
];

/// Names that no registry has: fields of tracing-opentelemetry and of log lines, a setting, and a field of a struct.
const OWN: [&str; 7] = [
    "otel.name",
    "otel.kind",
    "otel.status_code",
    "db.queries",
    "db.time_ms",
    "service.token",
    "error.field",
];

/// The namespaces in which a name must be registered.
const NAMESPACES: [&str; 7] = ["db", "error", "http", "otel", "server", "service", "url"];

fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            text.push_str(source.split("#[cfg(test)]").next().unwrap());
        }
    }
}

/// Names of fields of spans (`a.b = …`) and of attributes of metrics (`"a.b"`).
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        for (start, _) in line.match_indices(is_name) {
            if start > 0 && line[..start].ends_with(|c: char| is_name(c) || c.is_alphanumeric()) {
                continue;
            }
            let rest = &line[start..];
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (name, after) = (&rest[..end], &rest[end..]);
            let is_quoted = line[..start].ends_with('"') && after.starts_with('"');
            let is_field = after.starts_with(" = ") && start == 0;
            let namespace = name.split('.').next().unwrap();
            if name.contains('.') && NAMESPACES.contains(&namespace) && (is_quoted || is_field) {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

#[test]
fn attributes_and_metrics_have_the_names_of_the_registry() {
    let mut text = String::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for owner in ["telemetry", "gateway", "resolve", "store", "shortener", "platform", "worker"] {
        sources(&crates.join(owner).join("src"), &mut text);
    }
    let used = names(&text);
    for wanted in [
        "url.scheme",
        "url.path",
        "error.type",
        "http.route",
        "db.system.name",
        "http.server.request.duration",
    ] {
        assert!(used.contains(wanted), "{wanted} is not found: {used:?}");
    }
    let known: BTreeSet<_> = REGISTRY.iter().chain(&OWN).map(|name| (*name).to_owned()).collect();
    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "not in the registry: {unknown:?}");
    println!("checked against {SCHEMA_URL}");
}
