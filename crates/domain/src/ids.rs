//! Ids: one type for each kind of resource, so that a link's id cannot be used as a user's.
//!
//! * An id is a whole number of at least 1. Numbers from the database are trusted to be positive.
//! * An id and an optional id both take 8 bytes.
//! * In JSON, in logs and in the database an id is the bare number.

use std::{fmt, num::NonZeroI64, str::FromStr};

use serde::{Deserialize, Serialize};

/// The number or text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number of at least 1")]
pub struct InvalidId;

/// Declares id types.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)+) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "i64", try_from = "i64")]
        #[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(transparent))]
        pub struct $name(NonZeroI64);

        impl $name {
            /// The lowest id, 1.
            pub const MIN: Self = Self(match NonZeroI64::new(1) {
                Some(number) => number,
                None => unreachable!(),
            });

            /// The id with this number; `None` for a number below 1.
            pub const fn new(number: i64) -> Option<Self> {
                match NonZeroI64::new(number) {
                    Some(number) if number.is_positive() => Some(Self(number)),
                    _ => None,
                }
            }

            /// The number, at least 1.
            pub const fn get(self) -> i64 {
                self.0.get()
            }
        }

        impl From<$name> for i64 {
            fn from(id: $name) -> Self {
                id.get()
            }
        }

        impl TryFrom<i64> for $name {
            type Error = InvalidId;

            fn try_from(number: i64) -> Result<Self, InvalidId> {
                Self::new(number).ok_or(InvalidId)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        /// Accepts only the spelling that [`fmt::Display`] writes: "+7" and "007" are not ids.
        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if text.starts_with(['+', '0']) {
                    return Err(InvalidId);
                }
                text.parse().ok().and_then(Self::new).ok_or(InvalidId)
            }
        }
    )+ };
}

ids! {
    /// The id of a link.
    LinkId;
    /// The id of a user.
    UserId;
    /// The id of a bulk job.
    JobId;
    /// The id of an event or a click; both come from one sequence.
    EventId;
    /// The id of a ban of a host or of a short code.
    BanId;
    /// The id of an outbox row, which is a change that is not yet published to the caches.
    OutboxId;
    /// The id of an upload in the database.
    UploadId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_whole_number_from_1_on() {
        assert_eq!(LinkId::new(1), Some(LinkId::MIN));
        assert_eq!(LinkId::new(i64::MAX).map(LinkId::get), Some(i64::MAX));
        for number in [0, -1, i64::MIN] {
            assert_eq!(LinkId::new(number), None, "{number}");
            assert_eq!(LinkId::try_from(number), Err(InvalidId), "{number}");
        }
    }

    #[test]
    fn only_the_plain_spelling_is_an_id() {
        assert_eq!("7".parse(), Ok(UserId::new(7).unwrap()));
        for text in ["", "0", "-1", "+7", "007", " 7", "7.0", "9223372036854775808", "x"] {
            assert_eq!(text.parse::<UserId>(), Err(InvalidId), "{text:?}");
        }
    }

    #[test]
    fn json_has_the_bare_number() {
        let id = JobId::new(7).unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "7");
        assert_eq!(serde_json::from_str::<JobId>("7").unwrap(), id);
        assert!(serde_json::from_str::<JobId>("0").is_err());
        assert!(serde_json::from_str::<JobId>("\"7\"").is_err());
    }

    #[test]
    fn an_optional_id_takes_no_more_room() {
        assert_eq!(size_of::<Option<LinkId>>(), size_of::<i64>());
    }
}
