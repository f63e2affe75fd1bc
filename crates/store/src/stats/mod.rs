//! Click statistics, computed from roll-ups and never from single clicks.
//!
//! * PostgreSQL does all arithmetic with time zones. One statement computes the range and checks the visibility. Then
//!   the queries of the series and of the lists of values run concurrently.
//! * An hour counts in the interval in which it begins. Days and weeks in UTC come from the roll-up by day, which has
//!   one row instead of 24.
//! * Visitors and values are kept by UTC day. Such a day counts in the interval of its noon, so that each day of a time
//!   zone gets the UTC day with which it shares most hours.
//! * Values of folded months ([`Store::fold_click_month`]) are read as one row. Folding changes only the speed.

mod months;

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use linnet_telemetry::context::observe_query;

use linnet_domain::{
    Bucket, Counts, Dimension, Interval, LinkId, MAX_BUCKETS, RangeBound, Stats, StatsQuery,
    TopValue, UserId, Visibility,
};

use super::{Store, StoreError};

/// PostgreSQL's error for an unknown time zone: `invalid_parameter_value`.
const UNKNOWN_ZONE: &str = "22023";

/// Why statistics cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The time zone does not exist.
    #[error("the time zone does not exist")]
    UnknownZone,
    /// The range does not end after its start.
    #[error("the range is empty")]
    EmptyRange,
    /// The range has more than [`MAX_BUCKETS`] intervals.
    #[error("the range has too many intervals")]
    TooManyBuckets,
    /// A database error.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The range of a query in terms of roll-ups.
struct StatsRange {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    is_empty: bool,
    /// The start of the first bucket in local time.
    first: NaiveDateTime,
    /// The start of the last bucket in local time.
    last: NaiveDateTime,
    buckets: i64,
    /// The first UTC day that counts.
    first_day: NaiveDate,
    /// The day after the last UTC day that counts.
    end_day: NaiveDate,
    /// Whether roll-ups by UTC day are enough.
    is_whole_days: bool,
    is_visible: bool,
}

impl Store {
    /// The statistics of a subject. `None` if it does not exist or is not visible.
    pub async fn click_stats(
        &self,
        query: &StatsQuery,
        visible_to: Visibility,
    ) -> Result<Option<Stats>, StatsError> {
        let range = self.stats_range(query, visible_to).await?;
        if range.is_empty {
            return Err(StatsError::EmptyRange);
        }
        if range.buckets > MAX_BUCKETS {
            return Err(StatsError::TooManyBuckets);
        }
        if !range.is_visible {
            return Ok(None);
        }
        let (series, (visitors, top)) =
            futures::try_join!(self.stats_series(query, &range), self.stats_top(query, &range))?;
        let mut totals = Counts { unique_visitors: Some(visitors), ..Counts::default() };
        for Bucket { counts, .. } in &series {
            totals.clicks += counts.clicks;
            totals.bots += counts.bots;
            totals.prefetches += counts.prefetches;
            totals.heads += counts.heads;
        }
        let mut lists: BTreeMap<_, Vec<TopValue>> =
            query.dimensions.iter().map(|dimension| (dimension.name(), Vec::new())).collect();
        for (name, value) in top {
            lists.entry(name).or_default().push(value);
        }
        Ok(Some(Stats { from: range.from, to: range.to, totals, series, top: lists }))
    }

    /// Computes the range. The start is rounded down to an hour of the time zone, and the end up.
    async fn stats_range(
        &self,
        query: &StatsQuery,
        visible_to: Visibility,
    ) -> Result<StatsRange, StatsError> {
        let statement = sqlx::query_file_as!(
            StatsRange,
            "queries/stats_range.sql",
            query.zone.as_str(),
            query.from.and_then(RangeBound::time),
            query.from.and_then(RangeBound::date),
            query.to.and_then(RangeBound::time),
            query.to.and_then(RangeBound::date),
            query.interval.name(),
            query.interval.default_buckets(),
            query.subject.link_id().map(LinkId::get),
            query.subject.user_id().map(UserId::get),
            visible_to.owner_filter()
        );
        observe_query("stats_range", statement.fetch_one(&self.pool)).await.map_err(|error| {
            let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
            if code.as_deref() == Some(UNKNOWN_ZONE) {
                StatsError::UnknownZone
            } else {
                StoreError::from(error).into()
            }
        })
    }

    /// The series without gaps.
    async fn stats_series(
        &self,
        query: &StatsQuery,
        range: &StatsRange,
    ) -> Result<Vec<Bucket>, StoreError> {
        let is_hourly = query.interval == Interval::Hour;
        let zone = if is_hourly { "UTC" } else { query.zone.as_str() };
        let statement = sqlx::query_file!(
            "queries/stats_series.sql",
            range.first,
            range.last,
            query.interval.name(),
            zone,
            range.is_whole_days,
            query.subject.key(),
            range.from,
            range.to,
            range.first_day,
            range.end_day
        );
        let rows = observe_query("stats_series", statement.fetch_all(&self.pool)).await?;
        let buckets = rows.into_iter().map(|row| Bucket {
            start: row.start,
            counts: Counts {
                clicks: row.clicks,
                unique_visitors: (!is_hourly).then_some(row.visitors),
                bots: row.bots,
                prefetches: row.prefetches,
                heads: row.heads,
            },
        });
        Ok(buckets.collect())
    }

    /// The visitors of the whole range, and the most frequent values of each dimension, in the order of frequency.
    async fn stats_top(
        &self,
        query: &StatsQuery,
        range: &StatsRange,
    ) -> Result<(i64, Vec<(&'static str, TopValue)>), StoreError> {
        let kinds: Vec<i16> = query.dimensions.iter().map(|d| d.kind.number()).collect();
        let parts: Vec<i32> = query.dimensions.iter().map(|d| d.part).collect();
        let has_label: Vec<bool> =
            query.dimensions.iter().map(|d| d.label_without_value().is_some()).collect();
        let statement = sqlx::query_file!(
            "queries/stats_top.sql",
            query.subject.key(),
            range.first_day,
            range.end_day,
            &kinds,
            &parts,
            &has_label,
            query.top
        );
        let rows = observe_query("stats_top", statement.fetch_all(&self.pool)).await?;
        let visitors = rows.first().map_or(0, |row| row.visitors);
        let named = rows.into_iter().filter_map(|row| {
            let dimension = Dimension::all()
                .find(|d| Some(d.kind.number()) == row.kind && Some(d.part) == row.part)?;
            let value = row.value.filter(|value| !value.is_empty());
            let value = value.or_else(|| dimension.label_without_value().map(ToOwned::to_owned))?;
            Some((dimension.name(), TopValue { value, clicks: row.clicks? }))
        });
        Ok((visitors, named.collect()))
    }
}
