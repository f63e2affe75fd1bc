//! The queue: two streams in Redis, one consumer group.
//!
//! An entry is the number of a job that somebody should look at. Which job runs where is decided in
//! PostgreSQL, so an entry that comes twice, or too late, or for a job that has ended, changes
//! nothing; and one that is lost is made again ([`super::dispatch`]).

use linnet_platform::{
    redis_client::{RedisAway, RedisClient},
    settings::RedisSettings,
};
use redis::{
    Cmd, RedisError, Value,
    aio::MultiplexedConnection,
    streams::{StreamAutoClaimReply, StreamId, StreamInfoConsumersReply, StreamReadReply},
};

use linnet_clicks::ingest::connect;
use linnet_domain::{JobId, Lane};

const GROUP: &str = "workers";
const FIELD: &str = "job";
/// Entries of a stream beyond which the oldest go; their jobs are announced again.
const MAX_LENGTH: u32 = 100_000;
/// Longest wait for something new, in milliseconds; also how long a stop may wait for it.
const BLOCK_MS: u64 = 500;
/// An entry that a worker took and did not acknowledge is another's after this, in milliseconds.
/// Looking at a job takes a moment, so this worker is dead.
const CLAIM_AFTER_MS: u64 = 10_000;

fn stream_of(lane: Lane) -> &'static str {
    match lane {
        Lane::Small => "linnet:jobs:small",
        Lane::Large => "linnet:jobs:large",
    }
}

/// A consumer that has not asked for so long is gone, in milliseconds. One that runs a huge job and is
/// forgotten is made again by its next question.
const CONSUMER_GONE_MS: usize = 3_600_000;

/// An entry of a stream.
#[derive(Debug, Clone)]
pub(super) struct Notice {
    pub(super) lane: Lane,
    /// `None` for an entry that names no job.
    pub(super) job_id: Option<JobId>,
    id: String,
}

/// The command that tells the workers of a job.
pub fn announcement(lane: Lane, job_id: JobId) -> Cmd {
    let mut add = redis::cmd("XADD");
    add.arg(stream_of(lane)).arg("MAXLEN").arg("~").arg(MAX_LENGTH).arg("*").arg(FIELD);
    add.arg(job_id.get());
    add
}

/// Tells the workers of a job, from a serving process.
pub async fn announce(link: &RedisClient, lane: Lane, job_id: JobId) -> Result<(), RedisAway> {
    link.query::<String>(&announcement(lane, job_id)).await.map(drop)
}

/// A worker's end of the queue.
pub(super) struct Queue {
    redis: MultiplexedConnection,
    consumer: String,
}

impl Queue {
    pub(super) async fn open(
        settings: &RedisSettings,
        consumer: String,
    ) -> Result<Self, RedisError> {
        let mut queue = Self { redis: connect(settings).await?, consumer };
        queue.make_groups().await?;
        Ok(queue)
    }

    async fn make_groups(&mut self) -> Result<(), RedisError> {
        for lane in [Lane::Small, Lane::Large] {
            let mut create = redis::cmd("XGROUP");
            create.arg("CREATE").arg(stream_of(lane)).arg(GROUP).arg("0").arg("MKSTREAM");
            match create.query_async::<()>(&mut self.redis).await {
                Err(error) if error.code() == Some("BUSYGROUP") => {}
                answer => answer?,
            }
        }
        Ok(())
    }

    /// The next entry of the first of these streams that has one; `None` after a short wait.
    pub(super) async fn next(&mut self, lanes: &[Lane]) -> Result<Option<Notice>, RedisError> {
        // One stream after the other, since a read of several takes an entry of each.
        for lane in lanes {
            if let Some(notice) = self.read(*lane, None).await? {
                return Ok(Some(notice));
            }
        }
        // Whichever is first in the list is what this worker is for, and it waits there.
        let Some(first) = lanes.first() else { return Ok(None) };
        self.read(*first, Some(BLOCK_MS)).await
    }

    async fn read(
        &mut self,
        lane: Lane,
        block_ms: Option<u64>,
    ) -> Result<Option<Notice>, RedisError> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(1);
        if let Some(block_ms) = block_ms {
            read.arg("BLOCK").arg(block_ms);
        }
        read.arg("STREAMS").arg(stream_of(lane)).arg(">");
        let reply: Result<Option<StreamReadReply>, RedisError> =
            read.query_async(&mut self.redis).await;
        let reply = match reply {
            // Redis was emptied.
            Err(error) if error.code() == Some("NOGROUP") => {
                self.make_groups().await?;
                return Ok(None);
            }
            reply => reply?.unwrap_or_default(),
        };
        let entry = reply.keys.into_iter().flat_map(|key| key.ids).next();
        Ok(entry.map(|entry| Notice::of(lane, entry)))
    }

    /// Entries that dead workers took.
    pub(super) async fn claim(&mut self, lane: Lane) -> Result<Vec<Notice>, RedisError> {
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(stream_of(lane)).arg(GROUP).arg(&self.consumer).arg(CLAIM_AFTER_MS).arg("0-0");
        let reply: Result<StreamAutoClaimReply, RedisError> =
            claim.query_async(&mut self.redis).await;
        match reply {
            Err(error) if error.code() == Some("NOGROUP") => Ok(Vec::new()),
            reply => Ok(reply?.claimed.into_iter().map(|entry| Notice::of(lane, entry)).collect()),
        }
    }

    /// Removes an entry that was looked at.
    pub(super) async fn done(&mut self, notice: &Notice) -> Result<(), RedisError> {
        let stream = stream_of(notice.lane);
        redis::pipe()
            .cmd("XACK")
            .arg(stream)
            .arg(GROUP)
            .arg(&notice.id)
            .ignore()
            .cmd("XDEL")
            .arg(stream)
            .arg(&notice.id)
            .ignore()
            .query_async(&mut self.redis)
            .await
    }

    /// Tells the workers of a job.
    pub(crate) async fn announce(&mut self, lane: Lane, job_id: JobId) -> Result<(), RedisError> {
        announcement(lane, job_id).query_async::<String>(&mut self.redis).await.map(drop)
    }

    /// Forgets consumers of workers that are gone.
    pub(super) async fn forget_consumers(&mut self) -> Result<(), RedisError> {
        for lane in [Lane::Small, Lane::Large] {
            let mut info = redis::cmd("XINFO");
            info.arg("CONSUMERS").arg(stream_of(lane)).arg(GROUP);
            let consumers: Result<StreamInfoConsumersReply, RedisError> =
                info.query_async(&mut self.redis).await;
            // Without a group there are none.
            for consumer in consumers.map(|reply| reply.consumers).unwrap_or_default() {
                if consumer.pending == 0 && consumer.idle > CONSUMER_GONE_MS {
                    let mut delete = redis::cmd("XGROUP");
                    delete.arg("DELCONSUMER").arg(stream_of(lane)).arg(GROUP).arg(&consumer.name);
                    let _: u64 = delete.query_async(&mut self.redis).await?;
                }
            }
        }
        Ok(())
    }

    /// Entries that wait in both streams.
    pub(super) async fn length(&mut self) -> Result<i64, RedisError> {
        let (small, large): (i64, i64) = redis::pipe()
            .cmd("XLEN")
            .arg(stream_of(Lane::Small))
            .cmd("XLEN")
            .arg(stream_of(Lane::Large))
            .query_async(&mut self.redis)
            .await?;
        Ok(small + large)
    }
}

impl Notice {
    fn of(lane: Lane, entry: StreamId) -> Self {
        let job_id = match entry.map.get(FIELD) {
            Some(Value::BulkString(text)) => {
                std::str::from_utf8(text).ok().and_then(|text| text.parse().ok())
            }
            _ => None,
        };
        Self { lane, job_id, id: entry.id }
    }
}
