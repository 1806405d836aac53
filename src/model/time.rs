//! Times that clients give, to be compared with the times of messages.

use std::time::{Duration, SystemTime};

use super::invalid::InvalidValue;

const YEAR_1: i64 = -62_135_596_800;
const YEAR_10000: i64 = 253_402_300_800;
const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// Splits a log into messages stored before this time, and messages stored at or after it.
///
/// Message times are whole microseconds, as PostgreSQL keeps them. A bound between two microseconds
/// has the same effect as the later one, so it is rounded up. Rounded down, it would let in a message
/// from before the given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeBound(SystemTime);

impl TimeBound {
    /// The bound at this many seconds since 1970 and nanoseconds after them, within the years 1 to
    /// 9999, which protobuf and PostgreSQL both support.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] says which range it is not in.
    pub fn parse(seconds: i64, nanos: i32) -> Result<Self, InvalidValue> {
        if !(YEAR_1..YEAR_10000).contains(&seconds) {
            return Err(InvalidValue::new("is not within the years 1 to 9999"));
        }
        let Some(nanos) = u32::try_from(nanos).ok().filter(|_| nanos < NANOS_PER_SECOND) else {
            let problem = format!("has {nanos} nanos, which must be 0 to 999,999,999");
            return Err(InvalidValue::new(problem));
        };
        let second = Duration::from_secs(seconds.unsigned_abs());
        let second = match seconds {
            0.. => SystemTime::UNIX_EPOCH.checked_add(second),
            _ => SystemTime::UNIX_EPOCH.checked_sub(second),
        };
        // The last nanosecond of the year 9999 becomes the first microsecond of the next year.
        let micros = Duration::from_micros(nanos.div_ceil(1_000).into());
        let bound = second.and_then(|second| second.checked_add(micros));
        let unsupported = || InvalidValue::new("is a time that this machine does not support");
        bound.map(Self).ok_or_else(unsupported)
    }

    /// The bound, in whole microseconds.
    pub fn time(self) -> SystemTime {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bound in microseconds since 1970.
    fn micros(seconds: i64, nanos: i32) -> i64 {
        let time = TimeBound::parse(seconds, nanos).unwrap().time();
        let micros = |duration: Duration| {
            assert_eq!(duration.subsec_nanos() % 1_000, 0, "{seconds} s {nanos} ns");
            i64::try_from(duration.as_micros()).unwrap()
        };
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => micros(since),
            Err(before) => -micros(before.duration()),
        }
    }

    #[test]
    fn a_bound_between_two_microseconds_is_the_later_one() {
        assert_eq!(micros(0, 0), 0);
        assert_eq!(micros(0, 1), 1);
        assert_eq!(micros(0, 999), 1);
        assert_eq!(micros(0, 1_000), 1);
        assert_eq!(micros(0, 1_001), 2);
        assert_eq!(micros(1_764_000_000, 123_456_000), 1_764_000_000_123_456);
        assert_eq!(micros(1_764_000_000, 123_456_001), 1_764_000_000_123_457);
        assert_eq!(micros(7, 999_999_999), 8_000_000);
    }

    #[test]
    fn bounds_before_1970_are_rounded_towards_later_times_too() {
        // Nanos count forward from the second, also before 1970.
        assert_eq!(micros(-1, 0), -1_000_000);
        assert_eq!(micros(-1, 1), -999_999);
        assert_eq!(micros(-1, 999_999_000), -1);
        assert_eq!(micros(-1, 999_999_001), 0);
        assert_eq!(micros(-86_400, 500), -86_399_999_999);
    }

    #[test]
    fn bounds_lie_in_the_years_1_to_9999() {
        assert_eq!(micros(YEAR_1, 0), YEAR_1 * 1_000_000);
        assert_eq!(micros(YEAR_1, 1), YEAR_1 * 1_000_000 + 1);
        assert_eq!(micros(YEAR_10000 - 1, 999_999_999), YEAR_10000 * 1_000_000);
        for (seconds, nanos, problem) in [
            (YEAR_1 - 1, 999_999_999, "years 1 to 9999"),
            (YEAR_10000, 0, "years 1 to 9999"),
            (i64::MAX, 0, "years 1 to 9999"),
            (i64::MIN, 0, "years 1 to 9999"),
            (0, -1, "-1 nanos"),
            (0, 1_000_000_000, "1000000000 nanos"),
            (0, i32::MIN, "nanos"),
        ] {
            let invalid = TimeBound::parse(seconds, nanos).unwrap_err();
            assert!(invalid.problem.contains(problem), "{seconds} {nanos}: {invalid:?}");
        }
    }
}
