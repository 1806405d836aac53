//! When messages are to be delivered to workers: `--deliver-at` and `--delay`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use clap::Args;

use super::super::{failure::Failure, start};
use crate::proto::{DELIVER_AT_HEADER, MAX_DELIVERY_DELAY};

#[derive(Args, Debug)]
pub(in super::super) struct DelayArgs {
    /// Have workers of shared subscriptions get the messages at this time, in RFC 3339, up to 30 days
    /// ahead; at once if it has passed. Consumers ignore it.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    deliver_at: Option<SystemTime>,
    /// Have workers of shared subscriptions get each message so long after its line was read, up to 30 days.
    /// With --json, a line's own header trunkline-deliver-at takes precedence.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "deliver_at")]
    delay: Option<Duration>,
}

impl DelayArgs {
    /// Adds the header for the time that all messages share, if they do.
    pub(super) fn add_to(&self, headers: &mut BTreeMap<String, String>) -> Result<(), Failure> {
        let given_twice = headers.contains_key(DELIVER_AT_HEADER) && self.deliver_at.is_some();
        headers.extend(self.deliver_at.map(header));
        match given_twice {
            true => Err(Failure::usage(format!("--deliver-at is the header {DELIVER_AT_HEADER}"))),
            false => Ok(()),
        }
    }

    /// The delay of each message, if it has one of its own.
    pub(super) fn delay(&self) -> Result<Option<Duration>, Failure> {
        match self.delay {
            Some(delay) if delay > MAX_DELIVERY_DELAY => {
                Err(Failure::usage("--delay must be 30 days at the most"))
            }
            delay => Ok(delay),
        }
    }
}

/// The header for a time. It is rounded up to a millisecond, so that no message is early.
pub(super) fn header(time: SystemTime) -> (String, String) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let finer = since.subsec_nanos() % 1_000_000;
    let rest = if finer == 0 { 0 } else { 1_000_000 - finer };
    let time = SystemTime::UNIX_EPOCH + since + Duration::from_nanos(rest.into());
    (DELIVER_AT_HEADER.to_owned(), humantime::format_rfc3339_millis(time).to_string())
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    let time = start::parse_rfc3339(text)
        .ok_or_else(|| "give RFC 3339, such as 2026-12-24T18:00:00Z".to_owned())?;
    match time.duration_since(SystemTime::now()) {
        Ok(wait) if wait > MAX_DELIVERY_DELAY => Err("is more than 30 days ahead".to_owned()),
        _ => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_and_at_most_30_days_ahead() {
        let header = |text| parse_time(text).map(|time| header(time).1);
        let past = "2025-11-24T18:00:00.0001+02:00";
        assert_eq!(header(past), Ok("2025-11-24T16:00:00.001Z".to_owned()));
        assert_eq!(header("1960-01-01T00:00:00Z"), Ok("1970-01-01T00:00:00.000Z".to_owned()));
        assert_eq!(header("9999-12-31T00:00:00Z").unwrap_err(), "is more than 30 days ahead");
        assert!(header("1h").unwrap_err().contains("RFC 3339"));
    }
}
