//! Short codes: the path segments of short links.
//!
//! * Generated codes are [`GENERATED_CODE_LENGTH`] characters of [`CODE_ALPHABET`] from the operating system's CSPRNG.
//!   There are 56⁷ ≈ 1.7 × 10¹², so with a million links one guess in 1.7 million is a link.
//! * The unique index of the database decides whether a code is free. Callers must not query first.

use std::{fmt, ops::Deref};

use rand::{TryRng, rngs::SysRng};
use serde::Serialize;

/// The characters of generated codes: digits and letters without the look-alikes `0 O o 1 l I`.
pub const CODE_ALPHABET: &[u8; 56] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz";
/// The length of a generated code, in characters.
pub const GENERATED_CODE_LENGTH: usize = 7;
/// The length of the shortest code, in characters.
const MIN_LENGTH: usize = 3;
/// The length of the longest code, in characters.
pub const MAX_CODE_LENGTH: usize = 64;

/// Words that must not be codes, in any case: first path segments that nginx routes or that later routes may need,
/// and files that browsers and crawlers request by themselves. The list is sorted and in lower case.
const RESERVED_CODES: &[&str] = &[
    "account",
    "admin",
    "api",
    "api-docs",
    "app",
    "apple-app-site-association",
    "apple-touch-icon",
    "apple-touch-icon-120x120",
    "apple-touch-icon-120x120-precomposed",
    "apple-touch-icon-precomposed",
    "assets",
    "auth",
    "dashboard",
    "docs",
    "events",
    "favicon",
    "grafana",
    "health",
    "healthz",
    "help",
    "humans",
    "index",
    "internal",
    "jobs",
    "linnet",
    "livez",
    "login",
    "logout",
    "metrics",
    "new",
    "nginx_status",
    "openapi",
    "ping",
    "preview",
    "privacy",
    "problems",
    "prometheus",
    "readyz",
    "robots",
    "security",
    "settings",
    "signin",
    "signup",
    "sitemap",
    "static",
    "stats",
    "status",
    "stub_status",
    "swagger-ui",
    "terms",
    "unlock",
    "urls",
    "users",
    "version",
    "well-known",
    "wp-admin",
    "wp-login",
];

/// A valid short code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ShortCode(String);

/// Why a text is not a short code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShortCodeError {
    /// Too short or too long.
    #[error("must be {MIN_LENGTH} to {MAX_CODE_LENGTH} characters")]
    Length,
    /// A character outside `[0-9A-Za-z_-]`.
    #[error("must contain only 0-9, A-Z, a-z, _ and -")]
    Character,
    /// A reserved word, in any case.
    #[error("must not be a reserved word")]
    Reserved,
}

/// Whether the text has the length and the characters of a code. Reserved words pass, because no link has one.
/// It does not allocate, for the resolve path.
#[inline]
pub fn has_code_shape(text: &str) -> bool {
    (MIN_LENGTH..=MAX_CODE_LENGTH).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Whether no link can have this code, because the word is reserved in any case.
pub fn is_reserved_code(code: &str) -> bool {
    RESERVED_CODES.binary_search(&code.to_ascii_lowercase().as_str()).is_ok()
}

impl ShortCode {
    /// Checks a custom code.
    pub fn parse(text: &str) -> Result<Self, ShortCodeError> {
        if !(MIN_LENGTH..=MAX_CODE_LENGTH).contains(&text.chars().count()) {
            return Err(ShortCodeError::Length);
        }
        if !has_code_shape(text) {
            return Err(ShortCodeError::Character);
        }
        if is_reserved_code(text) {
            return Err(ShortCodeError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }

    /// Generates a code from the operating system's CSPRNG. Fails only if the CSPRNG fails.
    pub fn generate() -> Result<Self, rand::rngs::SysError> {
        // 224 = 4 × 56. The distribution is uniform because the other 32 values are rejected.
        const ACCEPT_BELOW: u8 = 224;
        let mut code = String::with_capacity(GENERATED_CODE_LENGTH);
        let mut bytes = [0_u8; 16];
        loop {
            SysRng.try_fill_bytes(&mut bytes)?;
            for byte in bytes.iter().filter(|byte| **byte < ACCEPT_BELOW) {
                if let Some(letter) = CODE_ALPHABET.get(usize::from(byte % 56)) {
                    code.push(char::from(*letter));
                }
                if code.len() == GENERATED_CODE_LENGTH {
                    return Ok(Self(code));
                }
            }
        }
    }
}

impl Deref for ShortCode {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn reserved_words_are_sorted_lower_case_and_refused_in_any_case() {
        assert!(RESERVED_CODES.is_sorted());
        for word in RESERVED_CODES {
            assert_eq!(*word, word.to_ascii_lowercase());
            assert!(has_code_shape(word), "the list needs no word that cannot be a code: {word}");
            for spelling in [(*word).to_owned(), word.to_ascii_uppercase()] {
                assert_eq!(ShortCode::parse(&spelling), Err(ShortCodeError::Reserved));
                assert!(is_reserved_code(&spelling), "{spelling}");
            }
        }
    }

    #[test]
    fn length_and_characters_decide_whether_a_text_is_a_code() {
        assert!(!is_reserved_code("J1O697"));
        for good in ["abc", "a-b", "___", "J1O697", &"x".repeat(64)] {
            assert!(ShortCode::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", &"x".repeat(65)] {
            assert_eq!(ShortCode::parse(bad), Err(ShortCodeError::Length), "{bad}");
        }
        // Cyrillic а, NFD é, full width, control character, blank, percent, slash, dot.
        for bad in ["\u{430}bc", "cafe\u{301}", "\u{ff41}bc", "ab\0", "a c", "a%2fb", "a/b", "a.b"]
        {
            assert_eq!(ShortCode::parse(bad), Err(ShortCodeError::Character), "{bad}");
        }
    }

    #[test]
    fn must_12_generated_codes_are_long_and_spread() {
        let codes: HashSet<_> = (0..10_000).map(|_| ShortCode::generate().unwrap()).collect();
        assert_eq!(codes.len(), 10_000, "one run in 34,000 has a duplicate by chance");
        let mut seen = [0_u32; 256];
        for code in &codes {
            assert_eq!(code.len(), GENERATED_CODE_LENGTH);
            code.bytes().for_each(|b| seen[usize::from(b)] += 1);
        }
        // 70,000 characters of 56: 1,250 each with a standard deviation of 35. The bounds are 8 deviations away.
        for letter in CODE_ALPHABET {
            let count = seen[usize::from(*letter)];
            assert!((970..=1530).contains(&count), "{} occurs {count} times", char::from(*letter));
        }
    }

    #[test]
    fn a_code_is_its_text() {
        let code = ShortCode::parse("Ab-_9").unwrap();
        assert_eq!((&*code, code.to_string().as_str()), ("Ab-_9", "Ab-_9"));
    }

    #[test]
    fn shape_is_3_to_64_characters_of_the_alphabet() {
        for good in ["abc", "a-b", "___", "api", &"x".repeat(64)] {
            assert!(has_code_shape(good), "{good}");
        }
        for bad in ["", "ab", &"x".repeat(65), "a.b", "a\u{e9}b", "ab/"] {
            assert!(!has_code_shape(bad), "{bad}");
        }
    }
}
