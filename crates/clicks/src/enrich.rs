//! What a user agent, a referrer, a language and a target say.
//!
//! Everything that comes in here was sent by strangers: any bytes, any length. What goes out is short
//! and printable.

use isbot::Bots;
use url::Url;
use woothee::{parser::Parser, woothee::VALUE_UNKNOWN};

use linnet_domain::{ClickValue, ValueKind};

/// Longest part of a value, in characters.
const MAX_PART: usize = 100;
/// Longest host name (RFC 1035).
const MAX_HOST: usize = 253;

/// Programs that fetch a link to show what is behind it, and that `isbot` takes for people.
const PREVIEWS: [&str; 1] = ["^whatsapp/"];

/// What is known of a user agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentKnown {
    /// A program that says so, or that says nothing.
    pub is_bot: bool,
    /// Browser, operating system, class of device.
    pub value: ClickValue,
}

/// Knows bots and browsers. Takes a few MiB; one for a process.
pub struct Enricher {
    bots: Bots,
    browsers: Parser,
}

impl Default for Enricher {
    fn default() -> Self {
        let mut bots = Bots::default();
        bots.append(&PREVIEWS);
        Self { bots, browsers: Parser::new() }
    }
}

impl Enricher {
    /// Whether an agent is a bot's. Who sends none at all is no browser.
    pub fn is_bot(&self, agent: Option<&str>) -> bool {
        agent.is_none_or(|agent| self.bots.is_bot(agent))
    }

    /// Reads a user agent.
    pub fn agent(&self, agent: &str) -> AgentKnown {
        let found = self.browsers.parse(agent);
        let known =
            |text: &str| if text == VALUE_UNKNOWN { String::new() } else { text.to_owned() };
        let (browser, os, category) = match &found {
            Some(found) => (known(found.name), known(found.os), found.category),
            None => (String::new(), String::new(), VALUE_UNKNOWN),
        };
        let device = device(agent, category).to_owned();
        let os = os_family(&os);
        let parts = vec![browser, os, device];
        AgentKnown {
            is_bot: category == "crawler" || self.is_bot(Some(agent)),
            value: ClickValue { kind: ValueKind::Agent, parts },
        }
    }
}

/// woothee tells phones from computers; tablets and televisions it counts among phones.
fn device(agent: &str, category: &str) -> &'static str {
    let has = |word: &str| agent.contains(word);
    if has("iPad") || has("Tablet") || (has("Android") && !has("Mobile") && !has("TV")) {
        "tablet"
    } else if has("TV") || has("Tizen") || has("Web0S") {
        "tv"
    } else {
        match category {
            "pc" => "desktop",
            "smartphone" | "mobilephone" => "mobile",
            "appliance" => "console",
            _ => "",
        }
    }
}

/// Versions of Windows are no families of their own, and Apple's devices share two systems.
fn os_family(os: &str) -> String {
    let family = match os {
        "iPhone" | "iPad" | "iPod" | "iOS" => "iOS",
        "Mac OSX" | "Mac OS Classic" => "macOS",
        _ if os.starts_with("Windows") && os != "Windows Phone OS" => "Windows",
        _ => os,
    };
    family.to_owned()
}

/// The host of a `Referer`, lower case, without `www.`; empty when there is none that can be one.
pub(crate) fn referrer_host(referrer: &[u8]) -> String {
    let text = String::from_utf8_lossy(referrer);
    // It was cut, perhaps within the path: only the part up to the host's end is looked at.
    let Some((scheme, rest)) = text.split_once("://") else { return String::new() };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return String::new();
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let Ok(url) = Url::parse(&format!("https://{authority}/")) else { return String::new() };
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_prefix("www.").unwrap_or(host);
    if host.len() <= MAX_HOST { host.to_owned() } else { String::new() }
}

/// The first language of an `Accept-Language`, as ISO 639 has it: 2 or 3 letters, lower case.
pub(crate) fn language(header: &[u8]) -> String {
    let first = header.split(|byte| b",;".contains(byte)).next().unwrap_or_default();
    let primary = first.split(|byte| b"-_".contains(byte)).next().unwrap_or_default();
    let primary = primary.trim_ascii();
    if (2..=3).contains(&primary.len()) && primary.iter().all(u8::is_ascii_alphabetic) {
        String::from_utf8_lossy(primary).to_ascii_lowercase()
    } else {
        String::new()
    }
}

/// A user agent as text.
pub(crate) fn agent_text(agent: &[u8]) -> String {
    printable(&String::from_utf8_lossy(agent), usize::MAX)
}

/// The campaign that a target names, if it names any.
pub fn campaign(target: &str) -> Option<ClickValue> {
    let url = Url::parse(target).ok()?;
    let names = ValueKind::Campaign.parts();
    let mut parts = vec![String::new(); names.len()];
    for (key, value) in url.query_pairs() {
        let wanted = names.iter().zip(&mut parts).find(|(name, _)| **name == key);
        if let Some((_, part)) = wanted
            && part.is_empty()
        {
            *part = printable(&value, MAX_PART);
        }
    }
    let is_some = parts.iter().any(|part| !part.is_empty());
    is_some.then_some(ClickValue { kind: ValueKind::Campaign, parts })
}

fn printable(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_known() {
        let enricher = Enricher::default();
        for (agent, browser, os, device) in [
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0",
                "Edge",
                "Windows",
                "desktop",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
                "Safari",
                "iOS",
                "mobile",
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
                "Safari",
                "iOS",
                "tablet",
            ),
            (
                "Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
                "Chrome",
                "Android",
                "tablet",
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36",
                "Chrome",
                "Android",
                "mobile",
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                "Firefox",
                "Linux",
                "desktop",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
                "Safari",
                "macOS",
                "desktop",
            ),
            ("something nobody has heard of", "", "", ""),
        ] {
            let known = enricher.agent(agent);
            assert_eq!(known.value.parts, [browser, os, device], "{agent}");
            assert!(!known.is_bot, "{agent}");
        }
        for bot in [
            "Googlebot/2.1 (+http://www.google.com/bot.html)",
            "curl/8.5.0",
            "Slackbot 1.0",
            "WhatsApp/2.23.20.0",
        ] {
            assert!(enricher.agent(bot).is_bot, "{bot}");
        }
        assert!(enricher.is_bot(None));
    }

    #[test]
    fn referrers_are_hosts_or_nothing() {
        for (referrer, host) in [
            (&b"https://News.Example/a/b?c#d"[..], "news.example"),
            (b"http://www.example.com", "example.com"),
            (b"https://user:secret@example.com:8443/x", "example.com"),
            (b"https://b\xc3\xbccher.example/", "xn--bcher-kva.example"),
            (b"https://[2001:db8::7]/", "[2001:db8::7]"),
            (b"android-app://com.example", ""),
            (b"javascript:alert(1)", ""),
            (b"https://<script>alert(1)</script>/", ""),
            (b"https://\xff\xfe/", ""),
            (b"", ""),
            (b"https://", ""),
        ] {
            assert_eq!(referrer_host(referrer), host, "{}", String::from_utf8_lossy(referrer));
        }
        assert_eq!(referrer_host(&vec![b'a'; 65_536]), "");
    }

    #[test]
    fn languages_are_letters_or_nothing() {
        for (header, wanted) in [
            (&b"de-CH,de;q=0.9,en;q=0.8"[..], "de"),
            (b"EN", "en"),
            (b"fil_PH", "fil"),
            (b"*", ""),
            (b"", ""),
            (b"=cmd|' /C calc'!A0", ""),
            (b"\xff\xff", ""),
        ] {
            assert_eq!(language(header), wanted);
        }
    }

    #[test]
    fn campaigns_come_from_the_target() {
        let of = |query: &str| {
            campaign(&format!("https://example.com/?{query}")).map(|value| value.parts)
        };
        assert_eq!(of("a=b"), None);
        assert_eq!(
            of("utm_medium=mail&utm_source=News%20letter&utm_source=2"),
            Some(vec!["News letter".into(), "mail".into(), String::new()])
        );
        let long = "x".repeat(5_000);
        assert_eq!(of(&format!("utm_campaign={long}")).unwrap()[2].len(), MAX_PART);
        assert_eq!(of("utm_source=a%00%0a%1bb").unwrap()[0], "ab");
    }
}
