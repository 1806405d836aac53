//! What workers of a subscription do, and what is stored of it.

use crate::history::{Offsets, Settlement, Stage, Verdict, What};

use super::{ShortRun, Story, all};

impl Story {
    /// A worker's stream or call.
    pub fn work(&mut self, subscription: &str) -> u64 {
        let (topic, consumer) = (self.topic.clone(), subscription.into());
        self.invoke("worker", What::Work { topic, consumer })
    }

    /// A delivery of messages that were not delivered before.
    pub fn handed(&mut self, op: u64, delivery: i64, runs: &[ShortRun<'_>]) {
        let count = runs.iter().map(|(.., count)| count).sum();
        self.handed_again(op, delivery, runs, &[(1, count)]);
    }

    pub fn handed_again(
        &mut self,
        op: u64,
        delivery: i64,
        runs: &[ShortRun<'_>],
        attempts: &[(i32, i64)],
    ) {
        let (runs, attempts) = (all(runs), attempts.to_vec());
        self.frame(op, What::Handed { delivery, runs, attempts });
    }

    pub fn settle(
        &mut self,
        subscription: &str,
        delivery: i64,
        range: Offsets,
        verdict: Verdict,
    ) -> u64 {
        let (topic, consumer) = (self.topic.clone(), subscription.into());
        let settlements = vec![Settlement { delivery, ranges: vec![range], verdict }];
        self.invoke("worker", What::Settle { topic, consumer, settlements })
    }

    /// The answer to one settlement.
    pub fn settled(&mut self, op: u64, applied: i32) {
        self.settled_each(op, &[applied]);
    }

    pub fn settled_each(&mut self, op: u64, applied: &[i32]) {
        self.end(op, Stage::Ok, What::Settled { applied: applied.to_vec() });
    }

    /// Settles messages, all of which are settled then.
    pub fn settle_all(
        &mut self,
        subscription: &str,
        delivery: i64,
        range: Offsets,
        verdict: Verdict,
    ) {
        let settle = self.settle(subscription, delivery, range, verdict);
        self.settled(settle, (range.1 - range.0) as i32);
    }

    pub fn subscription(
        &mut self,
        subscription: &str,
        floor: i64,
        parked: &[Offsets],
        retried: &[Offsets],
    ) {
        let (topic, consumer) = (self.topic.clone(), subscription.into());
        let (parked, retried) = (parked.to_vec(), retried.to_vec());
        let stored = What::Subscription { topic, consumer, floor, parked, retried };
        self.write("run", 0, Stage::Note, stored);
    }
}
