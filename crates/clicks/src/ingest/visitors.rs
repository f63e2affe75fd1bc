//! Counting different visitors, in Redis.
//!
//! For each subject and day there is a set of visitors' hashes up to [`EXACT`] of them, which counts
//! exactly, and from then on a `HyperLogLog` of 12 KiB, which counts with a standard error of 0.81 %.
//! Adding a visitor twice changes nothing, so a group that is tried again does no harm. The counts
//! are folded into the roll-ups by day with the group.
//!
//! A mark says that the keys of a day are there. When it is gone although the day had visitors, Redis
//! has lost them, and they are built again from the raw clicks.

use std::{collections::HashMap, sync::LazyLock};

use chrono::NaiveDate;
use redis::{RedisError, Script, aio::MultiplexedConnection};

use linnet_domain::Subject;
use linnet_store::{Store, StoreError};

use super::group::{Visitors, subjects};

/// Visitors of one subject and day that are counted exactly.
const EXACT: usize = 1_000;
/// Life of the keys, in seconds: clicks of a day may come late, after an outage.
const LIFE_S: u32 = 3 * 24 * 3_600;
/// Visitors of one script call; Redis does nothing else while it runs.
const CALL_VISITORS: usize = 2_000;
/// Rows read at a time when a day is built again.
const REBUILD_ROWS: i64 = 5_000;

/// Adds visitors to each key; gives how many each has. `KEYS[i]` has `ARGV[…]`: a count and as many
/// hashes. A set that outgrows its limit becomes a `HyperLogLog` under the same name.
static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local life, exact, at = ARGV[1], tonumber(ARGV[2]), 3
        local counts = {}
        for i, key in ipairs(KEYS) do
            local last = at + tonumber(ARGV[at])
            local added = redis.pcall('SADD', key, unpack(ARGV, at + 1, last))
            if type(added) == 'table' and added.err then
                redis.call('PFADD', key, unpack(ARGV, at + 1, last))
                counts[i] = redis.call('PFCOUNT', key)
            else
                local count = redis.call('SCARD', key)
                if count == added then
                    redis.call('EXPIRE', key, life)
                end
                if count > exact then
                    local members = redis.call('SMEMBERS', key)
                    redis.call('DEL', key)
                    for from = 1, #members, 1000 do
                        local to = math.min(from + 999, #members)
                        redis.call('PFADD', key, unpack(members, from, to))
                    end
                    redis.call('EXPIRE', key, life)
                    count = redis.call('PFCOUNT', key)
                end
                counts[i] = count
            end
            at = last + 1
        end
        return counts
        ",
    )
});

/// Why visitors could not be counted.
#[derive(Debug, thiserror::Error)]
pub(super) enum VisitorsError {
    #[error("a Redis command failed")]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Adds the visitors; how many each subject had on each day so far.
pub(super) async fn count_visitors(
    redis: &mut MultiplexedConnection,
    store: &Store,
    visitors: &Visitors,
) -> Result<HashMap<(Subject, NaiveDate), i64>, VisitorsError> {
    let mut days: Vec<NaiveDate> = visitors.keys().map(|(_, day)| *day).collect();
    days.sort_unstable();
    days.dedup();
    for day in days {
        rebuild_if_lost(redis, store, day).await?;
    }
    add(redis, visitors).await
}

async fn add(
    redis: &mut MultiplexedConnection,
    visitors: &Visitors,
) -> Result<HashMap<(Subject, NaiveDate), i64>, VisitorsError> {
    let mut counts = HashMap::with_capacity(visitors.len());
    let mut call = Call::new();
    for (key, hashes) in visitors {
        // Lua takes some thousand arguments at a time.
        for part in hashes.chunks(CALL_VISITORS) {
            call.add(*key, part);
            if call.visitors >= CALL_VISITORS {
                call.send(redis, &mut counts).await?;
            }
        }
    }
    call.send(redis, &mut counts).await?;
    Ok(counts)
}

struct Call {
    invocation: redis::ScriptInvocation<'static>,
    subjects: Vec<(Subject, NaiveDate)>,
    visitors: usize,
}

impl Call {
    fn new() -> Self {
        let mut invocation = ADD.prepare_invoke();
        invocation.arg(LIFE_S).arg(EXACT);
        Self { invocation, subjects: Vec::new(), visitors: 0 }
    }

    fn add(&mut self, (subject, day): (Subject, NaiveDate), hashes: &[i64]) {
        self.invocation.key(key_of(subject, day)).arg(hashes.len()).arg(hashes);
        self.subjects.push((subject, day));
        // A key costs about as much as a visitor.
        self.visitors += hashes.len() + 1;
    }

    async fn send(
        &mut self,
        redis: &mut MultiplexedConnection,
        counts: &mut HashMap<(Subject, NaiveDate), i64>,
    ) -> Result<(), VisitorsError> {
        if self.subjects.is_empty() {
            return Ok(());
        }
        let call = std::mem::replace(self, Self::new());
        let answer: Vec<i64> = call.invocation.invoke_async(redis).await?;
        for (subject, count) in call.subjects.into_iter().zip(answer) {
            // A subject in several parts: the last count is the highest.
            counts.insert(subject, count);
        }
        Ok(())
    }
}

/// Forgets who visited these subjects on a day that is over. Their counts stay.
pub async fn forget_visitors(
    redis: &mut MultiplexedConnection,
    day: NaiveDate,
    subjects: &[Subject],
) -> Result<(), RedisError> {
    for part in subjects.chunks(CALL_VISITORS) {
        let keys: Vec<String> = part.iter().map(|subject| key_of(*subject, day)).collect();
        let _: i64 = redis::cmd("UNLINK").arg(keys).query_async(redis).await?;
    }
    Ok(())
}

fn key_of(subject: Subject, day: NaiveDate) -> String {
    format!("linnet:v:{day}:{}", subject.key())
}

async fn rebuild_if_lost(
    redis: &mut MultiplexedConnection,
    store: &Store,
    day: NaiveDate,
) -> Result<(), VisitorsError> {
    let mark = format!("linnet:v:{day}");
    let is_there: bool = redis::cmd("EXISTS").arg(&mark).query_async(redis).await?;
    if is_there {
        return Ok(());
    }
    if store.had_visitors(day).await? {
        tracing::warn!(%day, "Redis has lost the visitors of a day: building them again");
        rebuild(redis, store, day).await?;
    }
    let _: () =
        redis::cmd("SET").arg(&mark).arg(1).arg("EX").arg(LIFE_S).query_async(redis).await?;
    Ok(())
}

async fn rebuild(
    redis: &mut MultiplexedConnection,
    store: &Store,
    day: NaiveDate,
) -> Result<(), VisitorsError> {
    let mut after = None;
    loop {
        let rows = store.visitors_of_day(day, after, REBUILD_ROWS).await?;
        let Some((last, _, visitor)) = rows.last() else { return Ok(()) };
        after = Some((*last, *visitor));
        let mut visitors = Visitors::new();
        for (url_id, user_id, visitor) in rows {
            for subject in subjects(url_id, user_id) {
                visitors.entry((subject, day)).or_default().push(visitor);
            }
        }
        add(redis, &visitors).await?;
    }
}
