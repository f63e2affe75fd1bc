//! The memory budgets of a shortener and of a worker: every term that their settings allow.

use linnet_clicks::{buffer_bytes, ingest};
use linnet_jobs::{
    UploadStore,
    upload::{READER_BYTES, WRITER_BYTES},
};
use linnet_platform::{
    memory_budget::{IDLE_CONNECTION_BYTES, KIB, MIB, MemoryBudget, STORE_CONNECTION_BYTES},
    server::{ADMIN_CONNECTIONS, HEAD_BYTES, PIECE_BYTES, SEND_BUFFER_BYTES},
};
use linnet_resolve::HOT_LINKS;

use crate::Settings;

/// An idle shortener. Measured: 8.4 MiB.
const SHORTENER_BASE_BYTES: u64 = 9 * MIB;
/// An idle worker. Measured: 7.1 MiB.
const WORKER_BASE_BYTES: u64 = 8 * MIB;
/// A negative entry: the code, the entry, and the slot of the cache.
const NEGATIVE_ENTRY_BYTES: u64 = 200;
/// A hot link of one thread, with the longest target.
const HOT_LINK_BYTES: u64 = 8 * KIB + 200;
/// An in-flight lookup: its task, and the list of waiting requests.
const LOOKUP_BYTES: u64 = 2 * KIB;
/// Bytes for each byte of a JSON body: the body, its values, and the statement's parameters.
const BODY_COPIES: usize = 3;
/// A stream of a job's events: the task, and one page of errors, 2 KiB of JSON, which use three times as much as values.
const JOB_STREAM_BYTES: u64 = 4 * KIB + 3 * 2 * KIB;
/// A redirect in the kernel's buffer, with the longest target. The resolve listener has as many connections as the API's.
const REDIRECT_BYTES: u64 = 9 * KIB;
/// Clients that the budget of misses tracks: those over their budget and those near it. Their number, and bytes of
/// each.
const CLIENT_BYTES: (usize, u64) = (20_000, 64);
/// Parts of a body that wait to be stored, and the buffers that unpack it and write it to a file.
const UPLOAD_BYTES: u64 = (4 + 1) * 32 * KIB + 128 * KIB;
/// Two chunks of a lane, one being written and one read ahead, with 2 MiB of values and 1 MiB of bad rows each. For the one
/// being written, the same again in a statement's arrays and in its message to PostgreSQL. Then two blocks of the file and
/// two rows of 1 MiB.
const LANE_BYTES: u64 = 2 * 3 * MIB + 2 * 3 * MIB + 3 * MIB;
/// An export of links or of a job's bad rows: four chunks of 64 KiB (being written, waiting, being sent), and the rows from
/// the database.
const EXPORT_BYTES: u64 = 4 * 66 * KIB + 256 * KIB;
/// Lanes of a worker.
const LANES: usize = 2;
/// Redis clients of the background tasks.
const BACKGROUND_REDIS: usize = 6;

impl Settings {
    /// The most memory that a shortener with these settings uses.
    pub fn memory_budget(&self) -> MemoryBudget {
        let threads = self.server_threads();
        // The resolve listener and the API listener.
        let connections = 2 * threads * self.shortener.max_connections;
        let api_connections = threads * self.shortener.max_connections;
        let head = IDLE_CONNECTION_BYTES + HEAD_BYTES as u64;
        let buffers = if self.clicks.enabled { threads + 1 } else { 0 };
        MemoryBudget::new("shortener", SHORTENER_BASE_BYTES)
            .with("links in L1", 1, self.cache.l1_bytes)
            .with("negative entries in L1", self.cache.l1_negative_entries, NEGATIVE_ENTRY_BYTES)
            .with("hot links", threads * HOT_LINKS, HOT_LINK_BYTES)
            .with("connections x largest head", connections, head)
            .with("admin connections", ADMIN_CONNECTIONS, head)
            .with("in-flight lookups", self.resolve.max_in_flight_lookups, LOOKUP_BYTES)
            .with("clients with misses", CLIENT_BYTES.0, CLIENT_BYTES.1)
            .with("JSON bodies in progress", BODY_COPIES, self.shortener.body_bytes as u64)
            .with("large responses", 1, self.shortener.response_bytes as u64)
            .with("unread responses", api_connections, (2 * PIECE_BYTES + SEND_BUFFER_BYTES) as u64)
            .with("unread redirects", api_connections, REDIRECT_BYTES)
            .with("click buffers", buffers, buffer_bytes(&self.clicks))
            .with("click batches", 2, linnet_clicks::MAX_BATCH_BYTES)
            .with("live clicks being read", 2, linnet_clicks::LIVE_READ_BYTES)
            .with(
                "streams of clicks",
                self.shortener.live_streams,
                linnet_clicks::LIVE_STREAM_BYTES,
            )
            .with("streams of job events", self.shortener.job_streams, JOB_STREAM_BYTES)
            .with("exports", self.shortener.exports, EXPORT_BYTES)
            .with("uploads", self.jobs.uploads, UPLOAD_BYTES + self.in_pieces(WRITER_BYTES))
            .with(
                "PostgreSQL connections",
                self.postgres.max_connections as usize,
                STORE_CONNECTION_BYTES,
            )
            .with("Redis connections", 2 * threads + BACKGROUND_REDIS, STORE_CONNECTION_BYTES)
            .with_telemetry(self.telemetry.exports_spans())
    }

    /// Bytes that an upload in the database takes in addition to one in a file.
    fn in_pieces(&self, bytes: u64) -> u64 {
        match self.jobs.upload_store {
            UploadStore::Directory => 0,
            UploadStore::Postgres => bytes,
        }
    }

    /// The most memory that a worker with these settings uses.
    pub fn worker_memory_budget(&self) -> MemoryBudget {
        let consumers = self.worker.consumers as usize;
        MemoryBudget::new("worker", WORKER_BASE_BYTES)
            .with(
                "groups of click batches",
                consumers,
                ingest::group_bytes(self.worker.group_batches),
            )
            .with("ids of links and values", 1, ingest::DIRECTORY_BYTES)
            .with("parsed user agents", 1, ingest::USER_AGENT_CACHE_BYTES)
            .with("job lanes", LANES, LANE_BYTES + self.in_pieces(2 * READER_BYTES))
            .with("admin connections", ADMIN_CONNECTIONS, IDLE_CONNECTION_BYTES + HEAD_BYTES as u64)
            .with(
                "PostgreSQL connections",
                self.postgres.max_connections as usize,
                STORE_CONNECTION_BYTES,
            )
            .with("Redis connections", consumers + BACKGROUND_REDIS, STORE_CONNECTION_BYTES)
            .with_telemetry(self.telemetry.exports_spans())
    }
}

#[cfg(test)]
mod tests {
    use linnet_platform::{settings::load_from, testing::container_numbers};

    use super::*;

    #[test]
    fn must_25_settings_of_the_containers_fit_their_memory() {
        let mut environment = container_numbers();
        environment.insert("LINNET__SERVICE__TOKEN".into(), "0".repeat(32));
        // Loading compares the sums with `shortener.memory_bytes` and `worker.memory_bytes`.
        let settings: Settings = load_from(None, &environment).unwrap();
        assert_eq!(
            (settings.shortener.memory_bytes, settings.worker.memory_bytes),
            (96 * MIB, 80 * MIB)
        );
        assert!(settings.memory_budget().total() <= 96 * MIB);
        assert!(settings.worker_memory_budget().total() <= 80 * MIB);
        environment.insert("LINNET__CACHE__L1_BYTES".into(), "100000000".into());
        environment.insert("LINNET__WORKER__GROUP_BATCHES".into(), "1000".into());
        let error = load_from::<Settings>(None, &environment).unwrap_err();
        let keys: Vec<&str> = error.keys().collect();
        assert_eq!(keys, ["shortener.memory_bytes", "worker.memory_bytes"]);
    }

    #[test]
    fn every_bound_of_the_settings_raises_the_sum() {
        let total = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            settings.shortener.server_threads = 2;
            settings.shortener.max_connections = 100;
            change(&mut settings);
            (settings.memory_budget().total(), settings.worker_memory_budget().total())
        };
        let base = total(|_| {});
        let shortener: [fn(&mut Settings); 14] = [
            |settings| settings.shortener.server_threads = 4,
            |settings| settings.shortener.max_connections *= 2,
            |settings| settings.shortener.body_bytes *= 2,
            |settings| settings.shortener.response_bytes *= 2,
            |settings| settings.shortener.live_streams *= 2,
            |settings| settings.shortener.job_streams *= 2,
            |settings| settings.shortener.exports *= 2,
            |settings| settings.jobs.uploads *= 2,
            |settings| settings.jobs.upload_store = UploadStore::Postgres,
            |settings| settings.cache.l1_bytes *= 2,
            |settings| settings.cache.l1_negative_entries *= 2,
            |settings| settings.resolve.max_in_flight_lookups *= 2,
            |settings| settings.clicks.buffer_clicks *= 2,
            |settings| settings.postgres.max_connections *= 2,
        ];
        for (number, change) in shortener.into_iter().enumerate() {
            assert!(total(change).0 > base.0, "{number}");
        }
        let worker: [fn(&mut Settings); 4] = [
            |settings| settings.jobs.upload_store = UploadStore::Postgres,
            |settings| settings.worker.consumers *= 2,
            |settings| settings.worker.group_batches *= 2,
            |settings| settings.postgres.max_connections *= 2,
        ];
        for (number, change) in worker.into_iter().enumerate() {
            assert!(total(change).1 > base.1, "{number}");
        }
    }
}
