//! Verdicts on their way to the broker. Those that gather while a request is sent go together in the next
//! one.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::job::Verdict;
use crate::proto::{
    Acknowledge, OffsetRange, Reject, Release, Retry, Settlement,
    settlement::Verdict as ProtoVerdict,
};

/// The most messages that a request settles.
const MAX_MESSAGES: usize = 10_000;

/// What a request may take. A broker accepts 128 KiB.
pub(super) const MAX_REQUEST_BYTES: usize = 100 * 1024;

/// What a message takes in a request if no other one shares its settlement.
const MESSAGE_BYTES: usize = 48;

/// The limits of a broker.
const MAX_DELAY: Duration = Duration::from_secs(24 * 3_600);
const MAX_REASON_CHARACTERS: usize = 1_024;

/// Verdicts that are not sent yet.
#[derive(Debug, Default)]
pub(super) struct Settling {
    finished: VecDeque<Finished>,
}

/// A message with its verdict.
#[derive(Debug)]
struct Finished {
    delivery: i64,
    offset: i64,
    verdict: Verdict,
}

impl Settling {
    pub(super) fn add(&mut self, delivery: i64, offset: i64, verdict: Verdict) {
        self.finished.push_back(Finished { delivery, offset, verdict });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.finished.is_empty()
    }

    /// Takes as many verdicts as one request holds: a settlement for all messages of a delivery that have
    /// the same one. Calls `taken` with the delivery and the offset of each message.
    pub(super) fn take(&mut self, mut taken: impl FnMut(i64, i64)) -> Vec<Settlement> {
        let mut groups: Vec<(i64, Verdict, Vec<i64>)> = Vec::new();
        let mut known: HashMap<(i64, Verdict), usize> = HashMap::new();
        let (mut messages, mut bytes) = (0, 0);
        while let Some(Finished { verdict, .. }) = self.finished.front() {
            bytes += MESSAGE_BYTES + verdict.reason().len();
            if messages == MAX_MESSAGES || messages > 0 && bytes > MAX_REQUEST_BYTES {
                break;
            }
            let Some(Finished { delivery, offset, verdict }) = self.finished.pop_front() else {
                break;
            };
            messages += 1;
            taken(delivery, offset);
            let index = *known.entry((delivery, verdict.clone())).or_insert(groups.len());
            match groups.get_mut(index) {
                Some((.., offsets)) => offsets.push(offset),
                None => groups.push((delivery, verdict, vec![offset])),
            }
        }
        let encoded = |(delivery, verdict, offsets): (i64, Verdict, Vec<i64>)| {
            settlement(delivery, offsets, verdict.into())
        };
        groups.into_iter().map(encoded).collect()
    }
}

/// A settlement of some messages of a delivery, at least one.
pub(super) fn settlement(
    delivery: i64,
    mut settled: Vec<i64>,
    verdict: ProtoVerdict,
) -> Settlement {
    settled.sort_unstable();
    let (mut offsets, mut ranges) = (Vec::new(), Vec::new());
    for run in settled.chunk_by(|offset, next| offset + 1 == *next) {
        match run {
            // Two offsets take no more than a range.
            [first, _, .., last] => {
                ranges.push(OffsetRange { first_offset: *first, end_offset: last + 1 });
            }
            few => offsets.extend(few),
        }
    }
    Settlement { delivery, offsets, ranges, verdict: Some(verdict) }
}

impl Verdict {
    fn reason(&self) -> &str {
        match self {
            Self::Reject { reason } => reason,
            Self::Acknowledge | Self::Retry { .. } | Self::Release => "",
        }
    }
}

/// Within the limits of a broker, which would end the stream otherwise.
impl From<Verdict> for ProtoVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Acknowledge => Self::Acknowledge(Acknowledge {}),
            Verdict::Release => Self::Release(Release {}),
            Verdict::Retry { delay } => {
                let delay = delay.and_then(|delay| delay.min(MAX_DELAY).try_into().ok());
                Self::Retry(Retry { delay })
            }
            Verdict::Reject { reason } => {
                let characters = reason.chars().filter(|c| *c != '\0');
                Self::Reject(Reject { reason: characters.take(MAX_REASON_CHARACTERS).collect() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::SettleMessages;

    fn acknowledged() -> ProtoVerdict {
        Verdict::Acknowledge.into()
    }

    #[test]
    fn messages_of_a_delivery_with_one_verdict_share_a_settlement() {
        let mut settling = Settling::default();
        for offset in [3, 9, 1, 2, 5, 4] {
            settling.add(7, offset, Verdict::Acknowledge);
        }
        settling.add(7, 10, Verdict::retry());
        settling.add(8, 11, Verdict::Acknowledge);
        settling.add(7, 12, Verdict::retry());
        let range = OffsetRange { first_offset: 1, end_offset: 6 };
        let settled = |delivery, offsets: &[i64], ranges: &[OffsetRange], verdict| Settlement {
            delivery,
            offsets: offsets.to_vec(),
            ranges: ranges.to_vec(),
            verdict: Some(verdict),
        };
        assert_eq!(
            settling.take(|_, _| ()),
            [
                settled(7, &[9], &[range], acknowledged()),
                settled(7, &[10, 12], &[], Verdict::retry().into()),
                settled(8, &[11], &[], acknowledged()),
            ]
        );
        assert!(settling.is_empty() && settling.take(|_, _| ()).is_empty());
    }

    #[test]
    fn a_request_is_no_larger_than_a_broker_accepts() {
        let mut settling = Settling::default();
        let delay = Duration::from_millis(86_399_999);
        for number in 0..10_000_i64 {
            let (delivery, offset) = ((1_i64 << 60) + number, (1_i64 << 50) + number);
            settling.add(delivery, offset, Verdict::retry_after(delay));
            settling.add(delivery, offset, Verdict::reject("ü".repeat(1_024)));
        }
        let mut messages = 0;
        while !settling.is_empty() {
            let settlements = settling.take(|_, _| ());
            messages += settlements.len();
            let request = SettleMessages { settlements, request_id: i64::MAX };
            assert!(request.encoded_len() <= 128 * 1024 - 64, "{}", request.encoded_len());
        }
        assert_eq!(messages, 20_000);
    }

    #[test]
    fn a_verdict_keeps_to_the_limits_of_a_broker() {
        let long: ProtoVerdict = Verdict::retry_after(Duration::MAX).into();
        let day = prost_types::Duration { seconds: 86_400, nanos: 0 };
        assert_eq!(long, ProtoVerdict::Retry(Retry { delay: Some(day) }));
        let reason = format!("\0{}", "ü".repeat(2_000));
        let kept = ProtoVerdict::Reject(Reject { reason: "ü".repeat(1_024) });
        assert_eq!(ProtoVerdict::from(Verdict::reject(reason)), kept);
    }
}
