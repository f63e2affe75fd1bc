//! Click statistics: the parameters and responses that [`url`] (one link) and [`all`] (a user or all links) share.

pub(in crate::http) mod all;
mod range;
pub(in crate::http) mod url;

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use linnet_domain::{
    Bucket, Counts, DEFAULT_TOP, Dimension, Interval, LinkId, MAX_BUCKETS, MAX_TOP, RangeError,
    Stats, StatsQuery, Subject, TopValue, UserId, Zone,
    rules::{Violation, string},
};
use linnet_store::StatsError;

use super::{
    super::{
        csv::{self, Cell},
        error::ApiError,
    },
    ApiState, Caller,
    fields::{Fields, QueryFields, query_number},
    format::{Accepted, Format},
};

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.configure(url::routes).configure(all::routes);
}

/// The parameters of statistics, documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the input; `StatsRequest` reads it")]
pub(crate) struct StatsParams {
    /// The beginning: an RFC 3339 time, or a day of `tz` such as 2026-11-21. Default: 48 hours, 30
    /// days or 26 weeks before the end, by `interval`.
    #[param(format = "stats-from")]
    from: Option<String>,
    /// The end, exclusive, in the same forms. Default: now.
    #[param(format = "stats-to")]
    to: Option<String>,
    /// `hour`, `day` (default) or `week`. The range may have at most 2,000 intervals.
    #[param(pattern = "^(hour|day|week)$")]
    interval: Option<String>,
    /// An IANA time zone. Default: UTC.
    #[param(format = "time-zone")]
    tz: Option<String>,
    /// The maximum number of values in each list of `top`. Default: 10.
    #[param(minimum = 0, maximum = 100)]
    top: Option<i64>,
    /// Only this list of `top`. CSV then has this list instead of the series.
    #[param(
        pattern = "^(browser|os|device|country|language|referrer|utm_source|utm_medium|utm_campaign)$"
    )]
    dimension: Option<String>,
}

/// Clicks of a link, of a user's links, or of all links.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stats)]
pub(crate) struct StatsBody {
    /// The id of the link, in the statistics of one link.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, nullable = false)]
    url_id: Option<LinkId>,
    /// The owner, in the statistics of many links; null for all users.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Option<i64>>)]
    user_id: Option<Option<UserId>>,
    /// The beginning of the first counted hour.
    from: DateTime<Utc>,
    /// The end of the last counted hour.
    to: DateTime<Utc>,
    /// `hour`, `day` or `week`.
    interval: &'static str,
    /// The time zone.
    tz: String,
    /// The totals of the range.
    totals: Counts,
    /// The counts of each interval, oldest first, without gaps.
    series: Vec<LabeledBucket>,
    /// The most frequent values by dimension, most frequent first. They are counted by UTC day: all days that overlap with
    /// the range count.
    #[schema(value_type = BTreeMap<String, Vec<TopValue>>)]
    top: BTreeMap<&'static str, Vec<TopValue>>,
}

/// One interval of a series.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Bucket)]
pub(crate) struct LabeledBucket {
    /// The start of the interval.
    start: DateTime<Utc>,
    /// With `tz`: the date of the day or of the week's Monday in this time zone, or the local time of the hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    label: Option<String>,
    /// The numbers of clicks in the interval.
    #[serde(flatten)]
    counts: Counts,
}

/// A request for statistics of any subject.
pub(super) struct StatsRequest {
    /// Whether the parameter `tz` is given, so that intervals have local labels.
    has_labels: bool,
    format: Format,
    dimension: Option<Dimension>,
    query: StatsQuery,
}

impl StatsRequest {
    /// Reads the parameters. `subject` reads the others.
    pub(super) fn read(
        query: QueryFields,
        accepted: Accepted,
        subject: impl FnOnce(&mut Fields) -> Subject,
    ) -> Result<Self, ApiError> {
        let mut fields = query.fields;
        let format = accepted.read(&mut fields);
        let dimension = fields.optional("dimension", dimension);
        let interval = fields.optional("interval", interval).unwrap_or(Interval::Day);
        let zone = fields.optional("tz", zone);
        let has_labels = zone.is_some();
        let query = StatsQuery {
            subject: subject(&mut fields),
            from: fields.optional("from", range::end),
            to: fields.optional("to", range::end),
            interval,
            zone: zone.unwrap_or_default(),
            top: fields.optional("top", top).unwrap_or(DEFAULT_TOP),
            dimensions: dimension.map_or_else(|| Dimension::all().collect(), |one| vec![one]),
        };
        fields.finish()?;
        Ok(Self { has_labels, format, dimension, query })
    }

    /// The query that the parameters describe.
    pub(super) fn into_query(self) -> StatsQuery {
        self.query
    }

    /// The response. `what` is the name of the resource in the detail of a 404.
    async fn respond(
        self,
        state: &ApiState,
        caller: &Caller,
        what: &str,
    ) -> Result<HttpResponse, ApiError> {
        let counted = state.store.click_stats(&self.query, caller.visibility()).await?;
        let counted = counted.ok_or_else(|| ApiError::not_found(what))?;
        match self.format {
            Format::Json => Ok(HttpResponse::Ok().json(self.body(counted))),
            Format::Csv { bom } => self.csv(counted, bom).await,
        }
    }

    fn labeled(&self, bucket: Bucket) -> LabeledBucket {
        let Bucket { start, counts } = bucket;
        let label = self.has_labels.then(|| self.query.interval.label(&self.query.zone, start));
        LabeledBucket { start, label, counts }
    }

    fn body(self, stats: Stats) -> StatsBody {
        let Stats { from, to, totals, series, top } = stats;
        let series = series.into_iter().map(|bucket| self.labeled(bucket)).collect();
        let (url_id, user_id) = match self.query.subject {
            Subject::Link(id) => (Some(id), None),
            Subject::User(id) => (None, Some(Some(id))),
            Subject::Service => (None, Some(None)),
        };
        let interval = self.query.interval.name();
        let tz = self.query.zone.as_str().to_owned();
        StatsBody { url_id, user_id, from, to, interval, tz, totals, series, top }
    }

    async fn csv(self, stats: Stats, bom: bool) -> Result<HttpResponse, ApiError> {
        let list = self.dimension.map_or("stats", Dimension::name);
        let file = match self.query.subject {
            Subject::Link(id) => format!("url-{id}-{list}.csv"),
            Subject::User(id) => format!("user-{id}-{list}.csv"),
            Subject::Service => format!("{list}.csv"),
        };
        let csv = if self.dimension.is_some() {
            let values = stats.top.into_values().flatten();
            let rows = values.map(|v| [v.value.into(), v.clicks.into()]);
            csv::csv_of(["value", "clicks"], rows, bom).await
        } else if self.has_labels {
            let names =
                ["start", "clicks", "unique_visitors", "bots", "prefetches", "heads", "label"];
            let rows = stats.series.into_iter().map(|bucket| {
                let bucket = self.labeled(bucket);
                let [start, clicks, visitors, bots, prefetches, heads] = cells(&bucket);
                let label = bucket.label.map_or(Cell::Empty, Cell::from);
                [start, clicks, visitors, bots, prefetches, heads, label]
            });
            csv::csv_of(names, rows, bom).await
        } else {
            let names = ["start", "clicks", "unique_visitors", "bots", "prefetches", "heads"];
            let rows = stats.series.into_iter().map(|bucket| cells(&self.labeled(bucket)));
            csv::csv_of(names, rows, bom).await
        }?;
        Ok(csv::respond(HttpResponse::Ok(), &file, csv))
    }
}

fn cells(bucket: &LabeledBucket) -> [Cell<'static>; 6] {
    let LabeledBucket { start, counts, .. } = bucket;
    [
        start.to_rfc3339_opts(chrono::SecondsFormat::Secs, true).into(),
        counts.clicks.into(),
        counts.unique_visitors.into(),
        counts.bots.into(),
        counts.prefetches.into(),
        counts.heads.into(),
    ]
}

impl From<StatsError> for ApiError {
    fn from(error: StatsError) -> Self {
        match error {
            StatsError::Store(error) => error.into(),
            StatsError::Range(RangeError::Empty) => {
                Self::invalid("from", "invalid", "must be before `to`")
            }
            StatsError::Range(RangeError::TooManyBuckets) => {
                let rule = format!("must divide the range into at most {MAX_BUCKETS} intervals");
                Self::invalid("interval", "out_of_range", &rule)
            }
        }
    }
}

fn interval(value: serde_json::Value) -> Result<Interval, Violation> {
    Interval::parse(&string(value)?).map_err(Violation::invalid)
}

fn zone(value: serde_json::Value) -> Result<Zone, Violation> {
    Zone::parse(&string(value)?).map_err(Violation::invalid)
}

fn dimension(value: serde_json::Value) -> Result<Dimension, Violation> {
    Dimension::parse(&string(value)?).ok_or_else(|| {
        let names: Vec<_> = Dimension::all().map(Dimension::name).collect();
        Violation::invalid(format!("must be one of {}", names.join(", ")))
    })
}

fn top(value: serde_json::Value) -> Result<i64, Violation> {
    let rule = || format!("must be a whole number from 0 to {MAX_TOP}");
    match query_number(value)? {
        Some(number) if (0..=MAX_TOP).contains(&number) => Ok(number),
        Some(_) => Err(Violation::out_of_range(rule())),
        None => Err(Violation::invalid(rule())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn top_is_from_0_to_100() {
        for (text, wanted) in [("0", Some(0)), ("100", Some(100)), ("101", None), ("-1", None)] {
            assert_eq!(top(json!(text)).ok(), wanted, "{text}");
        }
        for bad in ["", "1.5", "+1", "01", "99999999999999999999"] {
            assert_eq!(top(json!(bad)).map_err(|bad| bad.code), Err("invalid"), "{bad}");
        }
    }

    #[test]
    fn documented_dimensions_equal_the_enum() {
        let names: Vec<_> = Dimension::all().map(Dimension::name).collect();
        let parameters = StatsParams::into_params(|| None);
        let parameter = parameters.iter().find(|parameter| parameter.name == "dimension").unwrap();
        let schema = serde_json::to_value(parameter).unwrap()["schema"]["pattern"].clone();
        assert_eq!(schema, format!("^({})$", names.join("|")));
    }
}
