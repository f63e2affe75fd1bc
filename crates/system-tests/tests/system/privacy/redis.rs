//! Searches Redis.

use std::time::Duration;

use linnet_clicks::{FIELD, STREAM};
use linnet_system_tests::{Stack, eventually};
use redis::{Value, aio::MultiplexedConnection, streams::StreamRangeReply};

use super::{AGENT_MARK, Places, contains};

async fn connect_redis(stack: &Stack) -> MultiplexedConnection {
    let client = redis::Client::open(stack.redis_url("operator")).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// All keys.
pub(super) async fn redis_keys(stack: &Stack) -> Vec<String> {
    redis::cmd("KEYS").arg("*").query_async(&mut connect_redis(stack).await).await.unwrap()
}

fn value_contains(value: &Value, mark: &str) -> bool {
    match value {
        Value::BulkString(bytes) => contains(bytes, mark),
        Value::SimpleString(text) => text.contains(mark),
        Value::Array(values) | Value::Set(values) => {
            values.iter().any(|value| value_contains(value, mark))
        }
        Value::Map(pairs) => pairs
            .iter()
            .any(|(key, value)| value_contains(key, mark) || value_contains(value, mark)),
        _ => false,
    }
}

/// The keys of Redis that contain one of the marks in their name or value.
pub(super) async fn redis_places(stack: &Stack, marks: &[&str]) -> Places {
    let mut redis = connect_redis(stack).await;
    let mut places = Places::new();
    for key in redis_keys(stack).await {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut redis).await.unwrap();
        let (command, range): (_, &[&str]) = match kind.as_str() {
            "stream" => ("XRANGE", &["-", "+"]),
            "hash" => ("HGETALL", &[]),
            "set" => ("SMEMBERS", &[]),
            "zset" => ("ZRANGE", &["0", "-1"]),
            "list" => ("LRANGE", &["0", "-1"]),
            // The key has expired.
            "none" => continue,
            other => {
                assert_eq!(other, "string", "{key}");
                ("GET", &[])
            }
        };
        let value = redis::cmd(command).arg(&key).arg(range).query_async(&mut redis).await.unwrap();
        if marks.iter().any(|mark| key.contains(mark) || value_contains(&value, mark)) {
            places.insert(key);
        }
    }
    places
}

/// Adds a batch to the stream that no worker can read: one with a marked click, whose end is missing.
pub(super) async fn damage_a_marked_batch(stack: &Stack) {
    let mut redis = connect_redis(stack).await;
    let batch = eventually(Duration::from_secs(10), "a marked batch", || {
        let mut redis = redis.clone();
        async move {
            let range = redis::cmd("XRANGE").arg(STREAM).arg("-").arg("+").clone();
            let entries: StreamRangeReply = range.query_async(&mut redis).await.unwrap();
            let batches = entries.ids.iter().filter_map(|entry| entry.get::<Vec<u8>>(FIELD));
            batches.into_iter().find(|batch| contains(batch, AGENT_MARK))
        }
    })
    .await;
    let mut damaged = batch[..batch.len() - 5].to_vec();
    // Another id: a batch that has been written is only a duplicate.
    damaged[1] ^= 0xff;
    assert!(contains(&damaged, AGENT_MARK));
    let add = redis::cmd("XADD").arg(STREAM).arg("*").arg(FIELD).arg(damaged).clone();
    let _: String = add.query_async(&mut redis).await.unwrap();
}

/// Deletes a key, as the runbook does with dead letters.
pub(super) async fn delete(stack: &Stack, key: &str) {
    let mut redis = connect_redis(stack).await;
    let deleted: i64 = redis::cmd("DEL").arg(key).query_async(&mut redis).await.unwrap();
    assert_eq!(deleted, 1);
}
