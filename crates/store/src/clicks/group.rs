//! The data of a group of click batches, in the form in which it is written.

use std::num::NonZeroI32;

use chrono::{DateTime, NaiveDate, Utc};

use linnet_domain::{ClickKind, LinkId, Subject, UserId};

use super::{KindCounts, LinkDays, ValueDelta};

/// The shards of the roll-ups. A transaction writes the clicks and roll-ups of one or more shards, and a batch is done
/// when all its shards are written. The stream must be drained before the number of shards changes, because a shard of
/// a batch is recorded by its number.
pub const SHARDS: [i16; 2] = [1, 2];

/// The shard of a subject.
pub fn shard_of(subject: Subject) -> i16 {
    let [even, odd] = SHARDS;
    if subject.key() % 2 == 0 { even } else { odd }
}

/// A click with its attributes. A group has tens of thousands of them.
#[derive(Debug, Clone, Copy)]
pub struct ClickRow {
    /// When it happened.
    pub at: DateTime<Utc>,
    /// The link.
    pub url_id: LinkId,
    /// The hash of the visitor.
    pub visitor: Option<i64>,
    /// Ids of `click_values`, in the order of `ValueKind::ALL`.
    pub values: [Option<NonZeroI32>; 4],
    /// The link's owner.
    pub user_id: Option<UserId>,
    /// The kind of the request.
    pub kind: ClickKind,
    /// Whether the link's counter includes it already, because of a click limit.
    pub is_counted: bool,
}

/// An increment of a row of `click_hours`. Hours of links are in [`LinkDays`].
#[derive(Debug, Clone, Copy)]
pub struct HourDelta {
    /// A user, or the whole service.
    pub subject: Subject,
    /// The start of the hour.
    pub hour: DateTime<Utc>,
    /// The increment.
    pub counts: KindCounts,
}

/// An increment of a row of `click_days`. Days of links are in [`LinkDays`].
#[derive(Debug, Clone, Copy)]
pub struct DayDelta {
    /// A user, or the whole service.
    pub subject: Subject,
    /// The UTC day.
    pub day: NaiveDate,
    /// The increment.
    pub counts: KindCounts,
    /// Unique visitors of the whole day so far, which replace a lower number.
    pub visitors: i64,
}

/// An increment of a link's counter.
#[derive(Debug, Clone, Copy)]
pub struct LinkDelta {
    /// The link.
    pub url_id: LinkId,
    /// Clicks that the counter does not include yet.
    pub clicks: i64,
    /// The time of the latest click.
    pub last: DateTime<Utc>,
}

/// Batches of clicks with their roll-ups, or some of their shards. Each list is in the order in which rows are locked.
#[derive(Debug, Clone, Default)]
pub struct ClickGroup<'a> {
    /// The ids of the batches.
    pub batches: &'a [Vec<u8>],
    /// The shards, in ascending order.
    pub shards: Vec<i16>,
    /// The clicks.
    pub rows: &'a [ClickRow],
    /// The roll-ups.
    pub totals: ClickTotals,
}

/// Increments of roll-ups.
#[derive(Debug, Clone, Default)]
pub struct ClickTotals {
    /// Days of links, with their hours and values.
    pub link_days: LinkDays,
    /// Hours of users and of the whole service.
    pub hours: Vec<HourDelta>,
    /// Days of users and of the whole service.
    pub days: Vec<DayDelta>,
    /// Values of days of users and of the whole service.
    pub values: Vec<ValueDelta>,
    /// Counters of links.
    pub links: Vec<LinkDelta>,
}
