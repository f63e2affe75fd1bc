//! Invalidations: messages that make caches drop a changed link or key.

use linnet_platform::redis_keys::KeyLayout;

/// The Redis channel that carries [`Invalidation`]s.
pub const CHANNEL: &str = "linnet:changes";

/// The Redis key of a short code's entry in L2.
pub fn l2_key(layout: KeyLayout, code: &str) -> String {
    let prefix = layout.l2_prefix();
    let mut key = String::with_capacity(prefix.len() + code.len());
    key.push_str(prefix);
    key.push_str(code);
    key
}

/// A Redis script that deletes the negative entries among its keys ([`l2_key`]), after links with these codes were
/// imported. The letter after the 19 digits of the version is `N` in a negative entry. Other entries stay: they belong to
/// links that were changed since, and only an entry in L2 rejects a late fill with a lower version.
pub const DELETE_NEGATIVE_ENTRIES: &str = r"
    local deleted = 0
    for _, key in ipairs(KEYS) do
        if redis.call('GETRANGE', key, 19, 19) == 'N' then
            deleted = deleted + redis.call('DEL', key)
        end
    end
    return deleted
";

/// A change that makes cached entries stale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalidation {
    /// A link was created, edited or deleted.
    Link {
        /// Its short code.
        code: String,
        /// The row's version after the change.
        version: i64,
    },
    /// An API key was revoked or changed.
    Key {
        /// The key's public id.
        id: String,
    },
}

impl Invalidation {
    /// The message on [`CHANNEL`].
    pub fn encode(&self) -> String {
        match self {
            Self::Link { code, version } => format!("l {version} {code}"),
            Self::Key { id } => format!("k {id}"),
        }
    }

    /// Decodes a message; `None` if it is not valid, for example one of a later release.
    pub fn decode(message: &str) -> Option<Self> {
        let (kind, rest) = message.split_once(' ')?;
        match kind {
            "l" => {
                let (version, code) = rest.split_once(' ')?;
                Some(Self::Link { code: code.into(), version: version.parse().ok()? })
            }
            "k" => Some(Self::Key { id: rest.into() }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip_and_invalid_ones_are_rejected() {
        for invalidation in [
            Invalidation::Link { code: "abc-_9".into(), version: 42 },
            Invalidation::Key { id: "Ab3xYz01".into() },
        ] {
            assert_eq!(Invalidation::decode(&invalidation.encode()), Some(invalidation));
        }
        for message in ["", "l", "l x y", "z 1", "l 1"] {
            assert_eq!(Invalidation::decode(message), None, "{message}");
        }
    }

    #[test]
    fn messages_and_keys_have_the_form_that_other_releases_read() {
        let link = Invalidation::Link { code: "abc".into(), version: 42 };
        assert_eq!(link.encode(), "l 42 abc");
        assert_eq!(Invalidation::Key { id: "Ab3xYz01".into() }.encode(), "k Ab3xYz01");
        assert_eq!(l2_key(KeyLayout::Server, "abc"), "l:abc");
        assert_eq!(l2_key(KeyLayout::Cluster, "abc"), "{linnet}:l:abc");
    }
}
