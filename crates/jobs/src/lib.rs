//! Both ends of the bulk job queue: from an upload to a notice, from a lease to written rows.
//!
//! - A serving process stores an upload ([`upload`]), inserts a row into `jobs`, and publishes a notice
//!   with the job's id to a stream ([`publish_notice`]).
//! - Workers share the streams. Each worker has a lane for small jobs and a lane that prefers large ones, so a small job
//!   never waits for a large one.
//! - The job's row in PostgreSQL holds its lease and its position. The worker with the lease writes each chunk of rows and
//!   the new position in one transaction. If it dies, another worker continues from that position.
//! - Each worker's dispatcher publishes notices that are missing or were lost.
//! - [`JobUpdates`] reads the rows of jobs that clients watch, so any process can serve the events of any job.

mod dispatch;
mod lane;
mod metrics;
mod queue;
mod run;
mod settings;
mod throttle;
mod updates;
pub mod upload;

use std::sync::Arc;

use linnet_platform::{lifecycle::Lifecycle, redis_client::RedisClient, settings::RedisSettings};
use linnet_telemetry::metrics::Meter;
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinHandle},
};

use linnet_domain::{Lane, TargetPolicy};
use linnet_store::Store;

use dispatch::{Dispatcher, SharedJobCounts};
use lane::LaneWorker;
use metrics::JobMetrics;
use run::JobRunner;
use upload::UploadArea;

pub use queue::publish_notice;
pub use settings::{JobSettings, UploadStore};
pub use updates::{JobSubscription, JobUpdates};

/// The shared state of a serving process's job endpoints.
#[derive(Clone)]
pub struct JobService {
    /// Section `jobs`.
    pub settings: Arc<JobSettings>,
    /// Updates of watched jobs.
    pub updates: JobUpdates,
}

impl JobService {
    /// Starts the task that reads watched jobs.
    pub fn start(settings: &JobSettings, store: Store, lifecycle: &Lifecycle) -> Self {
        let updates = JobUpdates::default();
        lifecycle.spawn_critical("job updates", updates.clone().run(store));
        Self { settings: Arc::new(settings.clone()), updates }
    }

    /// The uploads, with the connections of a server thread.
    pub fn uploads(&self, store: &Store) -> UploadArea {
        UploadArea::new(Arc::clone(&self.settings), store.clone())
    }
}

/// The lanes that each lane of a worker serves, in order of preference.
const LANES: [&[Lane]; 2] = [&[Lane::Small], &[Lane::Large, Lane::Small]];

/// Database connections that a worker's lanes and dispatcher need: one each, and one more for each lane that reads uploads
/// from the database, because it reads ahead while it writes.
pub fn worker_connections(settings: &JobSettings) -> u32 {
    match settings.upload_store {
        UploadStore::Directory => 3,
        UploadStore::Postgres => 5,
    }
}

/// Starts a worker's dispatcher and lanes. Returns for each lane a handle that waits for its end, and one that aborts it.
pub fn start_lanes(
    settings: &JobSettings,
    redis_settings: &RedisSettings,
    targets: &TargetPolicy,
    store: &Store,
    redis: &RedisClient,
    meter: &Meter,
    lifecycle: &Lifecycle,
) -> Vec<(JoinHandle<()>, AbortHandle)> {
    let counts = SharedJobCounts::default();
    let metrics = Arc::new(JobMetrics::new(meter, &counts));
    let attempt_ended = Arc::new(Notify::new());
    let dispatcher = Dispatcher {
        store: store.clone(),
        redis: redis_settings.clone(),
        settings: settings.clone(),
        attempt_ended: Arc::clone(&attempt_ended),
        counts,
    };
    lifecycle.spawn_critical("job dispatcher", dispatcher.run());
    let worker = rand::random::<u64>();
    let start = |(number, lanes): (usize, &'static [Lane])| {
        let lane = LaneWorker {
            runner: JobRunner {
                store: store.clone(),
                redis: redis.clone(),
                uploads: UploadArea::new(Arc::new(settings.clone()), store.clone()),
                settings: settings.clone(),
                targets: targets.clone(),
                metrics: Arc::clone(&metrics),
            },
            redis: redis_settings.clone(),
            name: format!("worker-{worker:016x}-{number}"),
            lanes,
            attempt_ended: Arc::clone(&attempt_ended),
        };
        let task = tokio::spawn(lane.run(lifecycle.draining()));
        let abort = task.abort_handle();
        (lifecycle.watch_critical("job lane", task), abort)
    };
    LANES.into_iter().enumerate().map(start).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_that_read_uploads_from_the_database_have_a_second_connection() {
        let connections =
            |upload_store| worker_connections(&JobSettings { upload_store, ..Default::default() });
        assert_eq!(LANES.len(), 2);
        assert_eq!(connections(UploadStore::Directory), 3);
        assert_eq!(connections(UploadStore::Postgres), 5);
    }
}
