//! Statistics of clicks, from the roll-ups and never from the clicks themselves.
//!
//! * Time zones are PostgreSQL's business. Ranges are settled by one statement, which also says
//!   whether the caller may see; then two run side by side: the series, and the lists.
//! * Hours count where they begin. For days and weeks in UTC the roll-up by day is read, which is a
//!   twenty-fourth of the other.
//! * Visitors and lists are kept by UTC day. Such a day counts where its noon is: in every zone that
//!   gives each day of the zone one UTC day, the one that it shares most hours with.
//! * The values of past months are read added up ([`Store::fold_click_month`]), those of other days
//!   one by one; without the folding everything is right, and slower.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use linnet_telemetry::context::observe_query;

use linnet_domain::{
    Bucket, Counts, Dimension, Interval, LinkId, MAX_BUCKETS, RangeBound, Stats, StatsQuery,
    TopValue, UserId, Visibility,
};

use super::{Store, StoreError};

/// PostgreSQL's `invalid_parameter_value`: what it says of a time zone that it does not know.
const UNKNOWN_ZONE: &str = "22023";

/// Why there are no statistics.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// There is no such time zone.
    #[error("there is no such time zone")]
    UnknownZone,
    /// The range does not end after its beginning.
    #[error("the range is empty")]
    EmptyRange,
    /// The range has more than [`MAX_BUCKETS`] intervals.
    #[error("the range has too many intervals")]
    TooManyBuckets,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A range as the roll-ups see it.
struct Range {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    is_empty: bool,
    /// The beginnings of the first and the last bucket on the zone's clocks.
    first: NaiveDateTime,
    last: NaiveDateTime,
    buckets: i64,
    /// The UTC days that count, the second no more.
    first_day: NaiveDate,
    end_day: NaiveDate,
    /// UTC days are all that is needed.
    is_whole_days: bool,
    is_visible: bool,
}

impl Store {
    /// Statistics of a subject, `None` if `visible_to` may not see it or there is none.
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

    /// Settles the ends. The beginning goes back to the hour and the end on to it, on the zone's
    /// clocks, since an hour is the least that is counted.
    async fn stats_range(
        &self,
        query: &StatsQuery,
        visible_to: Visibility,
    ) -> Result<Range, StatsError> {
        let statement = sqlx::query_as!(
            Range,
            r#"WITH given AS (
                 SELECT COALESCE($2, $3::date::timestamp AT TIME ZONE $1) AS "from",
                        COALESCE($4, $5::date::timestamp AT TIME ZONE $1, now()) AS "to",
                        CASE $6::text WHEN 'hour' THEN 'UTC' ELSE $1::text END AS zone,
                        ('1 ' || $6)::interval AS step
               ), ends AS (
                 SELECT zone, step, "to" AS given_to,
                        COALESCE("from", (date_trunc($6, ("to" - interval '1 microsecond')
                            AT TIME ZONE zone) - ($7::int - 1) * step) AT TIME ZONE zone) AS "from"
                   FROM given
               ), hours AS (
                 SELECT zone, step, given_to, "from" >= given_to AS is_empty,
                        date_trunc('hour', "from", zone) AS "from",
                        date_trunc('hour', given_to + interval '1 hour - 1 microsecond', zone)
                          AS "to"
                   FROM ends
               ), clocks AS (
                 SELECT *, "from" AT TIME ZONE zone AS local_from,
                        ("to" - interval '1 microsecond') AT TIME ZONE zone AS local_last
                   FROM hours
               ), buckets AS (
                 SELECT *, date_trunc($6, local_from) AS first,
                        date_trunc($6, local_last) AS last
                   FROM clocks
               )
               -- A zone that nothing here needs must be one as well.
               SELECT "from" AS "from!", "to" AS "to!",
                      is_empty OR now() AT TIME ZONE $1 IS NULL AS "is_empty!",
                      first AS "first!", last AS "last!",
                      1 + (extract(epoch FROM last - first) / extract(epoch FROM step))::bigint
                        AS "buckets!",
                      ((date_trunc('day', local_from) AT TIME ZONE zone) AT TIME ZONE 'UTC'
                        + interval '12 hours - 1 microsecond')::date AS "first_day!",
                      (((date_trunc('day', local_last) + interval '1 day') AT TIME ZONE zone)
                        AT TIME ZONE 'UTC' + interval '12 hours - 1 microsecond')::date
                        AS "end_day!",
                      upper(zone) = 'UTC' AND $6 <> 'hour'
                        AND "from" = date_trunc('day', "from", 'UTC')
                        AND ("to" = date_trunc('day', "to", 'UTC') OR "to" >= now())
                        AS "is_whole_days!",
                      CASE WHEN $8::bigint IS NOT NULL THEN EXISTS (SELECT FROM urls
                             WHERE id = $8 AND ($10::bigint IS NULL OR user_id = $10))
                           WHEN $9::bigint IS NOT NULL THEN EXISTS (SELECT FROM users
                             WHERE id = $9 AND ($10 IS NULL OR id = $10))
                           ELSE $10 IS NULL END AS "is_visible!"
                 FROM buckets"#,
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

    /// The series, with nothing where nothing was counted.
    async fn stats_series(
        &self,
        query: &StatsQuery,
        range: &Range,
    ) -> Result<Vec<Bucket>, StoreError> {
        let is_hourly = query.interval == Interval::Hour;
        let zone = if is_hourly { "UTC" } else { query.zone.as_str() };
        let statement = sqlx::query!(
            r#"WITH counted AS (
                 SELECT generate_series($1::timestamp, $2::timestamp, ('1 ' || $3::text)::interval)
                          AS local,
                        0::bigint AS clicks, 0::bigint AS visitors, 0::bigint AS bots,
                        0::bigint AS prefetches, 0::bigint AS heads
                 UNION ALL
                 SELECT date_trunc($3, day::timestamp), clicks, 0, bots, prefetches, heads
                   FROM click_totals_by_day
                  WHERE $5 AND subject = $6 AND day >= $9 AND day < $10
                 UNION ALL
                 SELECT date_trunc($3, hour AT TIME ZONE $4::text), clicks, 0, bots, prefetches, heads
                   FROM click_totals_by_hour
                  WHERE NOT $5::boolean AND subject = $6 AND hour >= $7 AND hour < $8
                    AND day >= ($7 AT TIME ZONE 'UTC')::date AND day <= ($8 AT TIME ZONE 'UTC')::date
                 UNION ALL
                 SELECT date_trunc($3, (day + time '12:00') AT TIME ZONE 'UTC' AT TIME ZONE $4),
                        0, visitors, 0, 0, 0
                   FROM click_totals_by_day
                  WHERE $3 <> 'hour' AND subject = $6 AND day >= $9 AND day < $10
               )
               SELECT local AT TIME ZONE $4 AS "start!", sum(clicks)::bigint AS "clicks!",
                      sum(visitors)::bigint AS "visitors!", sum(bots)::bigint AS "bots!",
                      sum(prefetches)::bigint AS "prefetches!", sum(heads)::bigint AS "heads!"
                 FROM counted GROUP BY local ORDER BY local"#,
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

    /// The visitors of all days, and the most frequent values of each dimension in their order.
    /// Values that no click has said are the days' clicks without those that have: one statement,
    /// so both are of the same moment.
    async fn stats_top(
        &self,
        query: &StatsQuery,
        range: &Range,
    ) -> Result<(i64, Vec<(&'static str, TopValue)>), StoreError> {
        let kinds: Vec<i16> = query.dimensions.iter().map(|d| d.kind.number()).collect();
        let parts: Vec<i32> = query.dimensions.iter().map(|d| d.part).collect();
        let absent: Vec<bool> =
            query.dimensions.iter().map(|d| d.label_without_value().is_some()).collect();
        let statement = sqlx::query!(
            r#"WITH folded AS (
                 SELECT COALESCE(max(month) + interval '1 month', '-infinity') AS "end"
                   FROM click_months
               ), months AS (
                 SELECT first, GREATEST(first, LEAST(date_trunc('month', $3::date::timestamp),
                                                     "end")::date) AS "end"
                   FROM folded, LATERAL (SELECT (date_trunc('month', ($2::date - 1)::timestamp)
                                                 + interval '1 month')::date AS first) AS bounds
               ), by_value AS MATERIALIZED (
                 SELECT value_id, sum(clicks)::bigint AS clicks
                   FROM (SELECT value_id, clicks FROM click_totals_by_value
                          WHERE subject = $1 AND day >= $2
                            AND day < LEAST($3, (SELECT first FROM months))
                         UNION ALL
                         SELECT value_id, clicks FROM click_months_by_value
                          WHERE subject = $1 AND month >= (SELECT first FROM months)
                            AND month < (SELECT "end" FROM months)
                         UNION ALL
                         SELECT value_id, clicks FROM click_totals_by_value
                          WHERE subject = $1 AND day >= (SELECT "end" FROM months)
                            AND day < $3) AS counted
                  WHERE $7::bigint > 0
                  GROUP BY value_id
               ), valued AS MATERIALIZED (
                 SELECT kind, parts, clicks FROM by_value JOIN click_values ON id = value_id
               ), total AS (
                 SELECT COALESCE(sum(clicks), 0)::bigint AS clicks,
                        COALESCE(sum(visitors), 0)::bigint AS visitors
                   FROM click_totals_by_day WHERE subject = $1 AND day >= $2 AND day < $3
               ), dimension AS (
                 SELECT * FROM unnest($4::smallint[], $5::int[], $6::boolean[])
                   AS dimension (kind, part, lists_absent)
               ), named AS (
                 SELECT dimension.kind, part, parts[part] AS value, clicks
                   FROM valued JOIN dimension USING (kind)
                  WHERE lists_absent OR parts[part] <> ''
                 UNION ALL
                 SELECT kind, part, '', total.clicks - COALESCE((SELECT sum(valued.clicks)
                          FROM valued WHERE valued.kind = dimension.kind), 0)
                   FROM dimension, total WHERE lists_absent AND $7 > 0
               ), ranked AS (
                 SELECT kind, part, value, sum(clicks)::bigint AS clicks,
                        row_number() OVER (PARTITION BY kind, part
                                           ORDER BY sum(clicks) DESC, value = '', value)
                          AS place
                   FROM named GROUP BY kind, part, value HAVING sum(clicks) > 0
               )
               SELECT visitors AS "visitors!", kind AS "kind?", part AS "part?", value AS "value?",
                      ranked.clicks AS "clicks?"
                 FROM total LEFT JOIN ranked ON place <= $7
                ORDER BY kind, part, place"#,
            query.subject.key(),
            range.first_day,
            range.end_day,
            &kinds,
            &parts,
            &absent,
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

    /// Adds up the values of the next month that ended a week ago, which is when batches
    /// of clicks are no longer known apart either. What comes later still is in the totals, and in
    /// the lists only as absent. Safe to call from several processes, and again until it says `None`.
    pub async fn fold_click_month(&self) -> Result<Option<NaiveDate>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // A month of many links takes seconds, and nobody waits for it.
        sqlx::query!("SET LOCAL statement_timeout = '10min'").execute(&mut *transaction).await?;
        let statement = sqlx::query_scalar!(
            r#"WITH next AS (
                 SELECT COALESCE((SELECT max(month) + interval '1 month' FROM click_months),
                                 (SELECT date_trunc('month', min(day)::timestamp) FROM click_days
                                   WHERE subject = 0)) AS month
               ), claimed AS (
                 INSERT INTO click_months (month)
                 SELECT month::date FROM next
                  WHERE month + interval '1 month 7 days' <= now() AT TIME ZONE 'UTC'
                 ON CONFLICT DO NOTHING
                 RETURNING month
               ), folded AS (
                 INSERT INTO click_months_by_value (subject, month, value_id, clicks)
                 -- Not a join: its condition would not reach the tables behind the view, and all
                 -- there ever was would be read.
                 SELECT subject, (SELECT month FROM claimed), value_id, sum(clicks)
                   FROM click_totals_by_value
                  WHERE day >= (SELECT month FROM claimed)
                    AND day < (SELECT (month + interval '1 month')::date FROM claimed)
                    AND EXISTS (SELECT FROM claimed)
                  GROUP BY subject, value_id
               )
               SELECT month FROM claimed"#
        );
        let month =
            observe_query("fold_click_month", statement.fetch_optional(&mut *transaction)).await?;
        transaction.commit().await?;
        Ok(month)
    }

    /// Takes back the folding of the month of `day` and of all later ones, for clicks that are
    /// written into the past. Until they are folded again, their days are read.
    pub async fn unfold_click_months(&self, day: NaiveDate) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        // Nobody folds meanwhile.
        sqlx::query!("LOCK TABLE click_months IN SHARE ROW EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await?;
        sqlx::query!(
            "DELETE FROM click_months_by_value WHERE month >= date_trunc('month', $1::date::timestamp)",
            day
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "DELETE FROM click_months WHERE month >= date_trunc('month', $1::date::timestamp)",
            day
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }
}
