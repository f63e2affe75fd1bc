//! What is due.

use std::time::Duration;

use linnet_store::TaskRecord;

/// The time after a first failure; it doubles with each further one.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Time from a failure to the next attempt: [`RETRY_AFTER`], doubled with each failure, `longest` at
/// most.
pub(super) fn back_off(failures: u32, longest: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    RETRY_AFTER.saturating_mul(1 << doublings).min(longest)
}

/// Time until a task is due that runs every `every`; zero if it is. Not before `every` has passed since
/// the last run that succeeded began, nor before the time after a failure.
pub(super) fn wait(every: Duration, record: Option<&TaskRecord>) -> Duration {
    let Some(record) = record else { return Duration::ZERO };
    // An age that is not known has passed: the task never ran, or the clock was turned back.
    let left = |of: Duration, age: Option<Duration>| {
        age.map_or(Duration::ZERO, |age| of.saturating_sub(age))
    };
    let after_success = left(every, record.since_success);
    let after_failure = match record.failures {
        0 => Duration::ZERO,
        failures => left(back_off(failures, every), record.since_attempt),
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
    fn a_task_that_never_ran_is_due() {
        assert_eq!(wait(HOUR, None), Duration::ZERO);
        assert_eq!(wait(HOUR, Some(&record(None, 0, 0))), Duration::ZERO);
    }

    #[test]
    fn a_success_counts_from_its_beginning() {
        assert_eq!(wait(HOUR, Some(&record(Some(0), 0, 0))), HOUR);
        assert_eq!(wait(HOUR, Some(&record(Some(3_599), 3_000, 0))), seconds(1));
        assert_eq!(wait(HOUR, Some(&record(Some(3_600), 3_000, 0))), Duration::ZERO);
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_the_interval() {
        let after = |failures| wait(HOUR, Some(&record(None, 0, failures)));
        assert_eq!([1, 2, 3, 4].map(after), [10, 20, 40, 80].map(seconds));
        assert_eq!([10, 40, u32::MAX].map(after), [HOUR; 3]);
        assert_eq!(wait(HOUR, Some(&record(Some(9_000), 7, 1))), seconds(3));
        assert_eq!(wait(HOUR, Some(&record(Some(9_000), 10, 1))), Duration::ZERO);
    }

    #[test]
    fn a_failure_on_demand_brings_nothing_forward() {
        assert_eq!(wait(HOUR, Some(&record(Some(600), 300, 1))), seconds(3_000));
    }

    #[test]
    fn a_clock_that_was_turned_back_does_not_put_a_task_off() {
        let mut ahead = record(None, 0, 3);
        ahead.since_attempt = None;
        assert_eq!(wait(HOUR, Some(&ahead)), Duration::ZERO);
    }
}
