//! L2: entries in Redis, shared by all processes.

use std::{sync::LazyLock, time::Duration};

use linnet_platform::{
    redis_client::{RedisClient, RedisUnavailable},
    redis_keys::KeyLayout,
};
use linnet_protocol::invalidation::{CHANNEL, Invalidation, l2_key};
use rand::RngExt;
use redis::{Script, ScriptInvocation};

use super::{CacheEntry, CacheSettings, Resolution};

/// Writes each entry unless Redis has one of the same or a higher version, and publishes its
/// invalidation. `GETRANGE` reads the 19 digits of the version and the kind of the entry that is there.
/// Of the same version, a negative entry replaces another one: a link expires, and uses up its clicks,
/// without a change of its row. Invalidations are published even if Redis refuses the write, so that L1
/// is correct in every process.
static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local result = 0
        for i, key in ipairs(KEYS) do
            local entry, ttl, message = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
            local current = redis.call('GETRANGE', key, 0, 19)
            local old, new = string.sub(current, 1, 19), string.sub(entry, 1, 19)
            local has_ended = string.sub(entry, 20, 20) == 'N' and string.sub(current, 20, 20) ~= 'N'
            if old == '' or old < new or (old == new and has_ended) then
                local reply = redis.pcall('SET', key, entry, 'PX', ttl)
                if type(reply) == 'table' and reply.err then
                    result = reply
                end
            end
            if message ~= '' then
                redis.call('PUBLISH', ARGV[1], message)
            end
        end
        return result
        ",
    )
});

/// Removes an entry that still has the version that was read, in its 19 digits.
static REMOVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('GETRANGE', KEYS[1], 0, 18) == ARGV[1] then
            return redis.call('DEL', KEYS[1])
        end
        return 0
        ",
    )
});

/// TTLs of L2, and the commands that read and write it.
#[derive(Debug, Clone)]
pub struct L2Cache {
    layout: KeyLayout,
    ttl: Duration,
    negative_ttl: Duration,
}

fn begin() -> ScriptInvocation<'static> {
    let mut call = WRITE.prepare_invoke();
    call.arg(CHANNEL);
    call
}

impl L2Cache {
    /// With the configured TTLs, and the layout of the Redis that it is used with.
    pub fn new(settings: &CacheSettings, layout: KeyLayout) -> Self {
        Self {
            layout,
            ttl: Duration::from_secs(settings.l2_ttl_s),
            negative_ttl: Duration::from_secs(settings.l2_negative_ttl_s),
        }
    }

    /// How the keys of L2 are named.
    pub(super) fn key_layout(&self) -> KeyLayout {
        self.layout
    }

    /// Reads the entry of a code.
    pub(super) async fn get(
        &self,
        redis: &RedisClient,
        code: &str,
    ) -> Result<Option<CacheEntry>, RedisUnavailable> {
        let text: Option<Vec<u8>> =
            redis.query(redis::cmd("GET").arg(l2_key(self.layout, code))).await?;
        Ok(text.as_deref().and_then(CacheEntry::decode))
    }

    /// Writes the result of a fill.
    pub(super) async fn fill(
        &self,
        redis: &RedisClient,
        code: &str,
        entry: &CacheEntry,
    ) -> Result<(), RedisUnavailable> {
        let mut call = begin();
        self.add(&mut call, code, entry, "");
        let _: i64 = redis.script(&call).await?;
        Ok(())
    }

    /// Removes an entry unless its version has changed since it was read.
    pub(super) async fn remove(
        &self,
        redis: &RedisClient,
        code: &str,
        version: i64,
    ) -> Result<(), RedisUnavailable> {
        let mut call = REMOVE.prepare_invoke();
        call.key(l2_key(self.layout, code)).arg(format!("{version:019}"));
        let _: i64 = redis.script(&call).await?;
        Ok(())
    }

    /// Writes a changed entry and publishes its invalidation.
    pub(super) async fn publish(
        &self,
        redis: &RedisClient,
        code: &str,
        entry: &CacheEntry,
    ) -> Result<(), RedisUnavailable> {
        let _: i64 = redis.script(&self.publication([(code, entry)])).await?;
        Ok(())
    }

    /// The script call of [`L2Cache::publish`], for many changes and for other kinds of connections.
    /// Redis executes nothing else while the script runs, so pass at most a few hundred changes.
    pub(super) fn publication<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a str, &'a CacheEntry)>,
    ) -> ScriptInvocation<'static> {
        let mut call = begin();
        for (code, entry) in changes {
            let change = Invalidation::Link { code: code.to_owned(), version: entry.version };
            self.add(&mut call, code, entry, &change.encode());
        }
        call
    }

    fn add(
        &self,
        call: &mut ScriptInvocation<'static>,
        code: &str,
        entry: &CacheEntry,
        message: &str,
    ) {
        let ttl_ms = u64::try_from(self.ttl_of(entry).as_millis()).unwrap_or(u64::MAX).max(1);
        call.key(l2_key(self.layout, code)).arg(entry.encode()).arg(ttl_ms).arg(message);
    }

    /// The TTL of an entry, spread by ± 10 %, so that entries that were cached together do not expire together.
    fn ttl_of(&self, entry: &CacheEntry) -> Duration {
        match &entry.resolution {
            Resolution::Negative(_) => self.negative_ttl,
            Resolution::Redirect(_) | Resolution::Limited => {
                self.ttl.mul_f64(rand::rng().random_range(0.9..=1.1))
            }
        }
    }
}
