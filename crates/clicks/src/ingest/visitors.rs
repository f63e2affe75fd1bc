//! Counts unique visitors in Redis.
//!
//! - Each subject and day has a key: a set of up to [`EXACT_VISITORS`] hashes, which counts exactly, and beyond that a
//!   `HyperLogLog` of 12 KiB, whose standard error is 0.81 %.
//! - Adding a visitor twice changes nothing, so a retried group is harmless. The group writes the counts to the roll-ups.
//! - Each day has a marker key. If it is missing although PostgreSQL has visitors of that day, Redis has lost its data, and
//!   the keys are rebuilt from raw clicks. One consumer of all workers does it at a time, and clicks of the day wait. Redis
//!   keeps the position, so that a rebuild continues after an error or the death of its worker.

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use chrono::{DateTime, NaiveDate};
use redis::{RedisError, Script, aio::MultiplexedConnection};

use linnet_domain::{LinkId, Subject};
use linnet_platform::redis_keys::KeyLayout;
use linnet_store::{Store, StoreError, VisitorPosition};
use tokio::time::Instant;

use super::group::{VisitorsByDay, subjects};

/// The maximum number of visitors of one subject and day that are counted exactly.
const EXACT_VISITORS: usize = 1_000;
/// TTL of the keys, in seconds. It exceeds a day because clicks arrive late after an outage.
const TTL_S: u32 = 3 * 24 * 3_600;
/// The maximum number of visitors of one script call, which blocks Redis while it runs.
const VISITORS_PER_CALL: usize = 2_000;
/// Rows of one read while a day is rebuilt. Each has up to 48 clicks.
const REBUILD_ROWS: i64 = 2_000;
/// Time after which a rebuild pauses, so that a worker can stop.
const REBUILD_SLICE: Duration = Duration::from_secs(10);
/// TTL of the claim of the consumer that rebuilds a day, in milliseconds. Longer than a statement of a worker by default. If
/// two rebuild the same day, they only do it twice.
const REBUILD_CLAIM_MS: u32 = 60_000;

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
    #[error("the unique visitors of {0} are being rebuilt")]
    Rebuilding(NaiveDate),
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

/// The marker of a day.
fn marker_of(layout: KeyLayout, day: NaiveDate) -> String {
    layout.name(format_args!("v:{day}"))
}

async fn rebuild_if_lost(
    redis: &mut MultiplexedConnection,
    layout: KeyLayout,
    store: &Store,
    day: NaiveDate,
) -> Result<(), VisitorsError> {
    let marker = marker_of(layout, day);
    let is_marked: bool = redis::cmd("EXISTS").arg(&marker).query_async(redis).await?;
    if is_marked {
        return Ok(());
    }
    if store.had_visitors(day).await? {
        rebuild_alone(redis, layout, store, day).await?;
    }
    let _: () =
        redis::cmd("SET").arg(&marker).arg(1).arg("EX").arg(TTL_S).query_async(redis).await?;
    Ok(())
}

/// Rebuilds a day unless another consumer does.
async fn rebuild_alone(
    redis: &mut MultiplexedConnection,
    layout: KeyLayout,
    store: &Store,
    day: NaiveDate,
) -> Result<(), VisitorsError> {
    let claim = format!("{}:rebuild", marker_of(layout, day));
    let mut set = redis::cmd("SET");
    set.arg(&claim).arg(1).arg("NX").arg("PX").arg(REBUILD_CLAIM_MS);
    let is_claimed: Option<String> = set.query_async(redis).await?;
    if is_claimed.is_none() {
        return Err(VisitorsError::Rebuilding(day));
    }
    let rebuilt = rebuild(redis, layout, store, day, &claim).await;
    let _: i64 = redis::cmd("UNLINK").arg(&claim).query_async(redis).await?;
    rebuilt
}

/// Rebuilds a day from the stored position on, for up to [`REBUILD_SLICE`].
async fn rebuild(
    redis: &mut MultiplexedConnection,
    layout: KeyLayout,
    store: &Store,
    day: NaiveDate,
    claim: &str,
) -> Result<(), VisitorsError> {
    let began = Instant::now();
    let position_key = format!("{}:position", marker_of(layout, day));
    let stored: Option<String> = redis::cmd("GET").arg(&position_key).query_async(redis).await?;
    let mut after = stored.and_then(|stored| parse_position(&stored));
    if after.is_none() {
        tracing::warn!(%day, "visitor keys lost in Redis; rebuilding them");
    }
    loop {
        let page = store.visitors_of_day(day, after, REBUILD_ROWS).await?;
        let mut visitors = VisitorsByDay::new();
        for (url_id, user_id, visitor) in page.visitors {
            for subject in subjects(url_id, user_id) {
                visitors.entry((subject, day)).or_default().push(visitor);
            }
        }
        add(redis, layout, &visitors).await?;
        let Some(next) = page.next else { break };
        after = Some(next);
        let mut progress = redis::pipe();
        let value = format!("{} {}", next.link_id, next.at.timestamp_micros());
        progress.cmd("SET").arg(&position_key).arg(value).arg("EX").arg(TTL_S).ignore();
        progress.cmd("PEXPIRE").arg(claim).arg(REBUILD_CLAIM_MS).ignore();
        let () = progress.query_async(redis).await?;
        if began.elapsed() >= REBUILD_SLICE {
            return Err(VisitorsError::Rebuilding(day));
        }
    }
    let _: i64 = redis::cmd("UNLINK").arg(&position_key).query_async(redis).await?;
    Ok(())
}

fn parse_position(stored: &str) -> Option<VisitorPosition> {
    let (link_id, micros) = stored.split_once(' ')?;
    let link_id = LinkId::new(link_id.parse().ok()?)?;
    Some(VisitorPosition { link_id, at: DateTime::from_timestamp_micros(micros.parse().ok()?)? })
}
