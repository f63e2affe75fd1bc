//! Users.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::UserId;

/// A user as stored.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct User {
    /// Unique number.
    #[schema(value_type = i64)]
    pub id: UserId,
    /// A label; several users may have the same.
    pub username: String,
    /// Unique, whatever its case.
    pub email: String,
    /// When the user was made.
    pub created_at: DateTime<Utc>,
}

/// What is needed to make a user.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// 1 to [`User::MAX_USERNAME`] characters.
    pub username: String,
    /// A checked address.
    pub email: Email,
}

/// A change of a user; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct UserPatch {
    /// New label.
    pub username: Option<String>,
    /// New address.
    pub email: Option<Email>,
}

impl User {
    /// Longest user name, in characters.
    pub const MAX_USERNAME: usize = 100;
}

/// An e-mail address that has the shape of one. Whether mail arrives is not checked here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

/// Why a text is no e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    /// Longer than the 254 characters that RFC 5321 leaves for a path.
    #[error("must be at most 254 characters")]
    TooLong,
    /// Not `local@domain`.
    #[error("must be an e-mail address, such as ada@example.com")]
    Shape,
}

impl Email {
    /// Accepts `local@domain` of printable characters without white space; the domain has a letter
    /// or digit at both ends. Deliberately lax: RFC 5322 allows far more than people use, and only
    /// a mail that arrives proves an address.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        if text.chars().count() > 254 {
            return Err(EmailError::TooLong);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(EmailError::Shape)?;
        let printable = |c: char| !c.is_control() && !c.is_whitespace();
        let local_ok = !local.is_empty()
            && local.chars().count() <= 64
            && local.chars().all(|c| printable(c) && !"@,;:<>()[]\\\"".contains(c));
        let domain_ok = domain.starts_with(char::is_alphanumeric)
            && domain.ends_with(char::is_alphanumeric)
            && !domain.contains("..")
            && domain.chars().all(|c| c.is_alphanumeric() || c == '.' || c == '-');
        if local_ok && domain_ok { Ok(Self(text.to_owned())) } else { Err(EmailError::Shape) }
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
    fn addresses() {
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
}
