//! Header values of generated visitors. Each list begins with the most frequent ones.

/// The number of releases of each browser.
const RELEASES: u32 = 24;

/// Browsers, one in each line: the newest major release, the number of its minor releases, and the user agent, in which
/// the release replaces `MAJOR` and `MINOR`.
const BROWSERS: &str = include_str!("browsers.tsv");

/// User agents of bots.
pub(crate) const BOTS: [&str; 12] = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "Twitterbot/1.0",
    "TelegramBot (like TwitterBot)",
    "WhatsApp/2.23.20.0",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)",
    "curl/8.5.0",
    "python-requests/2.32.3",
    "Go-http-client/2.0",
];

/// Countries, each with a language.
pub(crate) const ORIGINS: [(&str, &str); 24] = [
    ("US", "en"),
    ("DE", "de"),
    ("GB", "en"),
    ("FR", "fr"),
    ("CH", "de"),
    ("IN", "en"),
    ("AT", "de"),
    ("ES", "es"),
    ("IT", "it"),
    ("NL", "nl"),
    ("CA", "en"),
    ("BR", "pt"),
    ("PL", "pl"),
    ("US", "es"),
    ("CH", "fr"),
    ("JP", "ja"),
    ("SE", "sv"),
    ("AU", "en"),
    ("BE", "nl"),
    ("MX", "es"),
    ("CZ", "cs"),
    ("DK", "da"),
    ("TR", "tr"),
    ("CA", "fr"),
];

/// Well-known referrers, by frequency. [`referrers`] adds unknown ones.
const REFERRERS: &str = "google.com t.co facebook.com linkedin.com bing.com reddit.com news.ycombinator.com \
    instagram.com duckduckgo.com youtube.com mail.google.com teams.microsoft.com";
const BLOGS: u32 = 48;

/// Sources of campaigns, each with a medium.
const SOURCES: [(&str, &str); 4] =
    [("newsletter", "email"), ("linkedin", "social"), ("google", "cpc"), ("poster", "print")];
const SEASONS: [&str; 6] = ["spring", "summer", "autumn", "winter", "launch", "black%20friday"];

/// The user agents of people: each browser in each release, newest first.
pub(crate) fn browsers() -> Vec<String> {
    let release = |age: u32| {
        BROWSERS.lines().filter_map(move |line| {
            let mut columns = line.split('\t');
            let newest: u32 = columns.next()?.parse().ok()?;
            let minors: u32 = columns.next()?.parse().ok()?;
            let agent = columns.next()?;
            let major = newest - age / minors;
            let minor = minors - 1 - age % minors;
            Some(agent.replace("MAJOR", &major.to_string()).replace("MINOR", &minor.to_string()))
        })
    };
    (0..RELEASES).flat_map(release).collect()
}

/// The referring hosts.
pub(crate) fn referrers() -> Vec<String> {
    let known = REFERRERS.split_whitespace().map(ToOwned::to_owned);
    known.chain((1..=BLOGS).map(|number| format!("blog-{number}.example"))).collect()
}

/// The target with this number. Every fourth target belongs to a campaign.
pub fn target(number: u32) -> String {
    let page = format!("https://www.example.com/articles/{number}");
    let at = usize::try_from(number / 4).unwrap_or_default();
    let campaign = SOURCES.get(at % SOURCES.len()).zip(SEASONS.get(at % SEASONS.len()));
    match campaign {
        Some(((source, medium), season)) if number.is_multiple_of(4) => {
            format!("{page}?utm_source={source}&utm_medium={medium}&utm_campaign={season}")
        }
        _ => page,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use linnet_clicks::{UserAgentParser, campaign};

    use super::*;

    #[test]
    fn browsers_are_recognized_as_browsers_and_bots_as_bots() {
        let parser = UserAgentParser::default();
        let browsers: HashSet<_> = browsers().into_iter().collect();
        assert_eq!(browsers.len(), 240);
        for agent in &browsers {
            let known = parser.parse(agent);
            assert!(!known.is_bot, "{agent}");
            assert!(known.value.parts.iter().all(|part| !part.is_empty()), "{agent}: {known:?}");
        }
        for bot in BOTS {
            assert!(parser.parse(bot).is_bot, "{bot}");
        }
    }

    #[test]
    fn every_fourth_target_names_a_campaign() {
        let named = (0..1_000).filter(|number| campaign(&target(*number)).is_some()).count();
        assert_eq!(named, 250);
    }
}
