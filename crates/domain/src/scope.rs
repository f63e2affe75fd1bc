//! Scopes: the permissions of API keys.

use std::fmt;

/// A permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Read own links, events and statistics.
    UrlsRead = 1,
    /// Create, change and delete own links.
    UrlsWrite = 1 << 1,
    /// Read the own user and its API keys.
    UsersRead = 1 << 2,
    /// Change the own user and its API keys.
    UsersWrite = 1 << 3,
    /// Start and cancel jobs.
    JobsWrite = 1 << 4,
    /// Everything, for every user's resources.
    Admin = 1 << 5,
}

impl Scope {
    /// All scopes, in the order of their text form.
    pub const ALL: [Self; 6] = [
        Self::UrlsRead,
        Self::UrlsWrite,
        Self::UsersRead,
        Self::UsersWrite,
        Self::JobsWrite,
        Self::Admin,
    ];

    /// The scope's name in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UrlsRead => "urls:read",
            Self::UrlsWrite => "urls:write",
            Self::UsersRead => "users:read",
            Self::UsersWrite => "users:write",
            Self::JobsWrite => "jobs:write",
            Self::Admin => "admin",
        }
    }

    /// The inverse of [`Scope::as_str`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// A set of [`Scope`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether the set contains `scope` or [`Scope::Admin`].
    pub const fn allows(self, scope: Scope) -> bool {
        self.0 & (scope as u8 | Scope::Admin as u8) != 0
    }

    /// Whether the set allows every scope of `other`.
    pub fn covers(self, other: Self) -> bool {
        other.iter().all(|scope| self.allows(scope))
    }

    /// The scopes in [`Scope::ALL`]'s order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & *scope as u8 != 0)
    }

    /// Parses names that are separated by blanks; `None` if one is unknown.
    pub fn parse(text: &str) -> Option<Self> {
        text.split_ascii_whitespace().map(Scope::parse).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope as u8))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_round_trip_as_text() {
        let scopes: Scopes = [Scope::UrlsWrite, Scope::UrlsRead].into_iter().collect();
        assert_eq!(scopes.to_string(), "urls:read urls:write");
        assert_eq!(Scopes::parse("urls:read urls:write"), Some(scopes));
        assert_eq!(Scopes::parse("urls:read root"), None);
    }

    #[test]
    fn admin_covers_every_scope_and_no_other_scope_covers_admin() {
        let admin: Scopes = [Scope::Admin].into_iter().collect();
        let rest: Scopes = Scope::ALL.into_iter().filter(|s| *s != Scope::Admin).collect();
        assert!(admin.covers(rest));
        assert!(!rest.covers(admin));
    }

    #[test]
    fn must_16_a_scope_allows_itself_only() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
            let set: Scopes = [scope].into_iter().collect();
            for other in Scope::ALL {
                let is_allowed = scope == other || scope == Scope::Admin;
                assert_eq!(set.allows(other), is_allowed, "{scope:?} {other:?}");
            }
            assert!(!Scopes::default().allows(scope));
            assert_eq!(set.iter().collect::<Vec<_>>(), [scope]);
        }
        assert_eq!(Scope::parse("Admin"), None);
    }

    #[test]
    fn every_set_round_trips_as_text() {
        for bits in 0_u8..64 {
            let members = Scope::ALL.into_iter().enumerate();
            let set: Scopes =
                members.filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, scope)| scope).collect();
            assert_eq!(u32::try_from(set.iter().count()), Ok(bits.count_ones()));
            assert_eq!(Scopes::parse(&set.to_string()), Some(set));
            assert_eq!(format!("{set:?}"), format!("Scopes({set})"));
        }
    }

    #[test]
    fn a_set_covers_its_subsets() {
        let set = |text: &str| Scopes::parse(text).unwrap();
        assert!(set("urls:read urls:write").covers(set("urls:read")));
        assert!(!set("urls:read").covers(set("urls:read urls:write")));
        assert!(set("").covers(set("")));
    }

    #[test]
    fn a_scope_that_is_named_twice_counts_once() {
        assert_eq!(Scopes::parse("urls:read urls:read"), Scopes::parse("urls:read"));
    }
}
