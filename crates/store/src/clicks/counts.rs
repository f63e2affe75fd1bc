//! Counts that roll-ups are made of.

use std::ops::AddAssign;

use chrono::NaiveDate;

use linnet_domain::{ClickKind, Subject};

/// Numbers of requests by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindCounts {
    /// Clicks by people.
    pub clicks: i64,
    /// Requests by bots.
    pub bots: i64,
    /// Prefetches.
    pub prefetches: i64,
    /// `HEAD` requests.
    pub heads: i64,
}

impl KindCounts {
    /// The numbers for one request of this kind.
    pub fn one(kind: ClickKind) -> Self {
        let mut counts = Self::default();
        let count = match kind {
            ClickKind::Person => &mut counts.clicks,
            ClickKind::Bot => &mut counts.bots,
            ClickKind::Prefetch => &mut counts.prefetches,
            ClickKind::Head => &mut counts.heads,
        };
        *count = 1;
        counts
    }
}

impl AddAssign for KindCounts {
    fn add_assign(&mut self, other: Self) {
        self.clicks += other.clicks;
        self.bots += other.bots;
        self.prefetches += other.prefetches;
        self.heads += other.heads;
    }
}

/// An increment of a row of `click_days_by_value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueDelta {
    /// A link, a user, or the whole service.
    pub subject: Subject,
    /// The UTC day.
    pub day: NaiveDate,
    /// An id of `click_values`.
    pub value_id: i32,
    /// The increment.
    pub clicks: i64,
}
