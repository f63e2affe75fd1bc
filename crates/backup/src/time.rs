//! Times in seconds after the epoch, and the target time of a restore.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};

use crate::BackupError;

/// Seconds after the epoch.
pub(crate) type Seconds = i64;

/// The time now.
pub(crate) fn now() -> Seconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A time for people: `2026-11-27T12:00:00Z`.
pub(crate) fn readable(time: Seconds) -> String {
    DateTime::<Utc>::from_timestamp(time, 0)
        .map_or_else(|| "-".to_owned(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// Reads a target time. The offset is required, so that no server's time zone changes its meaning.
pub(crate) fn parse(text: &str) -> Result<DateTime<Utc>, BackupError> {
    DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc)).map_err(|_| {
        BackupError::Usage(format!(
            "--to must be a time with an offset, such as 2026-11-27T12:00:00Z, not `{text}`"
        ))
    })
}

/// A pseudo-random share from 0 to 1, for jitter.
#[expect(clippy::cast_precision_loss, reason = "jitter needs no precision")]
pub(crate) fn random_share() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_time_needs_an_offset() {
        assert!(parse("2026-11-27T12:00:00").is_err());
        assert!(parse("yesterday").is_err());
        assert_eq!(
            parse("2026-11-27T13:00:00+01:00").unwrap(),
            parse("2026-11-27T12:00:00Z").unwrap()
        );
    }

    #[test]
    fn readable_time_is_utc() {
        assert_eq!(readable(1_795_780_800), "2026-11-27T12:00:00Z");
    }

    #[test]
    fn random_share_is_below_one() {
        for _ in 0..100 {
            let share = random_share();
            assert!((0.0..1.0).contains(&share));
        }
    }
}
