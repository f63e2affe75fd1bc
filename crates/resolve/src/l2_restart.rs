//! Empties L2 after a restart of Redis and after a failover, before any client uses it.
//!
//! After a crash, a Redis with an append-only file may lack its last second of writes. They may include an entry
//! that Redis had acknowledged, so that its outbox row is deleted already. L2 would then serve the older entry for its
//! whole TTL. The same holds for a replica that takes over.
//!
//! The run id of Redis is new after a restart. The replication id is new after each promotion, also if the same process
//! becomes the master again. L2 contains both ids for which it was last emptied, and replicas have a copy of them, so a
//! promoted replica finds ids that are not its own.

use std::time::Duration;

use linnet_platform::redis_keys::KeyLayout;
use linnet_protocol::invalidation::l2_key;
use redis::{AsyncCommands, RedisResult};

/// The ids of the Redis whose L2 was emptied, in the place of a short code. No short code contains `#`.
const RUN: &str = "#run";
/// Held by the process that empties L2.
const LOCK: &str = "#emptying";
/// TTL of the lock, in milliseconds. If its holder dies, another process takes the lock after this time.
const LOCK_MS: u64 = 5_000;
/// Time between two attempts to take the lock.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Keys that Redis examines in one step.
const SCAN_COUNT: usize = 1_000;

/// Empties L2 unless this was done for this history of Redis. Returns the number of deleted entries.
pub(super) async fn empty_after_restart(
    redis: &mut impl AsyncCommands,
    layout: KeyLayout,
) -> RedisResult<usize> {
    let (run_key, lock_key) = (l2_key(layout, RUN), l2_key(layout, LOCK));
    let history = history_id(redis).await?;
    loop {
        let emptied_for: Option<String> = redis.get(run_key.as_str()).await?;
        if emptied_for.as_deref() == Some(&history) {
            return Ok(0);
        }
        let mut lock = redis::cmd("SET");
        lock.arg(&lock_key).arg(1).arg("NX").arg("PX").arg(LOCK_MS);
        let locked: Option<String> = lock.query_async(redis).await?;
        if locked.is_some() {
            break;
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
    let count = delete_entries(redis, layout, &lock_key).await?;
    let _: () = redis.set(run_key.as_str(), history).await?;
    let _: i64 = redis.del(lock_key.as_str()).await?;
    Ok(count)
}

async fn delete_entries(
    redis: &mut impl AsyncCommands,
    layout: KeyLayout,
    lock_key: &str,
) -> RedisResult<usize> {
    // In a cluster, the pattern has the braces of the hash tag, which stand for themselves.
    let (pattern, kept) = (l2_key(layout, "*"), l2_key(layout, "#"));
    let (mut cursor, mut count) = (0_u64, 0);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
        let (next, mut keys): (u64, Vec<Vec<u8>>) = scan.query_async(redis).await?;
        keys.retain(|key| !key.starts_with(kept.as_bytes()));
        if !keys.is_empty() {
            let _: i64 = redis.unlink(&keys).await?;
            let _: bool =
                redis.pexpire(lock_key, i64::try_from(LOCK_MS).unwrap_or(i64::MAX)).await?;
            count += keys.len();
        }
        if next == 0 {
            return Ok(count);
        }
        cursor = next;
    }
}

/// The run id, which Redis generates at each start, and the replication id, which it generates when it becomes a master.
async fn history_id(redis: &mut impl AsyncCommands) -> RedisResult<String> {
    // Redis 6 accepts one section only.
    let (server, replication): (String, String) = redis::pipe()
        .cmd("INFO")
        .arg("server")
        .cmd("INFO")
        .arg("replication")
        .query_async(redis)
        .await?;
    let id = |info: &str, name: &str| -> RedisResult<String> {
        let id = info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        id.map(ToOwned::to_owned).ok_or_else(|| {
            let kind = redis::ErrorKind::UnexpectedReturnType;
            redis::RedisError::from((kind, "INFO lacks an id", name.to_owned()))
        })
    };
    Ok(format!("{}:{}", id(&server, "run_id:")?, id(&replication, "master_replid:")?))
}
