//! Statistics of clicks. [`url`] has those of one link, [`all`] those of a user or of everything;
//! here is what both take and how both answer.

pub(in crate::http) mod all;
mod range;
pub(in crate::http) mod url;

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use linnet_protocol::problem::Problem;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use linnet_domain::{
    Bucket, Counts, DEFAULT_TOP, Dimension, Interval, LinkId, MAX_BUCKETS, MAX_TOP, Stats,
    StatsQuery, Subject, TopValue, UserId, ZoneName,
};
use linnet_store::StatsError;

use super::{
    super::{
        csv::{self, Cell},
        error::{ApiError, field_error},
    },
    ApiState, Caller,
    fields::{Bad, Fields, QueryFields, invalid, string},
    format::{Accepted, Format},
};

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.configure(url::routes).configure(all::routes);
}

/// The parameters of statistics, documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the input; `Question` reads it")]
pub(crate) struct StatsParams {
    /// The beginning: an RFC 3339 time, or a day of `tz` such as 2026-11-21. Default: 48 hours, 30
    /// days or 26 weeks before the end, by `interval`.
    #[param(format = "stats-from")]
    from: Option<String>,
    /// The end, exclusive. Default: now.
    #[param(format = "stats-to")]
    to: Option<String>,
    /// `hour`, `day` (default) or `week`; at most 2,000 of them.
    #[param(pattern = "^(hour|day|week)$")]
    interval: Option<String>,
    /// An IANA time zone; default UTC.
    #[param(format = "time-zone")]
    tz: Option<String>,
    /// Values of each list; default 10.
    #[param(minimum = 0, maximum = 100)]
    top: Option<i64>,
    /// Only this list of `top`; in CSV, this list instead of the series.
    #[param(
        pattern = "^(browser|os|device|country|language|referrer|utm_source|utm_medium|utm_campaign)$"
    )]
    dimension: Option<String>,
}

/// Clicks of a link, of a user's links, or of everything.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stats)]
pub(crate) struct StatsBody {
    /// The link, in the statistics of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, nullable = false)]
    url_id: Option<LinkId>,
    /// Whose links, in the statistics of many; null for everybody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Option<i64>>)]
    user_id: Option<Option<UserId>>,
    /// The beginning of the first hour that is counted.
    from: DateTime<Utc>,
    /// The end of the last hour that is counted.
    to: DateTime<Utc>,
    /// `hour`, `day` or `week`.
    interval: &'static str,
    /// The time zone.
    tz: String,
    /// Everything in the range.
    totals: Counts,
    /// The same by interval, oldest first, without gaps.
    series: Vec<Bucket>,
    /// The most frequent values by dimension, most frequent first. They are kept by UTC day: those
    /// of all days that the range touches are counted.
    #[schema(value_type = BTreeMap<String, Vec<TopValue>>)]
    top: BTreeMap<&'static str, Vec<TopValue>>,
}

/// What is asked, whomever it is about.
struct Question {
    format: Format,
    dimension: Option<Dimension>,
    query: StatsQuery,
}

impl Question {
    /// Reads the parameters, and lets `subject` read the rest.
    fn read(
        query: QueryFields,
        accepted: Accepted,
        subject: impl FnOnce(&mut Fields) -> Subject,
    ) -> Result<Self, ApiError> {
        let mut fields = query.fields;
        let format = accepted.read(&mut fields);
        let dimension = fields.optional("dimension", dimension);
        let interval = fields.optional("interval", interval).unwrap_or(Interval::Day);
        let query = StatsQuery {
            subject: subject(&mut fields),
            from: fields.optional("from", range::end),
            to: fields.optional("to", range::end),
            interval,
            zone: fields.optional("tz", zone).unwrap_or_default(),
            top: fields.optional("top", top).unwrap_or(DEFAULT_TOP),
            dimensions: dimension.map_or_else(|| Dimension::all().collect(), |one| vec![one]),
        };
        fields.finish()?;
        Ok(Self { format, dimension, query })
    }

    /// Answers it; `what` is what is not there when the caller may not see it.
    async fn answer(
        self,
        state: &ApiState,
        caller: &Caller,
        what: &str,
    ) -> Result<HttpResponse, ApiError> {
        let counted = state.store.click_stats(&self.query, caller.visibility()).await?;
        let counted = counted.ok_or_else(|| ApiError::not_found(what))?;
        match self.format {
            Format::Json => Ok(HttpResponse::Ok().json(self.body(counted))),
            Format::Csv => self.csv(counted).await,
        }
    }

    fn body(self, stats: Stats) -> StatsBody {
        let Stats { from, to, totals, series, top } = stats;
        let (url_id, user_id) = match self.query.subject {
            Subject::Link(id) => (Some(id), None),
            Subject::User(id) => (None, Some(Some(id))),
            Subject::Service => (None, Some(None)),
        };
        let interval = self.query.interval.name();
        let tz = self.query.zone.as_str().to_owned();
        StatsBody { url_id, user_id, from, to, interval, tz, totals, series, top }
    }

    async fn csv(self, stats: Stats) -> Result<HttpResponse, ApiError> {
        let list = self.dimension.map_or("stats", Dimension::name);
        let file = match self.query.subject {
            Subject::Link(id) => format!("url-{id}-{list}.csv"),
            Subject::User(id) => format!("user-{id}-{list}.csv"),
            Subject::Service => format!("{list}.csv"),
        };
        let csv = if self.dimension.is_some() {
            let values = stats.top.into_values().flatten();
            csv::csv_of(["value", "clicks"], values.map(|v| [v.value.into(), v.clicks.into()]))
                .await
        } else {
            let names = ["start", "clicks", "unique_visitors", "bots", "prefetches", "heads"];
            csv::csv_of(names, stats.series.into_iter().map(cells)).await
        }?;
        Ok(csv::respond(HttpResponse::Ok(), &file, csv))
    }
}

fn cells(bucket: Bucket) -> [Cell<'static>; 6] {
    let Bucket { start, counts } = bucket;
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
        let (field, code, message) = match error {
            StatsError::Store(error) => return error.into(),
            StatsError::UnknownZone => ("tz", "invalid", ZoneName::UNKNOWN.to_owned()),
            StatsError::EmptyRange => ("from", "invalid", "must be before `to`".to_owned()),
            StatsError::TooManyBuckets => {
                ("interval", "out_of_range", format!("gives more than {MAX_BUCKETS} of them"))
            }
        };
        Self(Problem::invalid(vec![field_error(field, code, &message)]))
    }
}

fn interval(value: serde_json::Value) -> Result<Interval, Bad> {
    Interval::parse(&string(value)?).map_err(invalid)
}

fn zone(value: serde_json::Value) -> Result<ZoneName, Bad> {
    ZoneName::parse(&string(value)?).map_err(invalid)
}

fn dimension(value: serde_json::Value) -> Result<Dimension, Bad> {
    Dimension::parse(&string(value)?).ok_or_else(|| {
        let names: Vec<_> = Dimension::all().map(Dimension::name).collect();
        invalid(format!("must be one of {}", names.join(", ")))
    })
}

fn top(value: serde_json::Value) -> Result<i64, Bad> {
    let text = string(value)?;
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    match number {
        Some(number) if (0..=MAX_TOP).contains(&number) => Ok(number),
        Some(_) => Err(("out_of_range", format!("must be between 0 and {MAX_TOP}"))),
        None => Err(("invalid", "must be an integer".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_have_0_to_100_values() {
        for (text, wanted) in [("0", Some(0)), ("100", Some(100)), ("101", None), ("-1", None)] {
            assert_eq!(top(json!(text)).ok(), wanted, "{text}");
        }
        for bad in ["", "1.5", "+1", "01", "99999999999999999999"] {
            assert_eq!(top(json!(bad)).map_err(|bad| bad.0), Err("invalid"), "{bad}");
        }
    }

    #[test]
    fn the_documented_dimensions_are_those_that_there_are() {
        let names: Vec<_> = Dimension::all().map(Dimension::name).collect();
        let parameters = StatsParams::into_params(|| None);
        let parameter = parameters.iter().find(|parameter| parameter.name == "dimension").unwrap();
        let schema = serde_json::to_value(parameter).unwrap()["schema"]["pattern"].clone();
        assert_eq!(schema, format!("^({})$", names.join("|")));
    }
}
