//! The subject of statistics, and its number in the roll-ups.

use std::{
    cmp::Ordering,
    hash::{Hash, Hasher},
};

use super::{LinkId, UserId};

/// The owner of a set of roll-ups.
///
/// Subjects are ordered by [`Subject::key`], the order in which writers lock rows of roll-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// One link.
    Link(LinkId),
    /// All links of one user.
    User(UserId),
    /// All links.
    Service,
}

impl Subject {
    /// The number in the roll-ups: a link's id, a user's id negated, or 0 for the whole service.
    pub const fn key(self) -> i64 {
        match self {
            Self::Link(id) => id.get(),
            Self::User(id) => -id.get(),
            Self::Service => 0,
        }
    }

    /// The link, if the subject is one.
    pub const fn link_id(self) -> Option<LinkId> {
        match self {
            Self::Link(id) => Some(id),
            Self::User(_) | Self::Service => None,
        }
    }

    /// The user, if the subject is one.
    pub const fn user_id(self) -> Option<UserId> {
        match self {
            Self::User(id) => Some(id),
            Self::Link(_) | Self::Service => None,
        }
    }
}

impl Ord for Subject {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Subject {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Subject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_has_its_own_key_and_order_follows_keys() {
        let (link, user) = (LinkId::new(7).unwrap(), UserId::new(7).unwrap());
        let mut subjects = [Subject::Link(link), Subject::Service, Subject::User(user)];
        assert_eq!(subjects.map(Subject::key), [7, 0, -7]);
        subjects.sort_unstable();
        assert_eq!(subjects, [Subject::User(user), Subject::Service, Subject::Link(link)]);
    }

    #[test]
    fn a_subject_is_a_link_a_user_or_the_service() {
        let (link, user) = (LinkId::new(7).unwrap(), UserId::new(8).unwrap());
        for (subject, link_id, user_id) in [
            (Subject::Link(link), Some(link), None),
            (Subject::User(user), None, Some(user)),
            (Subject::Service, None, None),
        ] {
            assert_eq!((subject.link_id(), subject.user_id()), (link_id, user_id));
            assert_eq!(subject.partial_cmp(&subject), Some(Ordering::Equal));
        }
        let hash = |subject: Subject| {
            let mut state = std::hash::DefaultHasher::new();
            subject.hash(&mut state);
            state.finish()
        };
        assert_ne!(hash(Subject::Link(link)), hash(Subject::User(user)));
        assert_eq!(hash(Subject::Service), hash(Subject::Service));
    }
}
