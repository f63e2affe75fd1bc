//! L2: Redis, shared by all processes.

use std::{sync::LazyLock, time::Duration};

use linnet_platform::{
    change_feed::{CHANNEL, Change},
    redis_link::{RedisAway, RedisLink},
};
use rand::RngExt;
use redis::{Script, ScriptInvocation};

use super::{Answer, CacheSettings, Entry};

/// Writes an entry unless Redis holds one of the same or a higher version, and tells the processes
/// when there is a message to tell. `GETRANGE` reads the 16 digits of the version that is there.
static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local held = redis.call('GETRANGE', KEYS[1], 0, 15)
        local written = 0
        if held == '' or held < string.sub(ARGV[1], 1, 16) then
            redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
            written = 1
        end
        if ARGV[3] ~= '' then
            redis.call('PUBLISH', ARGV[4], ARGV[3])
        end
        return written
        ",
    )
});

/// Lifetimes in L2, and the key names.
#[derive(Debug, Clone)]
pub struct SharedCache {
    ttl: Duration,
    absent_ttl: Duration,
}

/// The key of a code.
pub(crate) fn key_of(code: &str) -> String {
    format!("l:{code}")
}

impl SharedCache {
    /// With the configured lifetimes.
    pub fn new(settings: &CacheSettings) -> Self {
        Self {
            ttl: Duration::from_secs(settings.shared_ttl_s),
            absent_ttl: Duration::from_secs(settings.shared_absent_ttl_s),
        }
    }

    /// What Redis holds of a code.
    pub(super) async fn get(
        &self,
        link: &RedisLink,
        code: &str,
    ) -> Result<Option<Entry>, RedisAway> {
        let text: Option<Vec<u8>> = link.query(redis::cmd("GET").arg(key_of(code))).await?;
        Ok(text.as_deref().and_then(Entry::decode))
    }

    /// Writes what a fill brought.
    pub(super) async fn fill(
        &self,
        link: &RedisLink,
        code: &str,
        entry: &Entry,
    ) -> Result<(), RedisAway> {
        let _: i64 = link.script(&self.write(code, entry, None)).await?;
        Ok(())
    }

    /// Writes a change and tells all processes.
    pub(super) async fn announce(
        &self,
        link: &RedisLink,
        code: &str,
        entry: &Entry,
    ) -> Result<(), RedisAway> {
        let _: i64 = link.script(&self.announcement(code, entry)).await?;
        Ok(())
    }

    /// The script call behind [`SharedCache::announce`], for connections of other kinds.
    pub(super) fn announcement(&self, code: &str, entry: &Entry) -> ScriptInvocation<'static> {
        let change = Change::Link { code: code.to_owned(), version: entry.version };
        self.write(code, entry, Some(&change))
    }

    fn write(
        &self,
        code: &str,
        entry: &Entry,
        change: Option<&Change>,
    ) -> ScriptInvocation<'static> {
        let ttl_ms = u64::try_from(self.ttl_of(entry).as_millis()).unwrap_or(u64::MAX).max(1);
        let mut call = WRITE.prepare_invoke();
        call.key(key_of(code))
            .arg(entry.encode())
            .arg(ttl_ms)
            .arg(change.map(Change::encode).unwrap_or_default())
            .arg(CHANNEL);
        call
    }

    /// Spread by ± 10 %, so that what was cached together does not expire together.
    fn ttl_of(&self, entry: &Entry) -> Duration {
        match &entry.answer {
            Answer::Absent => self.absent_ttl,
            Answer::Redirect(_) | Answer::Limited => {
                self.ttl.mul_f64(rand::rng().random_range(0.9..=1.1))
            }
        }
    }
}
