//! How much workers can have: each by itself, and all of a subscription together.

use crate::{
    broker::subscription::{deliveries::Outstanding, receivers::Worker, request::Limit},
    model::DeliveryPolicy,
};

/// How many messages all workers can have together if the policy does not say fewer.
const MAX_OUTSTANDING: usize = 100_000;

/// How much a worker can be given now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    pub messages: usize,
    pub bytes: usize,
    /// How many bytes the first message can have.
    pub first_bytes: usize,
    /// The limit that a larger first message would exceed.
    pub bytes_limit: Limit,
}

/// How much can be given to a worker that has `has` while all workers have `all`, or which limit has been
/// reached.
pub(super) fn allowance(
    worker: Worker,
    has: Outstanding,
    policy: &DeliveryPolicy,
    all: Outstanding,
) -> Result<Allowance, Limit> {
    let (own, shared) = (worker.room(has), shared_room(policy, all));
    let room = [
        (own.messages, Limit::WorkerMessages),
        (own.bytes, Limit::WorkerBytes),
        (shared.messages, Limit::Outstanding),
        (shared.bytes, Limit::OutstandingBytes),
    ];
    if let Some((_, limit)) = room.into_iter().find(|(left, _)| *left == 0) {
        return Err(limit);
    }
    // A message that is larger than a limit would otherwise never be delivered.
    let first = |has: Outstanding, bytes| if has.messages == 0 { usize::MAX } else { bytes };
    let (own_first, shared_first) = (first(has, own.bytes), first(all, shared.bytes));
    Ok(Allowance {
        messages: own.messages.min(shared.messages),
        bytes: own.bytes.min(shared.bytes),
        first_bytes: own_first.min(shared_first),
        bytes_limit: match shared_first < own_first {
            true => Limit::OutstandingBytes,
            false => Limit::WorkerBytes,
        },
    })
}

/// The limit of all workers together that has been reached, if one has.
pub(super) fn shared_limit(policy: &DeliveryPolicy, all: Outstanding) -> Option<Limit> {
    let room = shared_room(policy, all);
    let limits = [(room.messages, Limit::Outstanding), (room.bytes, Limit::OutstandingBytes)];
    limits.into_iter().find(|(left, _)| *left == 0).map(|(_, limit)| limit)
}

/// How much more all workers together can have, of which they have some.
fn shared_room(policy: &DeliveryPolicy, all: Outstanding) -> Outstanding {
    let messages = policy.outstanding_messages.and_then(|most| usize::try_from(most).ok());
    let bytes = policy.outstanding_bytes.and_then(|most| usize::try_from(most).ok());
    Outstanding {
        messages: messages.unwrap_or(MAX_OUTSTANDING).saturating_sub(all.messages),
        bytes: bytes.map_or(usize::MAX, |most| most.saturating_sub(all.bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::subscription::{
        deliveries::WorkerId, receivers::KnownIdle, request::WorkerLimits,
    };

    fn stream(messages: usize, bytes: usize) -> Worker {
        let limits = WorkerLimits { messages, bytes };
        Worker::Stream { id: WorkerId(0), limits, known: KnownIdle::default() }
    }

    fn policy(messages: Option<u32>, bytes: Option<u64>) -> DeliveryPolicy {
        let (outstanding_messages, outstanding_bytes) = (messages, bytes);
        DeliveryPolicy { outstanding_messages, outstanding_bytes, ..DeliveryPolicy::default() }
    }

    fn having(messages: usize, bytes: usize) -> Outstanding {
        Outstanding { messages, bytes }
    }

    #[test]
    fn the_stricter_limit_holds_and_the_one_that_is_reached_is_said() {
        let none = having(0, 0);
        let of = |has, messages, bytes, all| {
            let allowed = allowance(stream(10, 100), has, &policy(messages, bytes), all)?;
            Ok((allowed.messages, allowed.bytes))
        };
        assert_eq!(of(none, None, None, none), Ok((10, 100)));
        assert_eq!(of(none, None, None, having(99_995, 0)), Ok((5, 100)));
        assert_eq!(of(none, None, None, having(100_000, 0)), Err(Limit::Outstanding));
        assert_eq!(of(none, Some(7), Some(90), having(4, 50)), Ok((3, 40)));
        assert_eq!(of(having(10, 0), Some(7), None, having(10, 0)), Err(Limit::WorkerMessages));
        assert_eq!(of(having(1, 100), None, Some(9), having(1, 100)), Err(Limit::WorkerBytes));
        // A policy can fall below what workers have.
        assert_eq!(of(none, Some(7), None, having(8, 50)), Err(Limit::Outstanding));
        assert_eq!(of(none, None, Some(9), having(1, 50)), Err(Limit::OutstandingBytes));
    }

    #[test]
    fn a_message_of_any_size_is_delivered_when_nobody_has_one() {
        let of = |has, all| {
            let allowed = allowance(stream(10, 100), has, &policy(None, Some(90)), all).unwrap();
            (allowed.first_bytes, allowed.bytes_limit)
        };
        assert_eq!(of(having(0, 0), having(0, 0)).0, usize::MAX);
        // This worker has none, and another one has.
        assert_eq!(of(having(0, 0), having(1, 20)), (70, Limit::OutstandingBytes));
        assert_eq!(of(having(1, 20), having(1, 20)), (70, Limit::OutstandingBytes));
        assert_eq!(of(having(2, 40), having(2, 5)), (60, Limit::WorkerBytes));
    }
}
