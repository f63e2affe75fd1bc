//! The job queue: two streams in Redis with one consumer group.
//!
//! An entry is a notice: the id of a job to lease. PostgreSQL decides which worker runs the job, so a repeated or late
//! notice has no effect. The dispatcher replaces lost notices.

use std::time::Duration;

use linnet_platform::{
    redis_client::{RedisClient, RedisUnavailable},
    redis_connection::{Confirmation, connect_confirmed},
    redis_keys::KeyLayout,
    settings::RedisSettings,
};
use redis::{
    Cmd, RedisError, Value,
    aio::MultiplexedConnection,
    streams::{StreamAutoClaimReply, StreamId, StreamInfoConsumersReply, StreamReadReply},
};

use linnet_domain::{JobId, Lane};

const GROUP: &str = "workers";
const FIELD: &str = "job";
const LANES: [Lane; 2] = [Lane::Small, Lane::Large];
/// Approximate length to which a stream is trimmed, oldest notices first. The dispatcher replaces trimmed ones.
const MAX_LENGTH: u32 = 100_000;
/// Longest wait of a read for a notice, in milliseconds. A stop may wait as long.
const BLOCK_MS: u64 = 500;
/// Longest wait for a response; longer than [`BLOCK_MS`].
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a notice is taken over, in milliseconds. A live worker handles a notice much faster.
const CLAIM_AFTER_MS: u64 = 10_000;
/// Idle time after which a consumer is deleted, in milliseconds. A consumer can seem idle while it runs a long job; Redis
/// creates it again at its next read.
const CONSUMER_IDLE_MS: usize = 3_600_000;

const fn stream_of(layout: KeyLayout, lane: Lane) -> &'static str {
    match (layout, lane) {
        (KeyLayout::Server, Lane::Small) => "linnet:jobs:small",
        (KeyLayout::Server, Lane::Large) => "linnet:jobs:large",
        (KeyLayout::Cluster, Lane::Small) => "{linnet}:jobs:small",
        (KeyLayout::Cluster, Lane::Large) => "{linnet}:jobs:large",
    }
}

/// An entry of a stream.
#[derive(Debug, Clone)]
pub(super) struct JobNotice {
    pub(super) lane: Lane,
    /// `None` for an entry without a valid job id.
    pub(super) job_id: Option<JobId>,
    entry_id: String,
}

/// The command that adds a notice to the stream of its lane.
fn notice_command(layout: KeyLayout, lane: Lane, job_id: JobId) -> Cmd {
    let mut add = redis::cmd("XADD");
    add.arg(stream_of(layout, lane)).arg("MAXLEN").arg("~").arg(MAX_LENGTH).arg("*").arg(FIELD);
    add.arg(job_id.get());
    add
}

/// Publishes a notice from a serving process.
pub async fn publish_notice(
    redis: &RedisClient,
    lane: Lane,
    job_id: JobId,
) -> Result<(), RedisUnavailable> {
    let notice = notice_command(redis.key_layout(), lane, job_id);
    redis.query::<String>(&notice).await.map(drop)
}

/// A worker's connection to the queue.
pub(super) struct JobQueue {
    redis: MultiplexedConnection,
    master: Confirmation,
    layout: KeyLayout,
    consumer: String,
}

impl JobQueue {
    pub(super) async fn open(
        settings: &RedisSettings,
        consumer: String,
    ) -> Result<Self, RedisError> {
        let (redis, master) = connect_confirmed(settings, RESPONSE_TIMEOUT).await?;
        let mut queue = Self { redis, master, layout: settings.key_layout(), consumer };
        queue.create_groups().await?;
        Ok(queue)
    }

    fn stream(&self, lane: Lane) -> &'static str {
        stream_of(self.layout, lane)
    }

    async fn create_groups(&mut self) -> Result<(), RedisError> {
        for lane in LANES {
            let mut create = redis::cmd("XGROUP");
            create.arg("CREATE").arg(self.stream(lane)).arg(GROUP).arg("0").arg("MKSTREAM");
            match create.query_async::<()>(&mut self.redis).await {
                Err(error) if error.code() == Some("BUSYGROUP") => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// The next notice of the first of these lanes that has one; `None` after a short wait.
    pub(super) async fn next(&mut self, lanes: &[Lane]) -> Result<Option<JobNotice>, RedisError> {
        self.master.check()?;
        // One read for each stream: a read of several streams returns an entry of each, and only one is needed.
        for lane in lanes {
            if let Some(notice) = self.read(*lane, None).await? {
                return Ok(Some(notice));
            }
        }
        // Only the preferred lane is read with blocking, so its notices arrive at once.
        let Some(preferred) = lanes.first() else { return Ok(None) };
        self.read(*preferred, Some(BLOCK_MS)).await
    }

    async fn read(
        &mut self,
        lane: Lane,
        block_ms: Option<u64>,
    ) -> Result<Option<JobNotice>, RedisError> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(1);
        if let Some(block_ms) = block_ms {
            read.arg("BLOCK").arg(block_ms);
        }
        read.arg("STREAMS").arg(self.stream(lane)).arg(">");
        let reply: Result<Option<StreamReadReply>, RedisError> =
            read.query_async(&mut self.redis).await;
        let reply = match reply {
            // Redis has lost its data.
            Err(error) if error.code() == Some("NOGROUP") => {
                self.create_groups().await?;
                return Ok(None);
            }
            reply => reply?.unwrap_or_default(),
        };
        let entry = reply.keys.into_iter().flat_map(|key| key.ids).next();
        Ok(entry.map(|entry| JobNotice::from_entry(lane, entry)))
    }

    /// Takes over notices that dead workers hold.
    pub(super) async fn claim(&mut self, lane: Lane) -> Result<Vec<JobNotice>, RedisError> {
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(self.stream(lane)).arg(GROUP).arg(&self.consumer).arg(CLAIM_AFTER_MS).arg("0-0");
        let reply: Result<StreamAutoClaimReply, RedisError> =
            claim.query_async(&mut self.redis).await;
        let claimed = match reply {
            Err(error) if error.code() == Some("NOGROUP") => return Ok(Vec::new()),
            reply => reply?.claimed,
        };
        Ok(claimed.into_iter().map(|entry| JobNotice::from_entry(lane, entry)).collect())
    }

    /// Acknowledges and deletes a notice.
    pub(super) async fn remove(&mut self, notice: &JobNotice) -> Result<(), RedisError> {
        let (stream, entry_id) = (self.stream(notice.lane), &notice.entry_id);
        let mut pipe = redis::pipe();
        pipe.cmd("XACK").arg(stream).arg(GROUP).arg(entry_id).ignore();
        pipe.cmd("XDEL").arg(stream).arg(entry_id).ignore();
        pipe.query_async(&mut self.redis).await
    }

    /// Publishes a notice.
    pub(super) async fn publish(&mut self, lane: Lane, job_id: JobId) -> Result<(), RedisError> {
        let notice = notice_command(self.layout, lane, job_id);
        notice.query_async::<String>(&mut self.redis).await?;
        self.master.check()
    }

    /// Deletes the consumers of ended workers.
    pub(super) async fn delete_idle_consumers(&mut self) -> Result<(), RedisError> {
        for lane in LANES {
            let mut info = redis::cmd("XINFO");
            info.arg("CONSUMERS").arg(self.stream(lane)).arg(GROUP);
            let consumers: Result<StreamInfoConsumersReply, RedisError> =
                info.query_async(&mut self.redis).await;
            // The group may be missing.
            for consumer in consumers.map(|reply| reply.consumers).unwrap_or_default() {
                if has_ended(consumer.pending, consumer.idle) {
                    let mut delete = redis::cmd("XGROUP");
                    delete.arg("DELCONSUMER").arg(self.stream(lane)).arg(GROUP).arg(&consumer.name);
                    let _: u64 = delete.query_async(&mut self.redis).await?;
                }
            }
        }
        Ok(())
    }

    /// The number of notices in both streams.
    pub(super) async fn length(&mut self) -> Result<i64, RedisError> {
        let mut pipe = redis::pipe();
        for lane in LANES {
            pipe.cmd("XLEN").arg(self.stream(lane));
        }
        let (small, large): (i64, i64) = pipe.query_async(&mut self.redis).await?;
        Ok(small + large)
    }
}

/// Whether a consumer with this number of notices and this idle time, in milliseconds, probably belongs to an ended worker.
fn has_ended(pending: usize, idle_ms: usize) -> bool {
    pending == 0 && idle_ms > CONSUMER_IDLE_MS
}

impl JobNotice {
    fn from_entry(lane: Lane, entry: StreamId) -> Self {
        let job_id = match entry.map.get(FIELD) {
            Some(Value::BulkString(text)) => {
                std::str::from_utf8(text).ok().and_then(|text| text.parse().ok())
            }
            _ => None,
        };
        Self { lane, job_id, entry_id: entry.id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(field: &str, value: Value) -> StreamId {
        StreamId {
            id: "5-1".into(),
            map: [(field.to_owned(), value)].into(),
            ..StreamId::default()
        }
    }

    #[test]
    fn a_notice_has_the_job_of_its_entry() {
        let job_of = |entry| JobNotice::from_entry(Lane::Large, entry).job_id.map(JobId::get);
        let text = |text: &str| Value::BulkString(text.into());
        assert_eq!(job_of(entry(FIELD, text("77"))), Some(77));
        for invalid in [
            entry(FIELD, text("")),
            entry(FIELD, text("0")),
            entry(FIELD, text("x")),
            entry(FIELD, Value::BulkString(vec![0xff])),
            entry(FIELD, Value::Nil),
            entry("other", text("77")),
        ] {
            assert_eq!(job_of(invalid.clone()), None, "{invalid:?}");
        }
        let notice = JobNotice::from_entry(Lane::Large, entry(FIELD, text("77")));
        assert_eq!((notice.lane, &*notice.entry_id), (Lane::Large, "5-1"));
    }

    #[test]
    fn notices_of_a_lane_go_to_its_stream() {
        for (lane, stream) in
            [(Lane::Small, "linnet:jobs:small"), (Lane::Large, "linnet:jobs:large")]
        {
            let command = notice_command(KeyLayout::Server, lane, JobId::new(77).unwrap());
            let command = command.get_packed_command();
            let words: Vec<_> =
                command.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
            for word in ["XADD", stream, "100000", FIELD, "77"] {
                assert!(words.contains(&word.as_bytes()), "{word}");
            }
        }
    }

    #[test]
    fn streams_have_the_prefix_of_their_layout() {
        for layout in [KeyLayout::Server, KeyLayout::Cluster] {
            for (lane, name) in [(Lane::Small, "jobs:small"), (Lane::Large, "jobs:large")] {
                assert_eq!(stream_of(layout, lane), format!("{}{name}", layout.prefix()));
            }
        }
    }

    #[test]
    fn consumers_with_notices_or_a_recent_read_are_kept() {
        for (pending, idle_ms, ended) in
            [(0, CONSUMER_IDLE_MS, false), (0, CONSUMER_IDLE_MS + 1, true), (1, usize::MAX, false)]
        {
            assert_eq!(has_ended(pending, idle_ms), ended, "{pending} {idle_ms}");
        }
    }
}
