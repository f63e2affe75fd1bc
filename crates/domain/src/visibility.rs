//! Visibility: the resources that a caller may read and change.

use super::UserId;

/// The owners whose resources a caller may read and change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Every owner, and resources without an owner.
    All,
    /// This user.
    Owner(UserId),
    /// No owner: the caller sees nothing.
    None,
}

impl Visibility {
    /// The visibility of a caller: all for administrators, the own resources for other users, nothing for a caller
    /// without a user.
    pub const fn of(is_admin: bool, user_id: Option<UserId>) -> Self {
        match user_id {
            _ if is_admin => Self::All,
            Some(user_id) => Self::Owner(user_id),
            None => Self::None,
        }
    }

    /// The owner, if there is exactly one.
    pub const fn owner(self) -> Option<UserId> {
        match self {
            Self::Owner(user_id) => Some(user_id),
            Self::All | Self::None => None,
        }
    }

    /// The parameter of a query's condition `$n IS NULL OR user_id = $n`: NULL for [`Self::All`], and 0,
    /// which is no user's id, for [`Self::None`].
    pub const fn owner_filter(self) -> Option<i64> {
        match self {
            Self::All => None,
            Self::Owner(user_id) => Some(user_id.get()),
            Self::None => Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visibility_follows_from_role_and_user() {
        let user = UserId::new(7);
        for (is_admin, user_id, visibility, filter) in [
            (true, user, Visibility::All, None),
            (true, None, Visibility::All, None),
            (false, user, Visibility::Owner(user.unwrap()), Some(7)),
            (false, None, Visibility::None, Some(0)),
        ] {
            assert_eq!(Visibility::of(is_admin, user_id), visibility);
            assert_eq!(visibility.owner_filter(), filter);
        }
    }

    #[test]
    fn only_a_user_is_the_owner() {
        let user = UserId::new(7).unwrap();
        assert_eq!(Visibility::Owner(user).owner(), Some(user));
        assert_eq!((Visibility::All.owner(), Visibility::None.owner()), (None, None));
    }
}
