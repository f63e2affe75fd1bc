//! The log line of a finished request, the same for every listener.

use std::time::Duration;

use tracing::Level;

/// The target of the line, which log filters name.
pub(super) const TARGET: &str = "linnet_telemetry::request";

/// The fields of the line.
#[derive(Debug)]
pub struct RequestLine<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// The trace's id; empty without one.
    pub trace_id: &'a str,
    /// The method.
    pub method: &'a str,
    /// The matched pattern, never the path, because clients choose paths.
    pub route: &'a str,
    /// The status of the response; 499 if the client left before its end.
    pub status: u16,
    /// Time from the request's head to the end of the response.
    pub duration: Duration,
    /// Number and total time of the database queries; `None` if they are not counted.
    pub queries: Option<(u32, Duration)>,
    /// Why the response failed after its head.
    pub failure: Option<&'a str>,
}

impl RequestLine<'_> {
    /// Logs the line, as an error if the status is 500 or higher or the response failed.
    pub fn log(&self) {
        let Self { request_id, trace_id, method, route, status, failure, .. } = *self;
        let duration_ms = milliseconds(self.duration);
        let queries = self.queries.map(|(count, _)| count);
        let query_ms = self.queries.map(|(_, time)| milliseconds(time));
        // A macro, because the level of an event is constant.
        macro_rules! log_at {
            ($level:expr) => {
                tracing::event!(
                    target: TARGET,
                    $level,
                    request_id,
                    trace_id,
                    method,
                    route,
                    status,
                    duration_ms,
                    db.queries = queries,
                    db.time_ms = query_ms,
                    error = failure,
                    "request"
                )
            };
        }
        if status >= 500 || failure.is_some() {
            log_at!(Level::ERROR);
        } else {
            log_at!(Level::INFO);
        }
    }
}

/// Rounded to a microsecond, which keeps log lines short.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::capture_logs;

    #[test]
    fn absent_fields_are_not_in_the_line() {
        let logs = capture_logs();
        let line = RequestLine {
            request_id: "abcdefgh",
            trace_id: "",
            method: "GET",
            route: "/{code}",
            status: 302,
            duration: Duration::from_nanos(1_234_567),
            queries: None,
            failure: None,
        };
        line.log();
        RequestLine { status: 503, queries: Some((2, Duration::ZERO)), ..line }.log();
        let lines = logs.lines();
        assert_eq!((&lines[0]["level"], &lines[0]["duration_ms"]), (&"INFO".into(), &1.235.into()));
        assert!(lines[0].get("db.queries").is_none() && lines[0].get("error").is_none());
        assert_eq!((&lines[1]["level"], &lines[1]["db.queries"]), (&"ERROR".into(), &2.into()));
    }
}
