//! The rules for names and titles.

/// Why a text is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Only white space, or empty.
    #[error("must not be blank")]
    Blank,
    /// Longer than this number of characters.
    #[error("must be at most {0} characters")]
    TooLong(usize),
    /// Contains a control character, such as NUL, a line break or escape.
    #[error("must not contain control characters")]
    Control,
}

/// Accepts a text of 1 to `max` characters that is not blank and has no control characters.
pub fn bounded_text(text: &str, max: usize) -> Result<String, TextError> {
    if text.chars().any(char::is_control) {
        Err(TextError::Control)
    } else if text.trim().is_empty() {
        Err(TextError::Blank)
    } else if text.chars().count() > max {
        Err(TextError::TooLong(max))
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_long_and_control_texts_are_refused() {
        assert_eq!(bounded_text("Ops review", 10).unwrap(), "Ops review");
        assert_eq!(bounded_text(" \u{3000}", 10), Err(TextError::Blank));
        assert_eq!(bounded_text("", 10), Err(TextError::Blank));
        assert_eq!(bounded_text("äöüäöüäöüäö", 10), Err(TextError::TooLong(10)));
        assert_eq!(bounded_text("a\0b", 10), Err(TextError::Control));
    }

    #[test]
    fn length_is_counted_in_characters() {
        assert_eq!(bounded_text("\u{e4}\u{f6}\u{fc}", 3).as_deref(), Ok("\u{e4}\u{f6}\u{fc}"));
        assert_eq!(bounded_text("\u{e4}\u{f6}\u{fc}", 2), Err(TextError::TooLong(2)));
    }
}
