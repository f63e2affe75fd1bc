//! L2: Redis, shared by all processes.

use std::{sync::LazyLock, time::Duration};

use linnet_platform::redis_client::{RedisAway, RedisClient};
use linnet_protocol::invalidation::{CHANNEL, Invalidation, l2_key};
use rand::RngExt;
use redis::{Script, ScriptInvocation};

use super::{Answer, CacheSettings, Entry};

/// Writes entries, each unless Redis holds one of the same or a higher version, and tells the
/// processes what there is to tell. `GETRANGE` reads the 19 digits of the version that is there.
/// News are told also when Redis refuses to write: the processes' own caches can still be right.
static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local result = 0
        for i, key in ipairs(KEYS) do
            local entry, ttl, news = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
            local held = redis.call('GETRANGE', key, 0, 18)
            if held == '' or held < string.sub(entry, 1, 19) then
                local reply = redis.pcall('SET', key, entry, 'PX', ttl)
                if type(reply) == 'table' and reply.err then
                    result = reply
                end
            end
            if news ~= '' then
                redis.call('PUBLISH', ARGV[1], news)
            end
        end
        return result
        ",
    )
});

/// Lifetimes in L2, and the key names.
#[derive(Debug, Clone)]
pub struct L2Cache {
    ttl: Duration,
    absent_ttl: Duration,
}

fn begin() -> ScriptInvocation<'static> {
    let mut call = WRITE.prepare_invoke();
    call.arg(CHANNEL);
    call
}

impl L2Cache {
    /// With the configured lifetimes.
    pub fn new(settings: &CacheSettings) -> Self {
        Self {
            ttl: Duration::from_secs(settings.l2_ttl_s),
            absent_ttl: Duration::from_secs(settings.l2_negative_ttl_s),
        }
    }

    /// What Redis holds of a code.
    pub(super) async fn get(
        &self,
        link: &RedisClient,
        code: &str,
    ) -> Result<Option<Entry>, RedisAway> {
        let text: Option<Vec<u8>> = link.query(redis::cmd("GET").arg(l2_key(code))).await?;
        Ok(text.as_deref().and_then(Entry::decode))
    }

    /// Writes what a fill brought.
    pub(super) async fn fill(
        &self,
        link: &RedisClient,
        code: &str,
        entry: &Entry,
    ) -> Result<(), RedisAway> {
        let mut call = begin();
        self.add(&mut call, code, entry, "");
        let _: i64 = link.script(&call).await?;
        Ok(())
    }

    /// Writes a change and tells all processes.
    pub(super) async fn announce(
        &self,
        link: &RedisClient,
        code: &str,
        entry: &Entry,
    ) -> Result<(), RedisAway> {
        let _: i64 = link.script(&self.announcement([(code, entry)])).await?;
        Ok(())
    }

    /// The script call behind [`L2Cache::announce`], for many changes and for connections of
    /// other kinds. Redis does nothing else while it runs: at most some hundred changes.
    pub(super) fn announcement<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a str, &'a Entry)>,
    ) -> ScriptInvocation<'static> {
        let mut call = begin();
        for (code, entry) in changes {
            let change = Invalidation::Link { code: code.to_owned(), version: entry.version };
            self.add(&mut call, code, entry, &change.encode());
        }
        call
    }

    fn add(&self, call: &mut ScriptInvocation<'static>, code: &str, entry: &Entry, news: &str) {
        let ttl_ms = u64::try_from(self.ttl_of(entry).as_millis()).unwrap_or(u64::MAX).max(1);
        call.key(l2_key(code)).arg(entry.encode()).arg(ttl_ms).arg(news);
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
