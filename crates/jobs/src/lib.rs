//! Bulk jobs: from the upload to the last row.
//!
//! * The API process writes an upload to the upload area ([`upload`]), makes a row in `jobs`, and puts
//!   its number into a stream ([`queue`]).
//! * Workers share the streams. Each has a lane for small jobs and one that prefers large ones, so a
//!   small job never waits for a huge one.
//! * The row in PostgreSQL is the truth: who runs a job holds its lease, and writes each chunk of rows
//!   together with the place that is reached ([`run`]). A worker that dies is followed by another one
//!   at that place.
//! * What should be in the stream and is not, is put there again ([`dispatch`]).
//! * Whoever watches a job is told from the row, by any process ([`watch`]).

mod dispatch;
mod lane;
mod metrics;
mod queue;
mod run;
mod settings;
mod throttle;
pub mod upload;
mod watch;

use std::sync::Arc;

use linnet_platform::{lifecycle::Lifecycle, redis_client::RedisClient, settings::RedisSettings};
use linnet_telemetry::metrics::Meter;
use tokio::{
    sync::{Notify, Semaphore},
    task::{AbortHandle, JoinHandle},
};

use linnet_domain::{Lane, TargetPolicy};
use linnet_store::Store;

use dispatch::{Counted, Dispatcher};
use lane::LaneWorker;
use metrics::JobMetrics;
use run::Runner;

pub use queue::{announce, announcement};
pub use settings::JobSettings;
pub use watch::JobWatch;
pub use watch::Watched;

/// What the handlers of a serving process share.
#[derive(Clone)]
pub struct JobService {
    /// Section `jobs`.
    pub settings: Arc<JobSettings>,
    /// Jobs that somebody watches.
    pub watch: JobWatch,
    /// Uploads that may come at the same time.
    pub uploads: Arc<Semaphore>,
}

impl JobService {
    /// Starts to look at the jobs that somebody will watch.
    pub fn start(settings: &JobSettings, store: Store, lifecycle: &Lifecycle) -> Self {
        let watch = JobWatch::default();
        lifecycle.own("job watch", watch.clone().follow(store));
        Self {
            settings: Arc::new(settings.clone()),
            watch,
            uploads: Arc::new(Semaphore::new(settings.uploads)),
        }
    }
}

/// What each lane of a worker takes, best first.
const LANES: [&[Lane]; 2] = [&[Lane::Small], &[Lane::Large, Lane::Small]];

/// Database connections that a worker's lanes and its dispatcher take.
pub const WORKER_CONNECTIONS: u32 = 3;

/// Starts a worker's lanes; each with its end, and what ends it at once.
pub fn start_lanes(
    settings: &JobSettings,
    redis_settings: &RedisSettings,
    targets: &TargetPolicy,
    store: &Store,
    redis: &RedisClient,
    meter: &Meter,
    lifecycle: &Lifecycle,
) -> Vec<(JoinHandle<()>, AbortHandle)> {
    let counted = Counted::default();
    let metrics = Arc::new(JobMetrics::new(meter, &counted));
    let ended = Arc::new(Notify::new());
    let dispatcher = Dispatcher {
        store: store.clone(),
        redis: redis_settings.clone(),
        settings: settings.clone(),
        ended: Arc::clone(&ended),
        counted,
    };
    lifecycle.own("job dispatcher", dispatcher.run());
    let worker = rand::random::<u64>();
    let start = |(place, lanes): (usize, &'static [Lane])| {
        let lane = LaneWorker {
            runner: Runner {
                store: store.clone(),
                redis: redis.clone(),
                settings: settings.clone(),
                targets: targets.clone(),
                metrics: Arc::clone(&metrics),
            },
            redis: redis_settings.clone(),
            name: format!("worker-{worker:016x}-{place}"),
            lanes,
            ended: Arc::clone(&ended),
        };
        let task = tokio::spawn(lane.run(lifecycle.draining()));
        let abort = task.abort_handle();
        (lifecycle.watch("job lane", task), abort)
    };
    LANES.into_iter().enumerate().map(start).collect()
}
