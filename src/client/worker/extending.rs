//! Extends the deadlines of messages before they pass: of those that are in work, and of those whose verdicts
//! are not sent yet.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use prost::Message as _;
use tokio::time::Instant;

use super::settling::{MAX_REQUEST_BYTES, settlement};
use crate::proto::{DeliveryPolicy, Extend, Settlement, settlement::Verdict as ProtoVerdict};

/// How long a worker has for a message, if the broker does not say so.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// The messages of a stream that are in work, and when their deadlines are extended: after half of the
/// time, so that a request may take the other half.
#[derive(Debug)]
pub(super) struct Extending {
    ack_deadline: Duration,
    /// The offsets of each delivery.
    in_work: BTreeMap<i64, BTreeSet<i64>>,
    /// When to extend each delivery, in order, as each waits for the same time. A delivery that is over
    /// stays until then.
    schedule: VecDeque<(Instant, i64)>,
}

impl Default for Extending {
    fn default() -> Self {
        let (in_work, schedule) = (BTreeMap::new(), VecDeque::new());
        Self { ack_deadline: DEFAULT_DEADLINE, in_work, schedule }
    }
}

impl Extending {
    /// Records how messages are delivered.
    pub(super) fn set_policy(&mut self, policy: &DeliveryPolicy) {
        let deadline = policy.ack_deadline.and_then(|deadline| deadline.try_into().ok());
        self.ack_deadline = deadline.unwrap_or(DEFAULT_DEADLINE);
    }

    /// Records that a message came.
    pub(super) fn add(&mut self, delivery: i64, offset: i64, now: Instant) {
        let offsets = self.in_work.entry(delivery).or_default();
        if offsets.is_empty() {
            self.schedule.push_back((now + self.ack_deadline / 2, delivery));
        }
        offsets.insert(offset);
    }

    /// Records that the verdict on a message is sent.
    pub(super) fn remove(&mut self, delivery: i64, offset: i64) {
        if let Some(offsets) = self.in_work.get_mut(&delivery) {
            offsets.remove(&offset);
            if offsets.is_empty() {
                self.in_work.remove(&delivery);
            }
        }
    }

    /// Whether nothing is in work.
    pub(super) fn is_empty(&self) -> bool {
        self.in_work.is_empty()
    }

    /// When something is to be extended.
    pub(super) fn next(&mut self) -> Option<Instant> {
        while let Some((at, delivery)) = self.schedule.front() {
            if self.in_work.contains_key(delivery) {
                return Some(*at);
            }
            self.schedule.pop_front();
        }
        None
    }

    /// Takes what is to be extended by now, as much as one request holds: a settlement for each delivery.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Settlement> {
        let by = self.ack_deadline.try_into().ok();
        let (mut settlements, mut bytes) = (Vec::new(), 0);
        while bytes < MAX_REQUEST_BYTES / 2
            && self.next().is_some_and(|at| at <= now)
            && let Some((_, delivery)) = self.schedule.pop_front()
        {
            let Some(offsets) = self.in_work.get(&delivery) else { continue };
            let offsets = offsets.iter().copied().collect();
            let extension = settlement(delivery, offsets, ProtoVerdict::Extend(Extend { by }));
            bytes += extension.encoded_len();
            settlements.push(extension);
            self.schedule.push_back((now + self.ack_deadline / 2, delivery));
        }
        settlements
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::OffsetRange;

    fn extending(seconds: i64) -> Extending {
        let ack_deadline = Some(prost_types::Duration { seconds, nanos: 0 });
        let mut extending = Extending::default();
        extending.set_policy(&DeliveryPolicy { ack_deadline, ..Default::default() });
        extending
    }

    #[test]
    fn what_is_in_work_is_extended_at_half_of_its_deadline() {
        let (mut extending, began) = (extending(10), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(extending.next(), None);
        (10..20).for_each(|offset| extending.add(1, offset, began));
        extending.add(2, 20, after(1));
        assert_eq!(extending.next(), Some(after(5)));
        assert!(extending.take(after(4)).is_empty());
        extending.remove(1, 10);
        extending.remove(1, 15);
        let extended = extending.take(after(5));
        let [Settlement { delivery: 1, offsets, ranges, verdict }] = &extended[..] else {
            panic!("{extended:?}");
        };
        let range = |first_offset, end_offset| OffsetRange { first_offset, end_offset };
        assert_eq!((&offsets[..], &ranges[..]), (&[][..], &[range(11, 15), range(16, 20)][..]));
        let by = Some(prost_types::Duration { seconds: 10, nanos: 0 });
        assert_eq!(*verdict, Some(ProtoVerdict::Extend(Extend { by })));
        // A delivery that is over is not extended.
        extending.remove(2, 20);
        assert_eq!(extending.next(), Some(after(10)));
        (10..20).for_each(|offset| extending.remove(1, offset));
        assert_eq!(extending.next(), None);
        assert!(extending.is_empty());
    }

    #[test]
    fn what_does_not_fit_into_a_request_is_extended_with_the_next_one() {
        let (mut extending, began) = (extending(1), Instant::now());
        for delivery in 0..100_i64 {
            // Every other message of a delivery is finished.
            let offsets =
                (0..1_000_i64).map(|number| (1_i64 << 40) + delivery * 2_000 + number * 2);
            offsets.for_each(|offset| extending.add(delivery + 1, offset, began));
        }
        let (later, mut extended) = (began + Duration::from_secs(1), 0);
        loop {
            let settlements = extending.take(later);
            let bytes: usize = settlements.iter().map(|it| it.encoded_len() + 4).sum();
            assert!(bytes <= 128 * 1024, "{bytes}");
            if settlements.is_empty() {
                break;
            }
            extended += settlements.len();
        }
        assert_eq!(extended, 100);
    }
}
