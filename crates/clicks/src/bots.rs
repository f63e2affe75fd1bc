//! Decides by the user agent whether a visitor is a bot.
//!
//! Link previews, AI fetchers, HTTP libraries and monitors are bots; browsers and pages inside apps are people. The list
//! is that of the npm package `isbot`, which `scripts/bot-patterns` updates, with the additions below.

use regex::bytes::{Regex, RegexBuilder};

/// One pattern a line; `#` begins a comment.
const PATTERNS: &str = include_str!("../data/bots.txt");

/// HTTP libraries and programs that the list does not recognize.
const MORE_PATTERNS: [&str; 11] = [
    "^dart/",
    "^mechanize/",
    "powershell/",
    "cfnetwork/",
    "^dalvik/",
    "^microsoft office/",
    "; ms-office",
    r"\bfinch/",
    "notion-embedder",
    "^friendica",
    "botwebhook",
];

/// Parts of the user agents of phones, apps and news apps, which people use although a pattern matches them. They are
/// removed before a user agent is compared with the patterns.
const EXCEPTIONS: &str = "gnews|newssapphire|smartnews|newsbreak|applenews| channel/google|google/google\
    |google(?:wv|app| pixel)| cubot|camscan|libhttp|java;\
    |bbcnews|foxnews|skynews|yahoo ?news|cnnnews|nbcnews|abcnews| grab/|tripadvisor|(?:qr|barcode|xiaomi\\.)scan(?:ner)?\
    | feedly/| discovery/|safetycheck";

/// The maximum memory of the compiled patterns and of their caches, in bytes.
const SIZE_LIMIT: usize = 8 * 1024 * 1024;

/// The compiled list. It occupies about a MiB, so a process should have only one.
pub(crate) struct Bots {
    bots: Option<Regex>,
    exceptions: Option<Regex>,
}

impl Default for Bots {
    fn default() -> Self {
        let lines = PATTERNS.lines().filter(|line| !line.starts_with('#'));
        let all: Vec<_> = lines.chain(MORE_PATTERNS).map(|line| format!("(?:{line})")).collect();
        // Both are constants, and a test compiles them.
        Self { bots: compile(&all.join("|")), exceptions: compile(EXCEPTIONS) }
    }
}

/// Compiles for bytes instead of Unicode, because user agents are ASCII and the tables for Unicode take memory.
fn compile(pattern: &str) -> Option<Regex> {
    let mut builder = RegexBuilder::new(pattern);
    builder.unicode(false).case_insensitive(true);
    builder.size_limit(SIZE_LIMIT).dfa_size_limit(SIZE_LIMIT).build().ok()
}

impl Bots {
    /// Whether the user agent is a bot's. An empty one counts as a bot's, because every browser sends one.
    pub(crate) fn is_bot(&self, agent: &str) -> bool {
        let Some(bots) = &self.bots else { return false };
        match &self.exceptions {
            Some(exceptions) if exceptions.is_match(agent.as_bytes()) => {
                bots.is_match(&exceptions.replace_all(agent.as_bytes(), &b""[..]))
            }
            _ => agent.is_empty() || bots.is_match(agent.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn must_30_listed_user_agents_are_people_or_bots() {
        let bots = Bots::default();
        assert!(bots.bots.is_some() && bots.exceptions.is_some());
        let people = samples(include_str!("../data/people-samples.txt"));
        let machines = samples(include_str!("../data/bot-samples.txt"));
        assert!(people.len() >= 75 && machines.len() >= 150);
        let wrong: Vec<_> = people.iter().filter(|agent| bots.is_bot(agent)).collect();
        assert!(wrong.is_empty(), "people taken for bots: {wrong:#?}");
        let wrong: Vec<_> = machines.iter().filter(|agent| !bots.is_bot(agent)).collect();
        assert!(wrong.is_empty(), "bots taken for people: {wrong:#?}");
    }

    #[test]
    fn a_missing_or_hostile_user_agent_is_decided_quickly() {
        let bots = Bots::default();
        assert!(bots.is_bot(""));
        let began = std::time::Instant::now();
        for agent in
            ["a".repeat(512), "(;".repeat(256), "Mozilla/5.0 ".repeat(42), ".-".repeat(256)]
        {
            bots.is_bot(&agent);
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(1));
    }
}
