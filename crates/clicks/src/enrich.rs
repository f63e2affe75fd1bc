//! Derives a click's attributes from its user agent, referrer, language and target.
//!
//! Input is untrusted: any bytes, any length. Output is short and printable.

use url::{Host, Url};
use woothee::{parser::Parser, woothee::VALUE_UNKNOWN};

use linnet_domain::{ClickValue, ValueKind};

use crate::bots::Bots;

/// Longest prefix of a user agent that is kept, in bytes. The longest real user agents, of in-app browsers, have about 400.
pub const MAX_AGENT: usize = 512;
/// Longest part of a campaign, in characters.
const MAX_PART: usize = 100;
/// Longest host name (RFC 1035).
const MAX_HOST: usize = 253;

/// The result of parsing a user agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedUserAgent {
    /// Whether it is a bot's.
    pub is_bot: bool,
    /// Browser, operating system and class of device; unknown parts are empty.
    pub value: ClickValue,
}

/// Recognizes bots, browsers, operating systems and devices. Occupies a few MiB, so a process should create only one.
pub struct UserAgentParser {
    bots: Bots,
    browsers: Parser,
}

impl Default for UserAgentParser {
    fn default() -> Self {
        Self { bots: Bots::default(), browsers: Parser::new() }
    }
}

impl UserAgentParser {
    /// Whether a `User-Agent` header is a bot's. Browsers always send one, so an empty one counts as a bot. The result
    /// is that of [`UserAgentParser::parse`] for the click, which keeps only a prefix of the header.
    pub fn is_bot(&self, header: &[u8]) -> bool {
        self.bots.is_bot(&agent_text(header.get(..MAX_AGENT).unwrap_or(header)))
    }

    /// Parses a user agent.
    pub fn parse(&self, agent: &str) -> ParsedUserAgent {
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
        ParsedUserAgent {
            is_bot: self.bots.is_bot(agent),
            value: ClickValue { kind: ValueKind::Agent, parts },
        }
    }
}

/// The class of device. woothee distinguishes phones from computers, but counts tablets and televisions as phones.
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

/// The family of an operating system. All versions of Windows are one family; Apple's devices are iOS or macOS.
fn os_family(os: &str) -> String {
    let family = match os {
        "iPhone" | "iPad" | "iPod" | "iOS" => "iOS",
        "Mac OSX" | "Mac OS Classic" => "macOS",
        _ if os.starts_with("Windows") && os != "Windows Phone OS" => "Windows",
        _ => os,
    };
    family.to_owned()
}

/// The host of a `Referer` in lower case, without `www.`; empty if there is no valid one.
pub fn referrer_host(referrer: &[u8]) -> String {
    let text = String::from_utf8_lossy(referrer);
    // The buffer cuts long referrers, so anything after the host may be incomplete.
    let Some((scheme, rest)) = text.split_once("://") else { return String::new() };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return String::new();
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let Ok(url) = Url::parse(&format!("https://{authority}/")) else { return String::new() };
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_prefix("www.").unwrap_or(host);
    let is_name = matches!(url.host(), Some(Host::Ipv6(_))) || is_host_name(host);
    if is_name && host.len() <= MAX_HOST { host.to_owned() } else { String::new() }
}

/// Whether the text is a host name or an IPv4 address. A URL may have other characters in its host, such as `;` and `=`.
fn is_host_name(host: &str) -> bool {
    host.split('.').all(|label| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && !label.starts_with('-') && label.bytes().all(is_allowed)
    })
}

/// The ISO 639 code of the first language in `Accept-Language`: 2 or 3 letters in lower case; empty if there is none.
pub fn language(header: &[u8]) -> String {
    let first = header.split(|byte| b",;".contains(byte)).next().unwrap_or_default();
    let primary = first.split(|byte| b"-_".contains(byte)).next().unwrap_or_default();
    let primary = primary.trim_ascii();
    if (2..=3).contains(&primary.len()) && primary.iter().all(u8::is_ascii_alphabetic) {
        String::from_utf8_lossy(primary).to_ascii_lowercase()
    } else {
        String::new()
    }
}

/// The printable characters of a user agent.
pub fn agent_text(agent: &[u8]) -> String {
    printable(&String::from_utf8_lossy(agent), usize::MAX)
}

/// The campaign from the `utm_` parameters of a target; `None` if it has none.
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

    // Long because it lists one user agent for each class of device.
    #[test]
    fn user_agents_are_recognized() {
        let parser = UserAgentParser::default();
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
            ("Mozilla/5.0 (Haiku) Strange/1 Odd/2 (x; y)", "", "", ""),
        ] {
            let parsed = parser.parse(agent);
            assert_eq!(parsed.value.parts, [browser, os, device], "{agent}");
            assert!(!parsed.is_bot, "{agent}");
        }
        for bot in [
            "Googlebot/2.1 (+http://www.google.com/bot.html)",
            "curl/8.5.0",
            "Slackbot 1.0",
            "WhatsApp/2.23.20.0",
        ] {
            assert!(parser.parse(bot).is_bot, "{bot}");
        }
        assert!(parser.is_bot(b""));
        // `max_clicks` and statistics use the same decision, also for headers that are cut or are not text.
        let long = [
            b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0 ",
            &[b'x'; 900][..],
        ];
        let odd = [
            b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0 ",
            &b"\xc3\xa4\xff"[..],
        ];
        for header in
            [long.concat(), odd.concat(), [&long.concat()[..], b" Googlebot/2.1"].concat()]
        {
            let kept = agent_text(&header[..header.len().min(MAX_AGENT)]);
            assert_eq!(parser.is_bot(&header), parser.parse(&kept).is_bot);
            assert!(!parser.is_bot(&header));
        }
    }

    #[test]
    fn referrer_is_a_host_or_empty() {
        for (referrer, host) in [
            (&b"https://Blog.Example/a/b?c#d"[..], "blog.example"),
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
            (b"https://x;=1+1/", ""),
            (b"https://=cmd/", ""),
            (b"https://+1.example/", ""),
            (b"https://-1.example/", ""),
            (b"https://a,b/", ""),
            (b"https://a..b/", ""),
            (b"https://192.0.2.1:80/", "192.0.2.1"),
            (b"https://a_b.example/", "a_b.example"),
        ] {
            assert_eq!(referrer_host(referrer), host, "{}", String::from_utf8_lossy(referrer));
        }
        assert_eq!(referrer_host(&vec![b'a'; 65_536]), "");
    }

    #[test]
    fn language_is_two_or_three_letters_or_empty() {
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
    fn campaign_is_read_from_the_target() {
        let of = |query: &str| {
            campaign(&format!("https://example.com/?{query}")).map(|value| value.parts)
        };
        assert_eq!(of("a=b"), None);
        assert_eq!(
            of("utm_medium=mail&utm_source=Mail%20letter&utm_source=2"),
            Some(vec!["Mail letter".into(), "mail".into(), String::new()])
        );
        let long = "x".repeat(5_000);
        assert_eq!(of(&format!("utm_campaign={long}")).unwrap()[2].len(), MAX_PART);
        assert_eq!(of("utm_source=a%00%0a%1bb").unwrap()[0], "ab");
    }
}
