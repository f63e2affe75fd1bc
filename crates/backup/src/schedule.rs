//! When the next job is due, as a pure function of what was done and the time.
//!
//! Scheduled jobs begin within one hour of the night, at a random minute, so that many installations with one provider
//! do not begin together. A machine that was off in that hour does not wait for the next night: a job that is a quarter
//! of its interval late begins at once.

use std::time::Duration;

use crate::time::Seconds;

/// Work that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    FullBackup,
    DifferentialBackup,
    RestoreTest,
}

impl Job {
    /// The label `kind` of metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FullBackup => "full",
            Self::DifferentialBackup => "differential",
            Self::RestoreTest => "restore_test",
        }
    }
}

/// The last times at which each kind of work succeeded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct History {
    pub(crate) full: Option<Seconds>,
    /// A backup of any kind.
    pub(crate) any: Option<Seconds>,
    pub(crate) restore_test: Option<Seconds>,
}

/// How often, and at which time of the day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) full: Duration,
    pub(crate) differential: Duration,
    pub(crate) restore_test: Duration,
    /// Hour of the day, UTC.
    pub(crate) hour: u32,
    /// Second within that hour, chosen when the process starts.
    pub(crate) offset_s: u32,
}

const DAY_S: i64 = 86_400;
/// A job may begin this much earlier than its interval after the last one, so that jobs stay at their time of the day.
const EARLY: f64 = 0.9;
const LATE: f64 = 1.25;

impl Schedule {
    /// The jobs that are due, the most important first. Without a full backup there is nothing to restore.
    pub(crate) fn due(&self, now: Seconds, history: &History) -> Vec<Job> {
        if history.full.is_none() {
            return vec![Job::FullBackup];
        }
        // The first test follows the first backup.
        let is_test_due = history.restore_test.is_none()
            || self.is_due(now, history.restore_test, self.restore_test);
        [
            (Job::FullBackup, self.is_due(now, history.full, self.full)),
            (Job::DifferentialBackup, self.is_due(now, history.any, self.differential)),
            (Job::RestoreTest, is_test_due),
        ]
        .into_iter()
        .filter_map(|(job, is_due)| is_due.then_some(job))
        .collect()
    }

    fn is_due(&self, now: Seconds, last: Option<Seconds>, interval: Duration) -> bool {
        let Some(last) = last else { return true };
        let age = Duration::from_secs(u64::try_from(now - last).unwrap_or_default());
        // Intervals below a day have no time of the day.
        if interval < Duration::from_secs(DAY_S.unsigned_abs()) {
            return age >= interval;
        }
        let start = i64::from(self.hour) * 3_600 + i64::from(self.offset_s);
        let is_in_window = (now.rem_euclid(DAY_S) - start).rem_euclid(DAY_S) < 3_600;
        age >= interval.mul_f64(LATE) || (is_in_window && age >= interval.mul_f64(EARLY))
    }
}

/// Time until a failed job is repeated: 5 min, doubled with each failure up to 1 h, ± 20 %.
pub(crate) fn retry_after(failures: u32, share: f64) -> Duration {
    let base = Duration::from_mins(5).saturating_mul(1 << failures.saturating_sub(1).min(8));
    base.min(Duration::from_hours(1)).mul_f64(0.8 + 0.4 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;
    /// Midnight.
    const DAY: i64 = 20_000 * DAY_S;

    fn schedule() -> Schedule {
        Schedule {
            full: Duration::from_hours(168),
            differential: Duration::from_hours(24),
            restore_test: Duration::from_hours(168),
            hour: 3,
            offset_s: 600,
        }
    }

    /// The job that begins.
    fn first(schedule: &Schedule, now: Seconds, history: &History) -> Option<Job> {
        schedule.due(now, history).first().copied()
    }

    fn history(full: i64, any: i64, test: i64) -> History {
        History { full: Some(full), any: Some(any), restore_test: Some(test) }
    }

    #[test]
    fn first_backup_and_first_test_do_not_wait_for_the_night() {
        assert_eq!(first(&schedule(), DAY, &History::default()), Some(Job::FullBackup));
        let once = History { full: Some(DAY), any: Some(DAY), restore_test: None };
        assert_eq!(first(&schedule(), DAY + 60, &once), Some(Job::RestoreTest));
    }

    #[test]
    fn daily_backup_begins_in_its_hour() {
        let last = history(DAY - DAY_S, DAY - 20 * HOUR, DAY - DAY_S);
        assert_eq!(first(&schedule(), DAY + 3 * HOUR + 599, &last), None, "before its minute");
        assert_eq!(first(&schedule(), DAY + 3 * HOUR + 600, &last), Some(Job::DifferentialBackup));
        assert_eq!(first(&schedule(), DAY + 4 * HOUR + 601, &last), None, "the hour is over");
    }

    #[test]
    fn late_backup_begins_at_once() {
        let last = history(DAY - DAY_S, DAY - 17 * HOUR, DAY - DAY_S);
        assert_eq!(first(&schedule(), DAY + 12 * HOUR, &last), None);
        assert_eq!(first(&schedule(), DAY + 13 * HOUR, &last), Some(Job::DifferentialBackup));
    }

    #[test]
    fn weekly_full_backup_replaces_the_daily_one_and_precedes_the_test() {
        let at = DAY + 3 * HOUR + 900;
        let last = history(at - 7 * DAY_S, at - DAY_S, at - 7 * DAY_S);
        assert_eq!(first(&schedule(), at, &last), Some(Job::FullBackup));
        assert_eq!(
            first(&schedule(), at, &history(at, at, at - 7 * DAY_S)),
            Some(Job::RestoreTest)
        );
        assert_eq!(first(&schedule(), at, &history(at, at, at)), None);
    }

    #[test]
    fn backup_of_this_hour_is_not_repeated() {
        let at = DAY + 3 * HOUR + 900;
        assert_eq!(first(&schedule(), at + 1_200, &history(at, at, at)), None);
    }

    #[test]
    fn hour_before_midnight_reaches_into_the_next_day() {
        let late = Schedule { hour: 23, offset_s: 3_000, ..schedule() };
        let last = history(DAY - DAY_S, DAY - 24 * HOUR, DAY - DAY_S);
        assert_eq!(first(&late, DAY + 10 * 60, &last), Some(Job::DifferentialBackup));
    }

    #[test]
    fn short_intervals_ignore_the_hour() {
        let short = Schedule { differential: Duration::from_mins(1), ..schedule() };
        assert_eq!(first(&short, DAY + 59, &history(DAY, DAY, DAY)), None);
        assert_eq!(first(&short, DAY + 60, &history(DAY, DAY, DAY)), Some(Job::DifferentialBackup));
    }

    #[test]
    fn retries_back_off_with_jitter() {
        assert_eq!(retry_after(1, 0.5), Duration::from_mins(5));
        assert_eq!(retry_after(1, 0.0), Duration::from_mins(4));
        assert_eq!(retry_after(3, 0.5), Duration::from_mins(20));
        assert_eq!(retry_after(30, 0.5), Duration::from_hours(1));
    }
}
