//! Slots for long requests: event streams, exports and uploads. Each user has a share of the slots of each kind.

use std::sync::Arc;

use linnet_domain::UserId;
use linnet_jobs::JobSettings;
use linnet_platform::slot_pool::{Slot, SlotPool, SlotRefusal};
use linnet_protocol::{problem::Problem, problem_code::ProblemCode};
use linnet_telemetry::metrics::{KeyValue, Meter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::ShortenerSettings;

/// `Retry-After` in seconds when slots are held.
const RETRY_AFTER_S: u64 = 5;

/// The user of a slot. All callers without a user share one share.
pub(crate) type Owner = Option<UserId>;

/// The slots of the process.
#[derive(Debug, Clone)]
pub struct Slots {
    /// Streams of live clicks.
    pub(super) live_streams: SlotPool<Owner>,
    /// Streams of jobs' events.
    pub(super) job_streams: SlotPool<Owner>,
    /// Uploads.
    pub(super) uploads: SlotPool<Owner>,
    /// Exports. Each uses a connection, a transaction and much of a core.
    exports: SlotPool<Owner>,
    most_exports: usize,
}

impl Slots {
    /// Builds the pools and registers their metrics.
    pub fn new(settings: &ShortenerSettings, jobs: &JobSettings, meter: &Meter) -> Self {
        let slots = Self {
            live_streams: SlotPool::new(settings.live_streams, settings.live_streams_per_user),
            job_streams: SlotPool::new(settings.job_streams, settings.job_streams_per_user),
            uploads: SlotPool::new(jobs.uploads, jobs.uploads_per_user),
            exports: SlotPool::new(settings.exports, settings.exports_per_user),
            most_exports: settings.exports,
        };
        slots.register(meter);
        slots
    }

    /// The slots for exports of one server thread. One of its `connections` stays free for other requests.
    pub fn exports_of_thread(&self, connections: u32) -> ExportSlots {
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        let own = connections.saturating_sub(1).clamp(1, self.most_exports);
        ExportSlots { process: self.exports.clone(), thread: Arc::new(Semaphore::new(own)) }
    }

    fn named(&self) -> [(&'static str, SlotPool<Owner>); 4] {
        [
            ("live_streams", self.live_streams.clone()),
            ("job_streams", self.job_streams.clone()),
            ("uploads", self.uploads.clone()),
            ("exports", self.exports.clone()),
        ]
    }

    fn register(&self, meter: &Meter) {
        let pools = self.named();
        meter
            .u64_observable_gauge("linnet_slots_held")
            .with_description("Event streams, uploads and exports that are open, by kind.")
            .with_callback(move |observer| {
                for (kind, pool) in &pools {
                    observer.observe(pool.held() as u64, &[KeyValue::new("kind", *kind)]);
                }
            })
            .build();
        let pools = self.named();
        meter
            .u64_observable_counter("linnet_slots_refused")
            .with_description(
                "Event streams, uploads and exports that were rejected, by kind and by the limit that was exceeded.",
            )
            .with_callback(move |observer| {
                for (kind, pool) in &pools {
                    let (share, all) = pool.refused();
                    for (limit, count) in [("user", share), ("process", all)] {
                        let labels = [KeyValue::new("kind", *kind), KeyValue::new("limit", limit)];
                        observer.observe(count, &labels);
                    }
                }
            })
            .build();
    }
}

/// The problem of a refused slot: 429 if the user holds its whole share, 503 if all slots are held. `what` is a plural,
/// such as "exports".
pub(super) fn refused(refusal: SlotRefusal, what: &str) -> Problem {
    match refusal {
        SlotRefusal::Share { share } => Problem::of(ProblemCode::TooManyConcurrent)
            .detail(format!("A user may have {share} concurrent {what}. End one, or retry later."))
            .retry_after(RETRY_AFTER_S),
        SlotRefusal::All => Problem::unavailable(
            format!("Too many {what} of all users are running. Retry later."),
            RETRY_AFTER_S,
        ),
    }
}

/// The exports of one server thread.
#[derive(Debug, Clone)]
pub struct ExportSlots {
    process: SlotPool<Owner>,
    thread: Arc<Semaphore>,
}

/// Permission for one export, until it is dropped.
#[derive(Debug)]
pub(super) struct ExportSlot {
    _thread: OwnedSemaphorePermit,
    _process: Slot<Owner>,
}

impl ExportSlots {
    /// Takes a slot.
    pub(super) fn take(&self, owner: Owner) -> Result<ExportSlot, SlotRefusal> {
        let process = self.process.take(owner)?;
        let thread = Arc::clone(&self.thread).try_acquire_owned().map_err(|_| SlotRefusal::All)?;
        Ok(ExportSlot { _thread: thread, _process: process })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Slots {
        let (telemetry, _reader) = linnet_telemetry::testing::telemetry();
        Slots::new(&ShortenerSettings::default(), &JobSettings::default(), &telemetry.meter())
    }

    #[test]
    fn exports_are_limited_by_user_and_process_and_leave_a_connection_free() {
        let slots = slots();
        let user = UserId::new;
        let (wide, narrow) = (slots.exports_of_thread(6), slots.exports_of_thread(2));
        let first = narrow.take(user(1)).unwrap();
        assert_eq!(wide.take(user(1)).unwrap_err(), SlotRefusal::Share { share: 1 });
        let last = narrow.take(user(2));
        assert_eq!(
            last.unwrap_err(),
            SlotRefusal::All,
            "the last connection is for other requests"
        );
        let second = wide.take(user(2)).unwrap();
        assert_eq!(wide.take(user(3)).unwrap_err(), SlotRefusal::All, "the limit of the process");
        drop(second);
        assert!(wide.take(user(3)).is_ok());
        drop(first);
        assert!(narrow.take(user(1)).is_ok());
    }
}
