//! Where a consumer starts, as the command line says it.

use std::{str::FromStr, time::SystemTime};

use crate::proto::{LogEdge, read_messages_request, register_consumer_request, seek_request};

/// `earliest`, `latest`, an offset, or `@` and a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum StartAt {
    Earliest,
    Latest,
    Offset(i64),
    Time(SystemTime),
}

impl FromStr for StartAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return parse_time(time).map(Self::Time).ok_or_else(|| {
                format!(
                    "{time:?} is no time: give RFC 3339 (@2026-11-24T10:00:00Z) or an age (@15m)"
                )
            });
        }
        match text.parse() {
            Ok(offset) if offset >= 0 => Ok(Self::Offset(offset)),
            _ => Err("give earliest, latest, an offset of 0 or more, or @TIME".to_owned()),
        }
    }
}

fn parse_time(text: &str) -> Option<SystemTime> {
    let age = || SystemTime::now().checked_sub(humantime::parse_duration(text).ok()?);
    humantime::parse_rfc3339_weak(text).ok().or_else(age)
}

/// Three requests name a place in the log, each by a oneof of its own.
macro_rules! into_place {
    ($($place:ty),*) => {$(
        impl From<StartAt> for $place {
            fn from(start: StartAt) -> Self {
                match start {
                    StartAt::Earliest => Self::Edge(LogEdge::Earliest.into()),
                    StartAt::Latest => Self::Edge(LogEdge::Latest.into()),
                    StartAt::Offset(offset) => Self::Offset(offset),
                    StartAt::Time(time) => Self::Time(time.into()),
                }
            }
        }
    )*};
}

into_place!(register_consumer_request::Start, seek_request::Target, read_messages_request::Start);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_start_is_an_edge_an_offset_or_a_time() {
        assert_eq!("earliest".parse(), Ok(StartAt::Earliest));
        assert_eq!("latest".parse(), Ok(StartAt::Latest));
        assert_eq!("42".parse(), Ok(StartAt::Offset(42)));
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_000_000);
        assert_eq!("@2025-11-24T16:00:00Z".parse(), Ok(StartAt::Time(noon)));
        assert!(matches!("@15m".parse(), Ok(StartAt::Time(_))));
        for bad in ["", "first", "-1", "1.5", "@", "@yesterday", "@2026-13-01T00:00:00Z"] {
            assert!(bad.parse::<StartAt>().is_err(), "{bad}");
        }
    }
}
