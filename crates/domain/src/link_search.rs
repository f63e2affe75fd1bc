//! The text by which links are searched.
//!
//! Targets are stored normalized: the host in its ASCII form, and non-ASCII characters of the path and the query
//! percent-encoded. People type the text that they read, so a search has each of these spellings.

use url::{Host, Url};

use super::{TextError, bounded_text};

/// A text of 2 to 200 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSearch {
    /// As it was typed; codes and titles contain this spelling.
    pub text: String,
    /// Percent-encoded, as paths and queries contain it; `None` if it is the same.
    pub encoded: Option<String>,
    /// The ASCII form of a host, or of whole labels of one; `None` if it is the same or the text is not a host.
    pub host: Option<String>,
    /// A part of an internationalized host as people read it, possibly with a scheme and path; `None` if the text is
    /// ASCII: then the ASCII form contains it.
    pub readable: Option<String>,
}

/// Why a text is not searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkSearchError {
    /// Blank, too long, or with control characters.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A single character.
    #[error("must be at least {} characters", LinkSearch::MIN_CHARS)]
    TooShort,
}

impl LinkSearch {
    /// Minimum length, in characters.
    pub const MIN_CHARS: usize = 2;
    /// Maximum length, in characters.
    pub const MAX_CHARS: usize = 200;

    /// Checks a text, and finds its spellings.
    pub fn parse(text: &str) -> Result<Self, LinkSearchError> {
        let text = bounded_text(text, Self::MAX_CHARS)?;
        if text.chars().count() < Self::MIN_CHARS {
            return Err(LinkSearchError::TooShort);
        }
        if text.is_ascii() {
            return Ok(Self { text, encoded: None, host: None, readable: None });
        }
        let (encoded, host, readable) = (encoded(&text), ascii_host(&text), readable_host(&text));
        Ok(Self { text, encoded, host, readable })
    }

    /// Whether a trigram index bounds the time of the search: each spelling has a trigram that few links share. Without
    /// one, PostgreSQL compares every link with the text.
    pub fn is_selective(&self) -> bool {
        let spellings = [Some(&self.text), self.encoded.as_ref(), self.host.as_ref()];
        spellings
            .into_iter()
            .chain([self.readable.as_ref()])
            .flatten()
            .all(|text| has_selective_trigram(text))
    }
}

/// Whether `pg_trgm` derives from the pattern `%text%` a trigram with at least two characters of a word: `xyz`; ` xy` if
/// the word begins in the text; `xy ` if it ends in it. The trigram `  x` is not counted, because too many links
/// contain a word with that initial.
///
/// Where PostgreSQL's locale may differ from Unicode in what a letter is, the answer is `false`.
fn has_selective_trigram(text: &str) -> bool {
    // The characters of the current word, and whether the character before it belongs to no word.
    let (mut word, mut begins) = (0_u32, false);
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || (!c.is_ascii() && c.is_alphabetic()) {
            word += 1;
            if word >= 3 || (word == 2 && begins) {
                return true;
            }
        } else if c.is_ascii() {
            if word == 2 {
                return true;
            }
            (word, begins) = (0, true);
        } else {
            (word, begins) = (0, false);
        }
    }
    false
}

fn encoded(text: &str) -> Option<String> {
    let mut url = Url::parse("http://host/").ok()?;
    // Setting a fragment encodes few ASCII characters, such as spaces and quotes, which are rare in such texts.
    url.set_fragment(Some(text));
    url.fragment().map(ToOwned::to_owned).filter(|encoded| encoded != text)
}

fn ascii_host(text: &str) -> Option<String> {
    with_host(text, |host| match Host::parse(host) {
        Ok(Host::Domain(domain)) => Some(domain),
        _ => None,
    })
}

/// The host in the form of decoded punycode: in lower case and normalized, as that of every target.
fn readable_host(text: &str) -> Option<String> {
    with_host(text, |host| match idna::domain_to_unicode(host) {
        (readable, Ok(())) if !readable.is_ascii() => Some(readable),
        _ => None,
    })
}

/// Converts only the part between the scheme and the path, each of which may be absent.
fn with_host(text: &str, convert: impl FnOnce(&str) -> Option<String>) -> Option<String> {
    let (scheme, rest) = text.split_once("://").map_or((None, text), |(s, rest)| (Some(s), rest));
    let (host, path) = rest.split_once('/').map_or((rest, None), |(h, path)| (h, Some(path)));
    let host = convert(host)?;
    let scheme = scheme.map_or_else(String::new, |scheme| format!("{scheme}://"));
    let path = path.map_or_else(String::new, |path| {
        format!("/{}", encoded(path).unwrap_or_else(|| path.to_owned()))
    });
    Some(format!("{scheme}{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spellings(text: &str) -> (Option<String>, Option<String>) {
        let search = LinkSearch::parse(text).unwrap();
        (search.encoded, search.host)
    }

    #[test]
    fn a_text_has_the_spellings_that_targets_have() {
        assert_eq!(spellings("ab"), (None, None));
        let (encoded, host) = spellings("東京");
        assert_eq!(encoded.as_deref(), Some("%E6%9D%B1%E4%BA%AC"));
        assert_eq!(host.as_deref(), Some("xn--1lqs71d"));
        let (_, host) = spellings("Bücher.example/Straße");
        assert_eq!(host.as_deref(), Some("xn--bcher-kva.example/Stra%C3%9Fe"));
        let (_, host) = spellings("https://bücher.example");
        assert_eq!(host.as_deref(), Some("https://xn--bcher-kva.example"));
        assert_eq!(spellings("ü b").1, None);
    }

    #[test]
    fn a_part_of_an_internationalized_host_is_searched_in_its_readable_form() {
        let readable = |text: &str| LinkSearch::parse(text).unwrap().readable;
        assert_eq!(readable("MÜNCH").as_deref(), Some("münch"));
        assert_eq!(readable("mu\u{308}nch").as_deref(), Some("münch"), "normalized");
        assert_eq!(readable("ünchen.de/Straße").as_deref(), Some("ünchen.de/Stra%C3%9Fe"));
        assert_eq!(readable("https://bü").as_deref(), Some("https://bü"));
        assert_eq!(readable("munch"), None);
        assert_eq!(readable("example.com/straße"), None, "the host is ASCII");
    }

    #[test]
    fn only_a_text_with_a_trigram_in_each_spelling_is_selective() {
        for (text, is_selective) in [
            ("xyz", true),
            ("-xy", true),
            ("xy-", true),
            ("xy z", true),
            ("xy", false),
            ("--", false),
            ("a b", false),
            ("a-b-c", false),
            ("%a", false),
            ("東京", false),
            ("東京都", true),
            ("é.é", false),
            ("a\u{301}b", false),
            ("x²yz", false),
            ("x²yza", true),
        ] {
            assert_eq!(LinkSearch::parse(text).unwrap().is_selective(), is_selective, "{text}");
        }
    }

    #[test]
    fn short_and_blank_texts_are_rejected() {
        assert_eq!(LinkSearch::parse("a"), Err(LinkSearchError::TooShort));
        assert_eq!(LinkSearch::parse("東"), Err(LinkSearchError::TooShort));
        assert!(LinkSearch::parse("  ").is_err());
        assert!(LinkSearch::parse(&"x".repeat(201)).is_err());
        assert_eq!(LinkSearchError::TooShort.to_string(), "must be at least 2 characters");
    }
}
