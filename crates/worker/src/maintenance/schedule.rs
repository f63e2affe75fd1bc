//! Determines when a task is due.

use std::time::Duration;

use linnet_platform::backoff::doubled;
use linnet_store::TaskRecord;

/// Wait after a first failure. It doubles with each further failure, up to the interval.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Time until a task with this interval is due; zero if it is due now. A task is due once `every` has passed since the start
/// of its last successful run, and the wait after a failure has ended.
pub(super) fn time_until_due(every: Duration, record: Option<&TaskRecord>) -> Duration {
    let Some(record) = record else { return Duration::ZERO };
    // Without an age, nothing remains to wait: the task has never run, or the clock was set back.
    let remaining = |wait: Duration, age: Option<Duration>| {
        age.map_or(Duration::ZERO, |age| wait.saturating_sub(age))
    };
    let after_success = remaining(every, record.since_success);
    let after_failure = match record.failures {
        0 => Duration::ZERO,
        failures => remaining(doubled(RETRY_AFTER, failures, every), record.since_attempt),
    };
    after_success.max(after_failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn record(since_success: Option<u64>, since_attempt: u64, failures: u32) -> TaskRecord {
        TaskRecord {
            task: "t".to_owned(),
            succeeded_at: None,
            since_success: since_success.map(seconds),
            since_attempt: Some(seconds(since_attempt)),
            failures,
        }
    }

    #[test]
    fn task_that_never_ran_is_due() {
        assert_eq!(time_until_due(HOUR, None), Duration::ZERO);
        assert_eq!(time_until_due(HOUR, Some(&record(None, 0, 0))), Duration::ZERO);
    }

    #[test]
    fn interval_counts_from_the_start_of_a_success() {
        assert_eq!(time_until_due(HOUR, Some(&record(Some(0), 0, 0))), HOUR);
        assert_eq!(time_until_due(HOUR, Some(&record(Some(3_599), 3_000, 0))), seconds(1));
        assert_eq!(time_until_due(HOUR, Some(&record(Some(3_600), 3_000, 0))), Duration::ZERO);
    }

    #[test]
    fn wait_after_failures_doubles_up_to_the_interval() {
        let after = |failures| time_until_due(HOUR, Some(&record(None, 0, failures)));
        assert_eq!([1, 2, 3, 4].map(after), [10, 20, 40, 80].map(seconds));
        assert_eq!([10, 40, u32::MAX].map(after), [HOUR; 3]);
        assert_eq!(time_until_due(HOUR, Some(&record(Some(9_000), 7, 1))), seconds(3));
        assert_eq!(time_until_due(HOUR, Some(&record(Some(9_000), 10, 1))), Duration::ZERO);
    }

    #[test]
    fn failure_of_a_run_by_hand_does_not_shorten_the_interval() {
        assert_eq!(time_until_due(HOUR, Some(&record(Some(600), 300, 1))), seconds(3_000));
    }

    #[test]
    fn clock_that_was_set_back_does_not_delay_a_task() {
        let mut ahead = record(None, 0, 3);
        ahead.since_attempt = None;
        assert_eq!(time_until_due(HOUR, Some(&ahead)), Duration::ZERO);
    }
}
