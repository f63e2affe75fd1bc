//! Click statistics, computed from roll-ups and never from single clicks.
//!
//! * [`StatsQuery::range`] does all arithmetic with time zones, so PostgreSQL gets only instants. One statement checks
//!   the visibility. Then the queries of the series and of the lists of values run concurrently.
//! * An hour counts in the interval in which it begins. Days and weeks in UTC come from the roll-up by day, which has
//!   one row instead of 24.
//! * Visitors and values are stored by UTC day. A UTC day counts in the interval that contains its noon, so that each
//!   day of a time zone gets the UTC day with which it shares most hours.
//! * Values of folded months ([`Store::fold_click_month`]) are read as one row per month. Folding changes only the
//!   speed.

mod months;

use std::collections::BTreeMap;

use crate::observe::observe_query;
use chrono::{DateTime, Utc};

use linnet_domain::{
    Bucket, Counts, Dimension, Interval, LinkId, RangeError, Stats, StatsQuery, StatsRange,
    Subject, TopValue, UserId, Visibility,
};

use super::{Store, StoreError};

/// Why statistics cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The range of the query is not valid.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// A database error.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The statistics of a subject. `None` if it does not exist or is not visible.
    pub async fn click_stats(
        &self,
        query: &StatsQuery,
        visible_to: Visibility,
    ) -> Result<Option<Stats>, StatsError> {
        self.read(async |store| match store.click_stats_once(query, visible_to).await {
            Err(StatsError::Store(error)) => Err(error),
            result => Ok(result),
        })
        .await?
    }

    async fn click_stats_once(
        &self,
        query: &StatsQuery,
        visible_to: Visibility,
    ) -> Result<Option<Stats>, StatsError> {
        let (now, is_visible) = self.stats_subject(query.subject, visible_to).await?;
        let range = query.range(now)?;
        if !is_visible {
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

    /// The time by the database's clock, and whether the caller may read the subject.
    async fn stats_subject(
        &self,
        subject: Subject,
        visible_to: Visibility,
    ) -> Result<(DateTime<Utc>, bool), StoreError> {
        let query = sqlx::query!(
            r#"SELECT now() AS "now!",
                 CASE WHEN $1::bigint IS NOT NULL THEN EXISTS (SELECT FROM urls
                        WHERE id = $1 AND ($3::bigint IS NULL OR user_id = $3))
                      WHEN $2::bigint IS NOT NULL THEN EXISTS (SELECT FROM users
                        WHERE id = $2 AND ($3 IS NULL OR id = $3))
                      ELSE $3 IS NULL END AS "is_visible!""#,
            subject.link_id().map(LinkId::get),
            subject.user_id().map(UserId::get),
            visible_to.owner_filter()
        );
        let row = observe_query("stats_subject", query.fetch_one(&self.pool)).await?;
        Ok((row.now, row.is_visible))
    }

    /// The series without gaps.
    async fn stats_series(
        &self,
        query: &StatsQuery,
        range: &StatsRange,
    ) -> Result<Vec<Bucket>, StoreError> {
        let is_hourly = query.interval == Interval::Hour;
        let statement = sqlx::query_file!(
            "queries/stats_series.sql",
            &range.starts,
            !is_hourly,
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
