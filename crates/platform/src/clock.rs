//! The wall clock, passed to code whose result depends on the time of day.
//!
//! Timeouts and durations do not use it: they are measured with [`std::time::Instant`].

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};

/// A source of wall-clock time.
#[derive(Debug, Clone, Copy, Default)]
pub enum Clock {
    /// The clock of the operating system.
    #[default]
    System,
    /// A clock that stands still, for tests.
    Fixed(DateTime<Utc>),
}

impl Clock {
    /// The current time.
    #[inline]
    pub fn now(self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now(),
            Self::Fixed(now) => now,
        }
    }

    /// Milliseconds since 1970; 0 for a time before that.
    #[inline]
    pub fn now_ms(self) -> u64 {
        match self {
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }
            Self::Fixed(now) => u64::try_from(now.timestamp_millis()).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_fixed_clock_stands_still_and_the_system_clock_does_not() {
        let clock = Clock::Fixed(DateTime::UNIX_EPOCH + Duration::from_millis(1_234));
        assert_eq!((clock.now_ms(), clock.now().timestamp_millis()), (1_234, 1_234));
        let began = Clock::System.now_ms();
        std::thread::sleep(Duration::from_millis(2));
        assert!(Clock::System.now_ms() > began);
    }
}
