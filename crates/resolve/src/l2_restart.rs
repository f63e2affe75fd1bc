//! Empties L2 after a restart of Redis, before any client uses it.
//!
//! After a crash, a Redis with an append-only file may lack its last second of writes. They may include an entry
//! that Redis had acknowledged, so that its outbox row is deleted already. L2 would then serve the older entry for its
//! whole TTL. The same holds for a replica that takes over. In both cases the run id of Redis is new. L2 contains the
//! run id for which it was last emptied.

use std::time::Duration;

use redis::{AsyncCommands, RedisResult};

/// The run id of the Redis whose L2 was emptied. No short code contains `#`.
const RUN_KEY: &str = "l:#run";
/// Held by the process that empties L2.
const LOCK_KEY: &str = "l:#emptying";
/// TTL of the lock, in milliseconds. If its holder dies, another process takes the lock after this time.
const LOCK_MS: u64 = 5_000;
/// Time between two attempts to take the lock.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Keys that Redis examines in one step.
const SCAN_COUNT: usize = 1_000;

/// Empties L2 unless this was done for this run of Redis. Returns the number of deleted entries.
pub(super) async fn empty_after_restart(redis: &mut impl AsyncCommands) -> RedisResult<usize> {
    let run_id = run_id(redis).await?;
    loop {
        let emptied_for: Option<String> = redis.get(RUN_KEY).await?;
        if emptied_for.as_deref() == Some(&run_id) {
            return Ok(0);
        }
        let mut lock = redis::cmd("SET");
        lock.arg(LOCK_KEY).arg(1).arg("NX").arg("PX").arg(LOCK_MS);
        let locked: Option<String> = lock.query_async(redis).await?;
        if locked.is_some() {
            break;
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
    let count = delete_entries(redis).await?;
    let _: () = redis.set(RUN_KEY, run_id).await?;
    let _: i64 = redis.del(LOCK_KEY).await?;
    Ok(count)
}

async fn delete_entries(redis: &mut impl AsyncCommands) -> RedisResult<usize> {
    let (mut cursor, mut count) = (0_u64, 0);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg("l:*").arg("COUNT").arg(SCAN_COUNT);
        let (next, mut keys): (u64, Vec<Vec<u8>>) = scan.query_async(redis).await?;
        keys.retain(|key| !key.starts_with(b"l:#"));
        if !keys.is_empty() {
            let _: i64 = redis.unlink(&keys).await?;
            let _: bool =
                redis.pexpire(LOCK_KEY, i64::try_from(LOCK_MS).unwrap_or(i64::MAX)).await?;
            count += keys.len();
        }
        if next == 0 {
            return Ok(count);
        }
        cursor = next;
    }
}

/// The id that Redis generates at each start.
async fn run_id(redis: &mut impl AsyncCommands) -> RedisResult<String> {
    let info: String = redis::cmd("INFO").arg("server").query_async(redis).await?;
    let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    id.map(|id| id.trim().to_owned()).ok_or_else(|| {
        redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "INFO has no run_id"))
    })
}
