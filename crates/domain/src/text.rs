//! Text that people type: names and titles.

/// Why a text is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing but white space.
    #[error("may not be blank")]
    Blank,
    /// Longer than the given number of characters.
    #[error("must be at most {0} characters")]
    TooLong(usize),
    /// Holds a control character (NUL, line breaks, escape sequences).
    #[error("may not hold control characters")]
    Control,
}

/// Checks a text of 1 to `max` characters.
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
    fn blank_long_and_control_are_refused() {
        assert_eq!(bounded_text("Ops review", 10).unwrap(), "Ops review");
        assert_eq!(bounded_text(" \u{3000}", 10), Err(TextError::Blank));
        assert_eq!(bounded_text("", 10), Err(TextError::Blank));
        assert_eq!(bounded_text("äöüäöüäöüäö", 10), Err(TextError::TooLong(10)));
        assert_eq!(bounded_text("a\0b", 10), Err(TextError::Control));
    }
}
