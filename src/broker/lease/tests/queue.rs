//! WaitQueue, held against a list of who waits for them.

use std::{collections::VecDeque, sync::Arc, task::Poll};

use proptest::{collection::vec, prelude::*, sample::Index};
use tokio::sync::oneshot;

use crate::broker::{
    lease::queue::{Permit, Priority, WaitQueue},
    testing::{by_hand::ByHand, check},
};

#[derive(Clone, Debug)]
enum Act {
    Try,
    LineUp(Priority),
    /// A waiter goes, whether it was granted the turn or not.
    Leave(Index),
    /// A waiter looks whether the turn has come.
    Fetch(Index),
    /// Whoever has the turn gives it up.
    GiveUp,
    /// Whoever has the turn asks anew whether somebody urgent waits, or looks again.
    AskAnew,
    Look,
}

fn act() -> impl Strategy<Value = Act> {
    let place = prop_oneof![3 => Just(Priority::Normal), 1 => Just(Priority::Returning), 2 => Just(Priority::TakeOver)];
    prop_oneof![
        1 => Just(Act::Try),
        5 => place.prop_map(Act::LineUp),
        2 => any::<Index>().prop_map(Act::Leave),
        3 => any::<Index>().prop_map(Act::Fetch),
        3 => Just(Act::GiveUp),
        1 => Just(Act::AskAnew),
        3 => Just(Act::Look),
    ]
}

/// The turns, and what is expected of them.
#[derive(Default)]
struct Line {
    turns: Arc<WaitQueue>,
    turn: Option<Permit>,
    /// Who has been granted the turn and has not fetched it.
    granted: Option<oneshot::Receiver<Permit>>,
    /// Who waits, in the order in which they are to have it.
    waiting: VecDeque<(Priority, oneshot::Receiver<Permit>)>,
    asking: Option<ByHand<'static, ()>>,
}

impl Line {
    fn act(&mut self, act: Act) {
        match act {
            Act::Try => {
                let taken = self.is_taken();
                let turn = self.turns.try_acquire();
                assert_eq!(turn.is_none(), taken);
                self.turn = self.turn.take().or(turn);
            }
            Act::LineUp(place) => {
                let taken = self.is_taken();
                let waiter = self.turns.enqueue(place);
                match (taken, place) {
                    (false, _) => self.granted = Some(waiter),
                    (true, Priority::Normal) => self.waiting.push_back((place, waiter)),
                    (true, _) => self.waiting.push_front((place, waiter)),
                }
            }
            Act::Leave(whose) => match self.pick(&whose) {
                Some(index) => drop(self.waiting.remove(index)),
                None if self.granted.take().is_some() => self.pass_on(),
                None => {}
            },
            Act::Fetch(whose) => match self.pick(&whose) {
                Some(index) => assert!(self.waiting[index].1.try_recv().is_err(), "not its turn"),
                None => self.fetch(),
            },
            Act::GiveUp => {
                if self.turn.take().is_some() {
                    self.pass_on();
                }
            }
            Act::AskAnew => {
                let turns = self.turns.clone();
                self.asking = Some(ByHand::new(async move { turns.take_over_waits().await }));
                self.look();
            }
            Act::Look => self.look(),
        }
    }

    fn is_taken(&self) -> bool {
        self.turn.is_some() || self.granted.is_some()
    }

    /// One of those who wait, or whoever was granted the turn: then `None`.
    fn pick(&self, whose: &Index) -> Option<usize> {
        let index = whose.index(self.waiting.len() + 1);
        (index < self.waiting.len()).then_some(index)
    }

    /// The turn was let go: whoever is next has it now.
    fn pass_on(&mut self) {
        self.granted = self.waiting.pop_front().map(|(_, waiter)| waiter);
    }

    fn fetch(&mut self) {
        if let Some(mut granted) = self.granted.take() {
            assert!(self.turn.is_none(), "one turn at a time");
            self.turn = Some(granted.try_recv().expect("no turn gets lost"));
        }
    }

    fn look(&mut self) {
        let Some(asking) = &mut self.asking else { return };
        let urgent = self.waiting.iter().any(|(place, _)| *place == Priority::TakeOver);
        assert_eq!(asking.run() == Poll::Ready(()), urgent, "told of exactly those who are there");
        if urgent {
            self.asking = None;
        }
    }
}

#[test]
fn a_turn_goes_to_whoever_is_next_and_never_to_two_or_to_nobody() {
    check(256, vec(act(), 1..80), |acts| {
        let mut line = Line::default();
        acts.into_iter().for_each(|act| line.act(act));
        // Nobody waits for ever: whoever is still there gets it, in order, as each gives it up.
        let mut left = line.waiting.len() + 1;
        while line.is_taken() {
            line.fetch();
            line.act(Act::GiveUp);
            left = left.checked_sub(1).expect("each has it once");
        }
        assert!(line.waiting.is_empty());
        assert!(line.turns.try_acquire().is_some(), "free again");
    });
}
