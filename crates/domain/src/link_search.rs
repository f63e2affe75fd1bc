//! The text by which links are searched.
//!
//! Targets are stored normalized: the host in its ASCII form, and in the path and the query, non-ASCII characters and
//! some of ASCII percent-encoded. People type the text that they read, so a search has each of these spellings.
//!
//! The letters of `/Über` and `/über` differ in their encoded bytes, and the path and the query encode other characters.
//! So the encoded spellings are one regular expression with the alternatives of each character.

use std::fmt::Write as _;

use url::Host;

use super::{TextError, bounded_text};

/// ASCII characters that the path, the query or the fragment of a URL contains percent-encoded.
const ENCODED_ASCII: &str = " \"'<>`{}";

/// A text of 2 to 200 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSearch {
    /// As it was typed; codes and titles contain this spelling in any case.
    pub text: String,
    /// A regular expression for paths and queries, percent-encoded; `None` if no character of the text is encoded.
    pub encoded: Option<String>,
    /// A regular expression for the ASCII form of a host, or of whole labels of one, possibly with a scheme and path;
    /// `None` if the text is ASCII or not a host.
    pub host: Option<String>,
    /// A part of an internationalized host as people read it, possibly with a scheme and path, in any case; `None` if the
    /// text is ASCII: then the ASCII form contains it. It is no expression, because `pg_trgm` derives no trigram from
    /// expressions with characters above U+07FF.
    pub readable: Option<String>,
    is_selective: bool,
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
        let (mut host, mut readable) = (None, None);
        if !text.is_ascii() {
            host = ascii_spelling(&text);
            readable = readable_spelling(&text);
        }
        let encoded = text.contains(is_encoded).then(|| Expression::default().encoded(&text));
        let is_selective = has_selective_trigram(&text)
            && readable.as_deref().is_none_or(has_selective_trigram)
            && [&encoded, &host].into_iter().flatten().all(|found| found.is_selective);
        let [encoded, host] = [encoded, host].map(|found| found.map(|found| found.pattern));
        Ok(Self { text, encoded, host, readable, is_selective })
    }

    /// Whether a trigram index bounds the time of the search: each spelling has a trigram that few links share. Without
    /// one, PostgreSQL compares every link with the text.
    pub fn is_selective(&self) -> bool {
        self.is_selective
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

/// A regular expression of PostgreSQL in the making.
#[derive(Default)]
struct Expression {
    pattern: String,
    /// Whether all texts that match share a trigram, or each alternative of a character has one.
    is_selective: bool,
}

impl Expression {
    /// Appends text that matches only itself.
    fn literal(mut self, text: &str) -> Self {
        text.chars().for_each(|c| self.push_literal(c));
        self.is_selective |= has_selective_trigram(text);
        self
    }

    /// Appends text of a path or query, with the percent-encoded spellings of each character.
    fn encoded(mut self, text: &str) -> Self {
        for c in text.chars() {
            if is_encoded(c) {
                self.push_encoded(c);
            } else {
                self.push_literal(c);
            }
        }
        // `%C3` begins a word of two characters. The alternatives of an ASCII character begin with no letter or digit,
        // but end with either.
        self.is_selective |=
            !text.is_ascii() || text.split_inclusive(is_encoded).any(has_selective_trigram);
        self
    }

    fn push_literal(&mut self, c: char) {
        if c.is_ascii() && !c.is_ascii_alphanumeric() {
            self.pattern.push('\\');
        }
        self.pattern.push(c);
    }

    fn push_encoded(&mut self, c: char) {
        if c.is_ascii() {
            self.pattern.push('(');
            self.push_literal(c);
            self.pattern.push('|');
            self.push_bytes(c);
            self.pattern.push(')');
            return;
        }
        let spellings = cases(c);
        let has_one = spellings.len() == 1;
        for (at, spelling) in spellings.into_iter().enumerate() {
            if !has_one {
                self.pattern.push(if at == 0 { '(' } else { '|' });
            }
            self.push_bytes(spelling);
        }
        if !has_one {
            self.pattern.push(')');
        }
    }

    fn push_bytes(&mut self, c: char) {
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a string cannot fail.
            let _ = write!(self.pattern, "%{byte:02X}");
        }
    }
}

fn is_encoded(c: char) -> bool {
    !c.is_ascii() || ENCODED_ASCII.contains(c)
}

/// The character in lower case, upper case and as it was typed, once each, without those that are several characters.
fn cases(c: char) -> Vec<char> {
    fn single(mut chars: impl Iterator<Item = char>) -> Option<char> {
        chars.next().filter(|c| chars.next().is_none() && !c.is_ascii())
    }
    let (lower, upper) = (single(c.to_lowercase()), single(c.to_uppercase()));
    // Greek has two small sigmas, of which one is the small form of the capital.
    let small = upper.and_then(|upper| single(upper.to_lowercase()));
    let mut cases = vec![c];
    for case in [lower, upper, small].into_iter().flatten() {
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    cases
}

fn ascii_spelling(text: &str) -> Option<Expression> {
    let (literal, path) = with_host(text, |host| match Host::parse(host) {
        Ok(Host::Domain(domain)) => Some(domain),
        _ => None,
    })?;
    Some(Expression::default().literal(&literal).encoded(path))
}

/// The host in the form of decoded punycode: in lower case and normalized, as that of every target.
fn readable_spelling(text: &str) -> Option<String> {
    let (literal, path) = with_host(text, |host| match idna::domain_to_unicode(host) {
        (readable, Ok(())) if !readable.is_ascii() => Some(readable),
        _ => None,
    })?;
    let mut spelling = Expression { pattern: literal, ..Expression::default() };
    for c in path.chars() {
        if is_encoded(c) && c != '\'' {
            spelling.push_bytes(c);
        } else {
            spelling.pattern.push(c);
        }
    }
    Some(spelling.pattern)
}

/// Converts the part between the scheme and the path, each of which may be absent. Returns the text up to the path, and
/// the path.
fn with_host(text: &str, convert: impl FnOnce(&str) -> Option<String>) -> Option<(String, &str)> {
    let start = text.find("://").map_or(0, |at| at + "://".len());
    let (scheme, rest) = text.split_at_checked(start)?;
    let (host, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?;
    Some((format!("{scheme}{}", convert(host)?), path))
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
        assert_eq!(spellings("ab?c=%20"), (None, None));
        let (encoded, host) = spellings("東京");
        assert_eq!(encoded.as_deref(), Some("%E6%9D%B1%E4%BA%AC"));
        assert_eq!(host.as_deref(), Some(r"xn\-\-1lqs71d"));
        let (_, host) = spellings("Bücher.example/Straße");
        assert_eq!(host.as_deref(), Some(r"xn\-\-bcher\-kva\.example\/Stra%C3%9Fe"));
        let (_, host) = spellings("https://bücher.example");
        assert_eq!(host.as_deref(), Some(r"https\:\/\/xn\-\-bcher\-kva\.example"));
        assert_eq!(spellings("ü b").1, None);
    }

    #[test]
    fn encoded_characters_have_all_their_spellings() {
        for (text, expected) in [
            ("a b", r"a(\ |%20)b"),
            ("{*}", r"(\{|%7B)\*(\}|%7D)"),
            ("l'é", r"l(\'|%27)(%C3%A9|%C3%89)"),
            ("Éa", "(%C3%89|%C3%A9)a"),
            ("ς!", r"(%CF%82|%CE%A3|%CF%83)\!"),
            ("İı", "%C4%B0%C4%B1"),
        ] {
            assert_eq!(spellings(text).0.as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_part_of_an_internationalized_host_is_searched_in_its_readable_form() {
        let readable = |text: &str| LinkSearch::parse(text).unwrap().readable;
        assert_eq!(readable("MÜNCH").as_deref(), Some("münch"));
        assert_eq!(readable("mu\u{308}nch").as_deref(), Some("münch"), "normalized");
        assert_eq!(readable("ünchen.de/Über").as_deref(), Some("ünchen.de/%C3%9Cber"));
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
            ("a<bc", false),
            ("a<bcd", true),
            ("summer sale", true),
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
