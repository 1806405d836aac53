//! The state of a lease, whatever is recorded in whatever order.

use proptest::{collection::vec, prelude::*};

use crate::{
    broker::{
        lease::state::{LeaseEnd, LeaseState, LeaseStatus},
        testing::check,
    },
    model::{Epoch, Offset},
    storage::LeaseChange,
};

#[derive(Clone, Debug)]
enum Act {
    /// A frame that ends at an offset is sent under an epoch.
    Deliver {
        epoch: i64,
        end: i64,
    },
    Store {
        epoch: i64,
        position: i64,
    },
    /// The database answers with an epoch and a position: a seek, a commit, or what is known
    /// already.
    Observe {
        epoch: i64,
        position: i64,
    },
    TakeOver,
    Unregister,
}

fn act() -> impl Strategy<Value = Act> {
    let numbers = || (0..6i64, 0..50i64);
    prop_oneof![
        4 => numbers().prop_map(|(epoch, end)| Act::Deliver { epoch, end }),
        4 => numbers().prop_map(|(epoch, position)| Act::Store { epoch, position }),
        4 => numbers().prop_map(|(epoch, position)| Act::Observe { epoch, position }),
        1 => Just(Act::TakeOver),
        1 => Just(Act::Unregister),
    ]
}

/// What a stream would act on.
#[derive(Clone, Debug, PartialEq)]
struct View {
    epoch: Epoch,
    start: Offset,
    committed: Offset,
    delivered: Offset,
    ended: Option<LeaseEnd>,
}

fn view(state: &LeaseState) -> View {
    let status = state.watch();
    let LeaseStatus { epoch, start, committed, ended } = status.borrow().clone();
    View { epoch, start, committed, delivered: state.delivered(), ended }
}

fn apply(state: &LeaseState, act: &Act, taker: usize) {
    let change = |epoch, position, taken| {
        let taker = if taken { format!("taker-{taker}") } else { String::new() };
        Some(LeaseChange { epoch: Epoch(epoch), position: Offset(position), taken, taker })
    };
    match *act {
        Act::Deliver { epoch, end } => state.record_delivered(Epoch(epoch), Offset(end)),
        Act::Store { epoch, position } => state.record_stored(Epoch(epoch), Offset(position)),
        Act::Observe { epoch, position } => state.observe(change(epoch, position, false)),
        Act::TakeOver => state.observe(change(99, 0, true)),
        Act::Unregister => state.observe(None),
    }
}

#[test]
fn a_lease_moves_back_only_by_a_seek_and_ends_once() {
    check(256, vec(act(), 1..60), |acts| {
        let state = LeaseState::new(Epoch(2), Offset(10));
        let mut status = state.watch();
        let mut before = view(&state);
        for (number, act) in acts.iter().enumerate() {
            apply(&state, act, number);
            let after = view(&state);
            assert!(after.epoch >= before.epoch);
            assert!(after.epoch > before.epoch || after.committed >= before.committed);
            assert!(
                before.ended.is_none() || after.ended == before.ended,
                "it ends once, for one reason"
            );
            let expected = match *act {
                Act::Observe { epoch, position } if Epoch(epoch) > before.epoch => {
                    let (epoch, start) = (Epoch(epoch), Offset(position));
                    View { epoch, start, committed: start, delivered: start, ..before.clone() }
                }
                Act::Observe { epoch, position } | Act::Store { epoch, position }
                    if Epoch(epoch) == before.epoch =>
                {
                    let committed = before.committed.max(Offset(position));
                    View { committed, ..before.clone() }
                }
                Act::Deliver { epoch, end } if Epoch(epoch) == before.epoch => {
                    View { delivered: Offset(end), ..before.clone() }
                }
                Act::TakeOver | Act::Unregister => {
                    View { ended: after.ended.clone(), ..before.clone() }
                }
                // An epoch that has ended, or is not known yet, changes nothing.
                _ => before.clone(),
            };
            assert_eq!(after, expected, "{act:?}");
            assert!(after.ended.is_some() || !matches!(act, Act::TakeOver | Act::Unregister));
            // Only changes wake those that watch the status.
            let changed = View { delivered: before.delivered, ..after.clone() } != before;
            let is_seek = after.epoch != before.epoch;
            assert_eq!(status.has_changed().unwrap(), changed || is_seek, "{act:?}");
            status.borrow_and_update();
            before = after;
        }
    });
}
