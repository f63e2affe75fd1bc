//! Users and their e-mail addresses.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::UserId;

/// A user.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct User {
    /// The user's id.
    #[schema(value_type = i64)]
    pub id: UserId,
    /// A label; it need not be unique.
    pub username: String,
    /// The e-mail address, unique in any case.
    pub email: String,
    /// When the user was created.
    pub created_at: DateTime<Utc>,
}

/// A user to create.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// 1 to [`User::MAX_USERNAME`] characters.
    pub username: String,
    /// The e-mail address.
    pub email: Email,
}

/// A change of a user. `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct UserPatch {
    /// New label.
    pub username: Option<String>,
    /// New e-mail address.
    pub email: Option<Email>,
}

impl User {
    /// The longest user name, in characters.
    pub const MAX_USERNAME: usize = 100;
}

/// A text with the form of an e-mail address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

/// Why a text is not an e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    /// Longer than 254 characters, the limit of RFC 5321.
    #[error("must be at most 254 characters")]
    TooLong,
    /// Not `local@domain`.
    #[error("must be an e-mail address, such as ada@example.com")]
    Shape,
}

impl Email {
    /// Accepts `local@domain` of printable characters without white space. The domain has a letter or digit at both
    /// ends. The check is lax, because only a delivered e-mail proves an address.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        if text.chars().count() > 254 {
            return Err(EmailError::TooLong);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(EmailError::Shape)?;
        let is_printable = |c: char| !c.is_control() && !c.is_whitespace();
        let is_local = !local.is_empty()
            && local.chars().count() <= 64
            && local.chars().all(|c| is_printable(c) && !"@,;:<>()[]\\\"".contains(c));
        let is_domain = domain.starts_with(char::is_alphanumeric)
            && domain.ends_with(char::is_alphanumeric)
            && !domain.contains("..")
            && domain.chars().all(|c| c.is_alphanumeric() || c == '.' || c == '-');
        if is_local && is_domain { Ok(Self(text.to_owned())) } else { Err(EmailError::Shape) }
    }

    /// The address as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_local_part_and_a_domain() {
        for good in
            ["a@b.co", "clearlagoon83@relay.cloud", "o'neil+tag@sub.example.org", "ä@ü.example"]
        {
            assert!(Email::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "a", "@b.co", "a@", "a@b@c.co", "a b@c.co", "a@-b.co", "a@b..co", "a\0@b.co"]
        {
            assert_eq!(Email::parse(bad), Err(EmailError::Shape), "{bad}");
        }
        let long = format!("{}@example.com", "a".repeat(300));
        assert_eq!(Email::parse(&long), Err(EmailError::TooLong));
    }

    #[test]
    fn local_part_has_64_characters_and_the_address_254() {
        let address = |local: usize, domain: usize| {
            let text = format!("{}@{}", "a".repeat(local), "b".repeat(domain));
            Email::parse(&text).map(|email| email.as_str() == text)
        };
        assert_eq!(address(64, 189), Ok(true));
        assert_eq!(address(64, 190), Err(EmailError::TooLong));
        assert_eq!(address(65, 10), Err(EmailError::Shape));
        assert_eq!(address(1, 252), Ok(true));
        assert_eq!(address(1, 253), Err(EmailError::TooLong));
    }

    #[test]
    fn separators_quotes_and_blanks_are_no_part_of_an_address() {
        for c in "@,;:<>()[]\\\" \t\u{a0}\u{7f}".chars() {
            assert_eq!(
                Email::parse(&format!("a{c}b@example.com")),
                Err(EmailError::Shape),
                "{c:?}"
            );
            assert_eq!(Email::parse(&format!("a@exam{c}ple.com")), Err(EmailError::Shape), "{c:?}");
        }
        for bad in ["a@.example.com", "a@example.com.", "a@example.com-", "a@exam_ple.com"] {
            assert_eq!(Email::parse(bad), Err(EmailError::Shape), "{bad}");
        }
        assert!(Email::parse("a@mail-1.example.com").is_ok());
    }
}
