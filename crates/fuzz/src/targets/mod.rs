//! The targets, by what they read.

mod bodies;
mod clicks;
mod codes;
mod headers;
mod links;
mod rows;
mod settings;
mod stats;
mod text;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name, which is also that of its folder in `corpus/`.
    pub name: &'static str,
    /// The longest input that is tried, in bytes. It exceeds the limits of the reader where the reader has small ones.
    pub max_len: usize,
    /// Reads an input, and panics if a property does not hold.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "path", max_len: 256, run: codes::path },
    Target { name: "short_code", max_len: 96, run: codes::short_code },
    Target { name: "cursor", max_len: 128, run: codes::cursor },
    Target { name: "invalidation", max_len: 128, run: codes::invalidation },
    Target { name: "target_url", max_len: 512, run: links::target_url },
    Target { name: "cache_entry", max_len: 256, run: links::cache_entry },
    Target { name: "link_search", max_len: 512, run: links::link_search },
    Target { name: "json_body", max_len: 4_096, run: bodies::json_body },
    Target { name: "event_details", max_len: 4_096, run: bodies::event_details },
    Target { name: "import_rows", max_len: 2_048, run: rows::import_rows },
    Target { name: "upload", max_len: 2_048, run: rows::upload },
    Target { name: "click_batch", max_len: 2_048, run: clicks::click_batch },
    Target { name: "user_agent", max_len: 768, run: clicks::user_agent },
    Target { name: "visit_headers", max_len: 512, run: clicks::visit_headers },
    Target { name: "stats_query", max_len: 256, run: stats::stats_query },
    Target { name: "time_zone", max_len: 64, run: stats::time_zone },
    Target { name: "list_query", max_len: 256, run: stats::list_query },
    Target { name: "request_headers", max_len: 512, run: headers::request_headers },
    Target { name: "identity", max_len: 512, run: headers::identity },
    Target { name: "credentials", max_len: 256, run: headers::credentials },
    Target { name: "trace_headers", max_len: 512, run: headers::trace_headers },
    Target { name: "rate_headers", max_len: 20, run: headers::rate_limits },
    Target { name: "settings", max_len: 512, run: settings::settings },
    Target { name: "formula", max_len: 256, run: text::formula },
    Target { name: "field_rules", max_len: 320, run: text::field_rules },
];

/// The target with this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The input as text, and its first line and the rest. Inputs of several parts are lines, so that seeds are readable.
fn first_line(input: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(input).ok()?;
    Some(text.split_once('\n').unwrap_or((text, "")))
}

/// Panics unless the message of an error begins with its rule.
fn assert_is_rule(message: &str) {
    assert!(message.starts_with("must "), "not a rule: {message}");
    assert!(message.len() <= 2_000, "too long: {} bytes", message.len());
}
