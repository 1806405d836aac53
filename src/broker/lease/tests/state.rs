//! How far a lease has come, whatever is told in whatever order.

use proptest::{collection::vec, prelude::*};

use crate::{
    broker::{
        lease::state::{LeaseEnd, LeaseState},
        testing::check,
    },
    model::{Epoch, Offset},
    storage::LeaseChange,
};

#[derive(Clone, Debug)]
enum Act {
    /// A frame leaves that was made under an epoch.
    Delivers(i64, i64),
    Stored(i64, i64),
    /// The database told of an epoch and a position: of a seek, of a commit, or of what is known.
    Observes(i64, i64),
    Taken,
    Unregistered,
}

fn act() -> impl Strategy<Value = Act> {
    let numbers = || (0..6i64, 0..50i64);
    prop_oneof![
        4 => numbers().prop_map(|(epoch, end)| Act::Delivers(epoch, end)),
        4 => numbers().prop_map(|(epoch, position)| Act::Stored(epoch, position)),
        4 => numbers().prop_map(|(epoch, position)| Act::Observes(epoch, position)),
        1 => Just(Act::Taken),
        1 => Just(Act::Unregistered),
    ]
}

/// What a stream would act on: its epoch, where that began, how far it is, and why it is over.
#[derive(Clone, Debug, PartialEq)]
struct View {
    epoch: Epoch,
    start: Offset,
    committed: Offset,
    delivered: Offset,
    ended: Option<Option<String>>,
}

fn view(state: &LeaseState) -> View {
    let status = state.watch();
    let status = status.borrow();
    let ended = status.ended.as_ref().map(|end| match end {
        LeaseEnd::TakenOver { by } => Some(by.clone()),
        LeaseEnd::Unregistered => None,
    });
    let (epoch, start, committed) = (status.epoch, status.start, status.committed);
    View { epoch, start, committed, delivered: state.delivered(), ended }
}

fn apply(state: &LeaseState, act: &Act, taker: usize) {
    let seen = |epoch, position, taken| {
        let taker = if taken { format!("taker-{taker}") } else { String::new() };
        Some(LeaseChange { epoch: Epoch(epoch), position: Offset(position), taken, taker })
    };
    match *act {
        Act::Delivers(epoch, end) => state.delivers(Epoch(epoch), Offset(end)),
        Act::Stored(epoch, position) => state.position_stored(Epoch(epoch), Offset(position)),
        Act::Observes(epoch, position) => state.observe(seen(epoch, position, false)),
        Act::Taken => state.observe(seen(99, 0, true)),
        Act::Unregistered => state.observe(None),
    }
}

#[test]
fn a_lease_never_goes_back_but_by_a_seek_and_ends_once() {
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
                "ended once, for one reason"
            );
            let expected = match *act {
                Act::Observes(epoch, position) if Epoch(epoch) > before.epoch => {
                    let (epoch, start) = (Epoch(epoch), Offset(position));
                    View { epoch, start, committed: start, delivered: start, ..before.clone() }
                }
                Act::Observes(epoch, position) | Act::Stored(epoch, position)
                    if Epoch(epoch) == before.epoch =>
                {
                    let committed = before.committed.max(Offset(position));
                    View { committed, ..before.clone() }
                }
                Act::Delivers(epoch, end) if Epoch(epoch) == before.epoch => {
                    View { delivered: Offset(end), ..before.clone() }
                }
                Act::Taken | Act::Unregistered => {
                    View { ended: after.ended.clone(), ..before.clone() }
                }
                // Of an epoch that is ended, or not known of yet, nothing counts.
                _ => before.clone(),
            };
            assert_eq!(after, expected, "{act:?}");
            assert!(after.ended.is_some() || !matches!(act, Act::Taken | Act::Unregistered));
            // Whoever watches is woken by news, and by nothing else.
            let news = View { delivered: before.delivered, ..after.clone() } != before;
            let is_seek = after.epoch != before.epoch;
            assert_eq!(status.has_changed().unwrap(), news || is_seek, "{act:?}");
            status.borrow_and_update();
            before = after;
        }
    });
}
