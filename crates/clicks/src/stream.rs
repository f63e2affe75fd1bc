//! Names of streams, group and field in Redis.

use linnet_platform::redis_keys::KeyLayout;

/// The stream of batches. It has no expiry, so eviction (`volatile-lru`) does not touch it.
pub const STREAM: &str = "linnet:clicks";
/// The consumer group of the workers.
pub const GROUP: &str = "ingest";
/// The only field of an entry: the packed batch.
pub const FIELD: &str = "b";
/// The stream of batches that cannot be ingested, each with the reason.
pub const DEAD_LETTERS: &str = "linnet:clicks:dead";

/// The names of the streams with a layout of keys.
#[derive(Debug, Clone, Copy)]
pub struct StreamNames {
    /// [`STREAM`], or its name in a cluster.
    pub clicks: &'static str,
    /// [`DEAD_LETTERS`], or its name in a cluster.
    pub dead_letters: &'static str,
}

impl StreamNames {
    /// The names with this layout.
    pub const fn of(layout: KeyLayout) -> Self {
        match layout {
            KeyLayout::Server => Self { clicks: STREAM, dead_letters: DEAD_LETTERS },
            KeyLayout::Cluster => {
                Self { clicks: "{linnet}:clicks", dead_letters: "{linnet}:clicks:dead" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_the_prefix_of_their_layout() {
        for layout in [KeyLayout::Server, KeyLayout::Cluster] {
            let names = StreamNames::of(layout);
            assert_eq!(names.clicks, format!("{}clicks", layout.prefix()));
            assert_eq!(names.dead_letters, format!("{}clicks:dead", layout.prefix()));
        }
    }
}
