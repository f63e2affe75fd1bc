//! What is written of a group of batches.

use std::{num::NonZeroI32, ops::AddAssign};

use chrono::{DateTime, NaiveDate, Utc};

use linnet_domain::{ClickKind, LinkId, Subject, UserId};

use super::LinkDays;

/// The shards that subjects are divided into. Clicks and roll-ups of a shard are written by a
/// transaction of its own, or several shards by one; a batch is done when all its shards are. What is
/// in the stream while this changes would be written with other shards than before.
pub const SHARDS: [i16; 2] = [1, 2];

/// The shard of a subject.
pub fn shard_of(subject: Subject) -> i16 {
    let [even, odd] = SHARDS;
    if subject.key() % 2 == 0 { even } else { odd }
}

/// A click with everything that follows from it. There are tens of thousands of them at a time.
#[derive(Debug, Clone, Copy)]
pub struct ClickRow {
    /// When.
    pub at: DateTime<Utc>,
    /// Which link.
    pub url_id: LinkId,
    /// The visitor's hash.
    pub visitor: Option<i64>,
    /// Ids of `click_values`, in the order of `ValueKind::ALL`.
    pub values: [Option<NonZeroI32>; 4],
    /// The link's owner.
    pub user_id: Option<UserId>,
    /// What the request was.
    pub kind: ClickKind,
    /// The link's own counter has it already.
    pub is_counted: bool,
}

/// How many, by what the requests were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindCounts {
    /// People's clicks.
    pub clicks: i64,
    /// Bots.
    pub bots: i64,
    /// Prefetches.
    pub prefetches: i64,
    /// `HEAD` requests.
    pub heads: i64,
}

impl KindCounts {
    /// One request.
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

/// What is added to a row of `click_hours`; hours of links are in [`LinkDays`].
#[derive(Debug, Clone, Copy)]
pub struct HourDelta {
    /// A user, or the whole service.
    pub subject: Subject,
    /// The hour's beginning.
    pub hour: DateTime<Utc>,
    /// What is added.
    pub counts: KindCounts,
}

/// What is added to a row of `click_days`; days of links are in [`LinkDays`].
#[derive(Debug, Clone, Copy)]
pub struct DayDelta {
    /// As in [`HourDelta`].
    pub subject: Subject,
    /// The UTC day.
    pub day: NaiveDate,
    /// What is added.
    pub counts: KindCounts,
    /// Visitors of the whole day so far: replaces a lower number.
    pub visitors: i64,
}

/// What is added to a row of `click_days_by_value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueDelta {
    /// A link, a user, or the whole service.
    pub subject: Subject,
    /// The UTC day.
    pub day: NaiveDate,
    /// An id of `click_values`.
    pub value_id: i32,
    /// What is added.
    pub clicks: i64,
}

/// What is added to a link.
#[derive(Debug, Clone, Copy)]
pub struct LinkDelta {
    /// The link.
    pub url_id: LinkId,
    /// Clicks that its own counter does not have yet.
    pub clicks: i64,
    /// The latest of them.
    pub last: DateTime<Utc>,
}

/// Batches of clicks with everything that follows from them, or one shard of that. Each list is in the
/// order in which its rows are to be locked.
#[derive(Debug, Clone, Default)]
pub struct ClickGroup<'a> {
    /// The batches' ids.
    pub batches: &'a [Vec<u8>],
    /// What of them this is, in ascending order.
    pub shards: Vec<i16>,
    /// Raw rows.
    pub rows: &'a [ClickRow],
    /// Roll-ups.
    pub totals: ClickTotals,
}

/// Clicks added up.
#[derive(Debug, Clone, Default)]
pub struct ClickTotals {
    /// Links' days, with their hours and values.
    pub link_days: LinkDays,
    /// Hours of users and of the whole service.
    pub hours: Vec<HourDelta>,
    /// Their days.
    pub days: Vec<DayDelta>,
    /// Their days by value.
    pub values: Vec<ValueDelta>,
    /// Links' counters.
    pub links: Vec<LinkDelta>,
}
