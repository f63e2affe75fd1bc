//! A time that tasks extend and that readers of any thread compare with their own clock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Ends by itself: no task has to run for a reader to see that it has passed.
#[derive(Debug)]
pub(crate) struct Deadline {
    base: Instant,
    /// In nanoseconds after `base`; 0 if it has been ended.
    nanos: AtomicU64,
}

impl Default for Deadline {
    /// A deadline that has passed.
    fn default() -> Self {
        Self { base: Instant::now(), nanos: AtomicU64::new(0) }
    }
}

impl Deadline {
    /// Whether `now` is before the deadline.
    #[inline]
    pub(crate) fn is_ahead_of(&self, now: Instant) -> bool {
        self.nanos_to(now) < self.nanos.load(Ordering::Acquire)
    }

    /// The deadline; in the past if it has been ended.
    pub(crate) fn until(&self) -> Instant {
        self.base + std::time::Duration::from_nanos(self.nanos.load(Ordering::Acquire))
    }

    /// Moves the deadline to `until`.
    pub(crate) fn set(&self, until: Instant) {
        self.nanos.store(self.nanos_to(until), Ordering::Release);
    }

    /// Ends it now.
    pub(crate) fn end(&self) {
        self.nanos.store(0, Ordering::Release);
    }

    /// Nanoseconds from `base` to `at`. A `u64` holds more than 500 years.
    fn nanos_to(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.base).as_nanos()).unwrap_or(u64::MAX)
    }
}
