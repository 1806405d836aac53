//! Messages that are to be delivered at a later time, which a header names.
//!
//! They are found when new messages are about to be handed out. One whose time has not come waits as a
//! message does that is delivered again: with a row, so that it holds up no floor, and so that the next owner
//! knows when it is due. The wall clock counts at that moment only, and the row from then on.

use std::time::SystemTime;

use tokio::time::Instant;

use crate::{
    broker::{log::messages::Messages, subscription::state::State},
    model::DeliverAt,
};

/// Has those of some new messages wait whose time has not come, the first `limit` of them; returns how many.
pub(super) fn delay(messages: &Messages, state: &mut State, limit: usize) -> usize {
    let mut clocks = None;
    let mut delayed = 0;
    for part in messages.parts() {
        let Some(headers) = &part.batch.headers else { continue };
        for index in part.indexes {
            let Some(at) = DeliverAt::of(&headers[index]) else { continue };
            let (now, wall) = *clocks.get_or_insert_with(|| (Instant::now(), SystemTime::now()));
            let Some(wait) = at.wait(wall) else { continue };
            if delayed == limit {
                return delayed;
            }
            // Of a publish from SQL, the time may be further ahead than it may be elsewhere.
            state.delay(part.batch.base.after(index), now + wait.min(DeliverAt::MAX_DELAY));
            delayed += 1;
        }
    }
    delayed
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, OnceLock},
        time::Duration,
    };

    use bytes::Bytes;

    use super::*;
    use crate::{
        broker::subscription::{
            deliveries::DeliveryId,
            exceptions::Exceptions,
            settled::Settled,
            unstored::{PartLimits, Row},
        },
        model::{Batch, DeliveryPolicy, Labels, Offset, OffsetRange, ProducerId, ProducerRun},
    };

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A batch at an offset, of messages with these headers.
    fn batch(base: i64, headers: Option<&[Option<&str>]>, count: usize) -> Arc<Batch> {
        let labels = |value: &Option<&str>| {
            let entry = value.map(|value| (DeliverAt::HEADER.to_owned(), value.to_owned()));
            Labels::stored(entry.into_iter().collect())
        };
        Arc::new(Batch {
            base: Offset(base),
            published_at: SystemTime::UNIX_EPOCH,
            payloads: vec![Bytes::new(); count],
            keys: None,
            headers: headers.map(|headers| headers.iter().map(labels).collect()),
            producers: vec![ProducerRun { producer: ProducerId::stored("p"), count }],
            encoded: OnceLock::new(),
        })
    }

    fn state() -> State {
        let settled = Settled::before(Offset(0));
        State::new(DeliveryPolicy::default(), settled, Exceptions::default(), DeliveryId(1))
    }

    /// Messages with and without the header, of which 1, 4, 6 and 7 lie in the future, if all are looked at.
    fn messages(range: OffsetRange) -> Messages {
        let at = |time: SystemTime| DeliverAt::new(time).header();
        let now = SystemTime::now();
        let (past, soon, far) = (at(now - HOUR), at(now + HOUR), "9999-12-31T00:00:00Z");
        let first = [None, Some(&*soon), Some(&*past)];
        let last = [Some(&*soon), Some("soon"), Some(far), Some(&*soon), None];
        let batches = vec![batch(0, Some(&first), 3), batch(3, None, 1), batch(4, Some(&last), 5)];
        Messages::measured(batches, range)
    }

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange { start: Offset(start), end: Offset(end) }
    }

    #[test]
    fn messages_whose_time_has_not_come_wait_and_the_others_stay_new() {
        let mut state = state();
        let began = Instant::now();
        assert_eq!(delay(&messages(range(0, 9)), &mut state, 100), 4);
        let mut new = Vec::new();
        while let Some(next) = state.next_new(Offset(9)) {
            new.extend(next.start.0..next.end.0);
            (next.start.0..next.end.0).for_each(|offset| state.leave_out(Offset(offset)));
        }
        assert_eq!(new, [0, 2, 3, 5, 8]);
        assert_eq!((state.floor(), state.exceptions()), (Offset(9), 4));
        let due = state.next_due().unwrap() - began;
        assert!(due > HOUR - Duration::from_secs(60) && due < HOUR + Duration::from_secs(60));
        let most = state.next_due_after(began + 2 * HOUR).unwrap() - began;
        assert!(most >= DeliverAt::MAX_DELAY && most < DeliverAt::MAX_DELAY + HOUR, "{most:?}");
        let rows = state.take_unstored().unwrap().cut(PartLimits::OF_A_WRITE).rows;
        assert!(rows.values().all(|row| matches!(row, Row::Retry { attempts: 0, .. })), "{rows:?}");
        let offsets: Vec<i64> = rows.keys().map(|offset| offset.0).collect();
        assert_eq!(offsets, [1, 4, 6, 7]);
    }

    #[test]
    fn only_messages_of_the_range_are_looked_at_and_no_more_than_there_is_room_for() {
        assert_eq!(delay(&messages(range(2, 6)), &mut state(), 100), 1);
        assert_eq!(delay(&messages(range(8, 9)), &mut state(), 100), 0);
        let mut state = state();
        assert_eq!(delay(&messages(range(0, 9)), &mut state, 2), 2);
        assert_eq!(state.unstored_rows(), 2);
    }
}
