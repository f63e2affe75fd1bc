//! Counts unique visitors in Redis.
//!
//! - Each subject and day has a key: a set of up to [`EXACT_VISITORS`] hashes, which counts exactly, and beyond that a
//!   `HyperLogLog` of 12 KiB, whose standard error is 0.81 %.
//! - Adding a visitor twice changes nothing, so a retried group is harmless. The group writes the counts to the roll-ups.
//! - Each day has a marker key. If it is missing although PostgreSQL has visitors of that day, Redis has lost its data, and
//!   the keys are rebuilt from raw clicks.

use std::{collections::HashMap, sync::LazyLock};

use chrono::NaiveDate;
use redis::{RedisError, Script, aio::MultiplexedConnection};

use linnet_domain::Subject;
use linnet_platform::redis_keys::KeyLayout;
use linnet_store::{Store, StoreError};

use super::group::{VisitorsByDay, subjects};

/// The maximum number of visitors of one subject and day that are counted exactly.
const EXACT_VISITORS: usize = 1_000;
/// TTL of the keys, in seconds. It exceeds a day because clicks arrive late after an outage.
const TTL_S: u32 = 3 * 24 * 3_600;
/// The maximum number of visitors of one script call, which blocks Redis while it runs.
const VISITORS_PER_CALL: usize = 2_000;
/// Rows of one read while a day is rebuilt.
const REBUILD_ROWS: i64 = 5_000;

/// Adds visitors to each key, and returns the number of visitors of each. A set beyond the limit becomes a `HyperLogLog`
/// under the same name.
///
/// `ARGV` has the TTL, the limit of exact counts, and for each key the number of hashes followed by the hashes.
static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local ttl, exact, at = ARGV[1], tonumber(ARGV[2]), 3
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
                    redis.call('EXPIRE', key, ttl)
                end
                if count > exact then
                    local members = redis.call('SMEMBERS', key)
                    redis.call('DEL', key)
                    for from = 1, #members, 1000 do
                        local to = math.min(from + 999, #members)
                        redis.call('PFADD', key, unpack(members, from, to))
                    end
                    redis.call('EXPIRE', key, ttl)
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

/// Why visitors were not counted.
#[derive(Debug, thiserror::Error)]
pub(super) enum VisitorsError {
    #[error("a Redis command failed")]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Adds these visitors. Returns the number of visitors so far of each subject and day.
pub(super) async fn count_visitors(
    redis: &mut MultiplexedConnection,
    layout: KeyLayout,
    store: &Store,
    visitors: &VisitorsByDay,
) -> Result<HashMap<(Subject, NaiveDate), i64>, VisitorsError> {
    let mut days: Vec<NaiveDate> = visitors.keys().map(|(_, day)| *day).collect();
    days.sort_unstable();
    days.dedup();
    for day in days {
        rebuild_if_lost(redis, layout, store, day).await?;
    }
    add(redis, layout, visitors).await
}

async fn add(
    redis: &mut MultiplexedConnection,
    layout: KeyLayout,
    visitors: &VisitorsByDay,
) -> Result<HashMap<(Subject, NaiveDate), i64>, VisitorsError> {
    let mut counts = HashMap::with_capacity(visitors.len());
    let mut call = AddCall::new(layout);
    for (key, hashes) in visitors {
        // `unpack` in Lua is limited to some thousand values.
        for part in hashes.chunks(VISITORS_PER_CALL) {
            call.add(*key, part);
            if call.visitors >= VISITORS_PER_CALL {
                call.send(redis, &mut counts).await?;
            }
        }
    }
    call.send(redis, &mut counts).await?;
    Ok(counts)
}

/// A call of [`ADD`] that collects its keys and arguments before it is sent.
struct AddCall {
    layout: KeyLayout,
    invocation: redis::ScriptInvocation<'static>,
    subjects: Vec<(Subject, NaiveDate)>,
    visitors: usize,
}

impl AddCall {
    fn new(layout: KeyLayout) -> Self {
        let mut invocation = ADD.prepare_invoke();
        invocation.arg(TTL_S).arg(EXACT_VISITORS);
        Self { layout, invocation, subjects: Vec::new(), visitors: 0 }
    }

    fn add(&mut self, (subject, day): (Subject, NaiveDate), hashes: &[i64]) {
        self.invocation.key(key_of(self.layout, subject, day)).arg(hashes.len()).arg(hashes);
        self.subjects.push((subject, day));
        // The script needs about as much time for a key as for a visitor.
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
        let call = std::mem::replace(self, Self::new(self.layout));
        let new_counts: Vec<i64> = call.invocation.invoke_async(redis).await?;
        for (subject, count) in call.subjects.into_iter().zip(new_counts) {
            // If the visitors of a subject are sent in several parts, the last count is the highest.
            counts.insert(subject, count);
        }
        Ok(())
    }
}

/// Deletes the keys of these subjects for a day that is over. The counts in the roll-ups stay.
pub async fn delete_visitor_counts(
    redis: &mut MultiplexedConnection,
    layout: KeyLayout,
    day: NaiveDate,
    subjects: &[Subject],
) -> Result<(), RedisError> {
    for part in subjects.chunks(VISITORS_PER_CALL) {
        let keys: Vec<String> = part.iter().map(|subject| key_of(layout, *subject, day)).collect();
        let _: i64 = redis::cmd("UNLINK").arg(keys).query_async(redis).await?;
    }
    Ok(())
}

fn key_of(layout: KeyLayout, subject: Subject, day: NaiveDate) -> String {
    layout.name(format_args!("v:{day}:{}", subject.key()))
}

async fn rebuild_if_lost(
    redis: &mut MultiplexedConnection,
    layout: KeyLayout,
    store: &Store,
    day: NaiveDate,
) -> Result<(), VisitorsError> {
    let marker = layout.name(format_args!("v:{day}"));
    let is_marked: bool = redis::cmd("EXISTS").arg(&marker).query_async(redis).await?;
    if is_marked {
        return Ok(());
    }
    if store.had_visitors(day).await? {
        tracing::warn!(%day, "visitor keys lost in Redis; rebuilding them");
        rebuild(redis, layout, store, day).await?;
    }
    let _: () =
        redis::cmd("SET").arg(&marker).arg(1).arg("EX").arg(TTL_S).query_async(redis).await?;
    Ok(())
}

async fn rebuild(
    redis: &mut MultiplexedConnection,
    layout: KeyLayout,
    store: &Store,
    day: NaiveDate,
) -> Result<(), VisitorsError> {
    let mut after = None;
    loop {
        let page = store.visitors_of_day(day, after, REBUILD_ROWS).await?;
        let mut visitors = VisitorsByDay::new();
        for (url_id, user_id, visitor) in page.visitors {
            for subject in subjects(url_id, user_id) {
                visitors.entry((subject, day)).or_default().push(visitor);
            }
        }
        add(redis, layout, &visitors).await?;
        if page.next.is_none() {
            return Ok(());
        }
        after = page.next;
    }
}
