//! When a message is to be delivered: a field of a publish request, which becomes a header.

use std::{collections::BTreeMap, time::SystemTime};

use prost_types::Timestamp;

use crate::{
    model::{DeliverAt, InvalidInput, TimeBound},
    proto::DELIVER_AT_HEADER,
};

const FIELD: &str = "deliver_at";

/// Adds the header for a message's field, or checks the header that the message has itself.
pub(super) fn add_to(
    headers: &mut BTreeMap<String, String>,
    field: Option<Timestamp>,
    now: impl FnOnce() -> SystemTime,
) -> Result<(), InvalidInput> {
    let given = headers.get(DELIVER_AT_HEADER);
    match (field, given) {
        (None, None) => Ok(()),
        (None, Some(text)) => {
            let time = DeliverAt::parse(text).filter(|time| !time.is_too_far(now()));
            time.map(|_| ()).ok_or_else(|| {
                let problem = "must be a time in RFC 3339, at most 30 days ahead";
                refusal(&format!("headers.{DELIVER_AT_HEADER}"), problem)
            })
        }
        (Some(Timestamp { seconds, nanos }), None) => {
            let time = TimeBound::parse(seconds, nanos).ok();
            let time = time.map(|bound| DeliverAt::new(bound.time()));
            let time = time.filter(|time| !time.is_too_far(now()));
            let time =
                time.ok_or_else(|| refusal(FIELD, "must be a valid time, at most 30 days ahead"))?;
            headers.insert(DELIVER_AT_HEADER.to_owned(), time.header());
            Ok(())
        }
        (Some(_), Some(_)) => {
            let problem = format!("is given beside the header {DELIVER_AT_HEADER}");
            Err(InvalidInput::new(FIELD, problem))
        }
    }
}

fn refusal(field: &str, problem: &str) -> InvalidInput {
    let limit = Some(DeliverAt::MAX_DELAY.as_secs());
    InvalidInput { field: field.to_owned(), problem: problem.to_owned(), limit }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: i64 = 1_764_000_000;
    const DAYS: i64 = 30 * 24 * 3_600;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW as u64)
    }

    fn field(seconds: i64, nanos: i32) -> Result<String, InvalidInput> {
        let mut headers = BTreeMap::new();
        add_to(&mut headers, Some(Timestamp { seconds, nanos }), now)?;
        Ok(headers.remove(DELIVER_AT_HEADER).unwrap())
    }

    fn header(text: &str) -> Result<(), InvalidInput> {
        let mut headers = [(DELIVER_AT_HEADER.to_owned(), text.to_owned())].into();
        add_to(&mut headers, None, now)?;
        assert_eq!(headers[DELIVER_AT_HEADER], text);
        Ok(())
    }

    #[test]
    fn the_library_and_the_broker_mean_the_same_header() {
        assert_eq!(DELIVER_AT_HEADER, DeliverAt::HEADER);
    }

    #[test]
    fn a_field_becomes_a_header() {
        assert_eq!(field(NOW + 60, 1_000_000), Ok("2025-11-24T16:01:00.001Z".to_owned()));
        assert_eq!(field(NOW, 1), Ok("2025-11-24T16:00:00.001Z".to_owned()));
        assert_eq!(field(-62_135_596_800, 0), Ok("1970-01-01T00:00:00.000Z".to_owned()));
        assert!(field(NOW + DAYS, 0).is_ok());
        for (seconds, nanos) in
            [(NOW + DAYS, 1), (NOW, -1), (NOW, 1_000_000_000), (i64::MAX, 0), (i64::MIN, 0)]
        {
            let refused = field(seconds, nanos).unwrap_err();
            assert_eq!((refused.field.as_str(), refused.limit), ("deliver_at", Some(2_592_000)));
        }
    }

    #[test]
    fn a_header_that_a_message_has_itself_stays_as_it_is() {
        for good in ["2025-11-24T17:00:00+01:00", "2025-12-24T16:00:00Z", "1969-12-31T00:00:00Z"] {
            assert_eq!(header(good), Ok(()), "{good}");
        }
        for bad in ["", "5m", "2025-12-24T16:00:00.001Z", "9999-12-31T00:00:00Z"] {
            let refused = header(bad).unwrap_err();
            assert_eq!(refused.field, "headers.trunkline-deliver-at", "{bad}");
            assert_eq!(refused.limit, Some(2_592_000));
        }
    }

    #[test]
    fn a_message_without_either_needs_no_clock_and_one_with_both_is_refused() {
        let mut headers = BTreeMap::new();
        assert_eq!(add_to(&mut headers, None, || panic!("nobody asked for the time")), Ok(()));
        assert!(headers.is_empty());
        headers.insert(DELIVER_AT_HEADER.to_owned(), "2025-11-24T16:00:00Z".to_owned());
        let both = add_to(&mut headers, Some(Timestamp { seconds: NOW, nanos: 0 }), now);
        assert_eq!(both.unwrap_err().field, "deliver_at");
    }
}
