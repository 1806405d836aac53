//! What an owner knows and stores, compared with a model: a state for each message.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use tokio::time::Instant;

use crate::{
    broker::{
        subscription::{
            changes::Changes,
            deliveries::{DeliveryId, WorkerId},
            exceptions::{Exception, Exceptions},
            request::{Settlement, Verdict},
            settled::Settled,
            state::State,
            unstored::{Part, PartLimits, Row},
        },
        testing::check,
    },
    model::{Backoff, DeliveryPolicy, Offset, OffsetRange, TopicName},
};

const DEADLINE: u64 = 10;

/// What a write may hold: little, so that many take several. A message has 7 bytes, and most reasons 3.
const LIMITS: PartLimits = PartLimits { reason_bytes: 7, letters: 3, letter_bytes: 25 };

/// Then one row takes the place of all.
const MAX_DELTAS: usize = 4;

/// How many messages the log has.
const MESSAGES: i64 = 40;

#[derive(Clone, Debug)]
enum Act {
    /// A worker takes so many messages: those that are due first, then new ones whose time has come.
    Take { count: usize },
    /// A worker settles part of one of the deliveries that there were.
    Settle { delivery: prop::sample::Index, from: usize, count: usize, verdict: Verdict },
    /// What a worker was given does not reach it.
    TakeBack,
    /// One of the workers goes.
    Leave { worker: prop::sample::Index },
    /// All parked messages are delivered again.
    Replay,
    /// All parked messages are forgotten.
    Discard,
    /// Seconds pass.
    Wait { seconds: u64 },
    /// What is to be stored is stored.
    Store,
    /// Another broker takes over, and reads what is stored.
    TakeOver,
    /// So it does after this many of the writes that it takes to store all.
    TakeOverWhileStoring { writes: usize },
    /// Retention removes the messages before an offset.
    Remove { before: i64 },
}

pub(super) fn verdict() -> impl Strategy<Value = Verdict> {
    let seconds = |seconds| Duration::from_secs(seconds);
    prop_oneof![
        6 => Just(Verdict::Acknowledge),
        2 => prop_oneof![Just(None), (0..20u64).prop_map(move |it| Some(seconds(it)))]
            .prop_map(|delay| Verdict::Retry { delay }),
        1 => Just(Verdict::Reject { reason: "bad".into() }),
        1 => Just(Verdict::Release),
        1 => prop_oneof![Just(None), (1..30u64).prop_map(move |it| Some(seconds(it)))]
            .prop_map(|by| Verdict::Extend { by }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..8usize).prop_map(|count| Act::Take { count }),
        8 => (any::<prop::sample::Index>(), 0..5usize, 1..6usize, verdict())
            .prop_map(|(delivery, from, count, verdict)| Act::Settle { delivery, from, count, verdict }),
        1 => Just(Act::TakeBack),
        1 => any::<prop::sample::Index>().prop_map(|worker| Act::Leave { worker }),
        1 => Just(Act::Replay),
        1 => Just(Act::Discard),
        3 => (1..12u64).prop_map(|seconds| Act::Wait { seconds }),
        3 => Just(Act::Store),
        1 => Just(Act::TakeOver),
        1 => (0..4usize).prop_map(|writes| Act::TakeOverWhileStoring { writes }),
        1 => (0..MESSAGES).prop_map(|before| Act::Remove { before }),
    ]
}

/// What has become of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    New,
    /// A worker has it.
    Outstanding {
        worker: WorkerId,
        delivery: DeliveryId,
        attempt: u32,
        deadline: Instant,
    },
    /// It is delivered again.
    Waiting {
        attempts: u32,
        due: Instant,
    },
    Done,
}

/// What the database has.
pub(super) struct Database {
    pub floor: Offset,
    pub deltas: Vec<Vec<u8>>,
    pub rows: BTreeMap<Offset, Row>,
    /// What the dead-letter topic has.
    pub moved: BTreeSet<Offset>,
}

impl Database {
    pub(super) fn store(&mut self, part: Part, log_start: i64) {
        assert!(part.floor >= self.floor, "the floor goes back");
        self.deltas.push(part.settled.encode());
        for (offset, row) in part.rows {
            match row {
                Row::Removed => drop(self.rows.remove(&offset)),
                Row::Moved { .. } => {
                    // There is nothing to copy if it was removed.
                    let is_moved = offset.0 >= log_start;
                    assert!(!is_moved || self.moved.insert(offset), "{offset} is moved twice");
                    self.rows.remove(&offset);
                }
                row => drop(self.rows.insert(offset, row)),
            }
        }
        self.floor = part.floor;
    }

    fn settled(&self) -> Settled {
        let mut settled = Settled::before(self.floor);
        for delta in &self.deltas {
            let changes = Changes::decode(delta).expect("it was encoded");
            for range in changes.ranges() {
                settled.settle(range);
            }
        }
        settled
    }

    /// What has become of each message, as far as is stored.
    fn fates(&self) -> Vec<Fate> {
        let settled = self.settled();
        let fate = |offset: Offset| match self.rows.get(&offset) {
            Some(Row::Retry { attempts, due }) => Fate::Waiting { attempts: *attempts, due: *due },
            _ if settled.next_open(offset) == offset => Fate::New,
            _ => Fate::Done,
        };
        (0..MESSAGES).map(|offset| fate(Offset(offset))).collect()
    }

    pub(super) fn load(&self, policy: DeliveryPolicy, first: DeliveryId) -> State {
        let settled = self.settled();
        let mut exceptions = Exceptions::default();
        for (offset, row) in &self.rows {
            if let Row::Retry { attempts, due } = row {
                let exception = Exception { attempts: *attempts, due: Some(*due), is_stored: true };
                exceptions.put(*offset, exception);
            }
        }
        State::new(policy, settled, exceptions, first)
    }
}

/// The real state beside the model.
struct Run {
    policy: DeliveryPolicy,
    now: Instant,
    state: State,
    database: Database,
    fates: Vec<Fate>,
    /// What another broker would know: the fates as they are stored.
    stored: Vec<Fate>,
    deliveries: Vec<(DeliveryId, Vec<i64>)>,
    epoch: u64,
    workers: u64,
    /// Messages before it were removed since the last take-over.
    removed_before: i64,
    /// Messages before it were removed.
    log_start: i64,
    /// When each message is to be delivered.
    deliver_at: Vec<Instant>,
}

impl Run {
    /// Messages whose times are so many seconds ahead.
    fn new(policy: DeliveryPolicy, delays: &[u64]) -> Self {
        let database = Database {
            floor: Offset(0),
            deltas: Vec::new(),
            rows: BTreeMap::new(),
            moved: BTreeSet::new(),
        };
        let state = database.load(policy.clone(), DeliveryId(1 << 32));
        let fates = vec![Fate::New; MESSAGES as usize];
        let now = Instant::now();
        Self {
            policy,
            now,
            deliver_at: delays.iter().map(|delay| now + Duration::from_secs(*delay)).collect(),
            state,
            database,
            stored: fates.clone(),
            fates,
            deliveries: Vec::new(),
            epoch: 1,
            workers: 0,
            removed_before: 0,
            log_start: 0,
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Take { count } => self.take(count),
            Act::Settle { delivery, from, count, verdict } => {
                if !self.deliveries.is_empty() {
                    let (id, offsets) = delivery.get(&self.deliveries).clone();
                    self.settle(id, &offsets, from, count, verdict);
                }
            }
            Act::TakeBack => self.take_back(),
            Act::Leave { worker } if self.workers > 0 => {
                let worker = WorkerId(worker.index(self.workers as usize) as u64);
                self.state.leave(worker, self.now);
                self.give_back(|of, _| of == worker);
            }
            Act::Leave { .. } => {}
            Act::Replay => self.replay(),
            Act::Discard => {
                let parked = self.parked();
                assert_eq!(self.state.discard(&parked), parked.len());
                self.store();
                assert_eq!(self.parked(), []);
            }
            Act::Wait { seconds } => {
                self.now += Duration::from_secs(seconds);
                self.state.expire(self.now);
                let now = self.now;
                self.give_back(|_, deadline| deadline <= now);
            }
            Act::Store => self.store(),
            Act::TakeOver => self.take_over(),
            Act::TakeOverWhileStoring { writes } => self.take_over_while_storing(writes),
            Act::Remove { before } => {
                self.state.skip_before(Offset(before));
                self.removed_before = self.removed_before.max(before);
                self.log_start = self.log_start.max(before);
                for fate in &mut self.fates[..before as usize] {
                    // A worker that has it may go on with it.
                    if !matches!(fate, Fate::Outstanding { .. }) {
                        *fate = Fate::Done;
                    }
                }
            }
        }
        self.check();
    }

    /// Hands messages to a worker, as the owner does: to a new one, or to the last one again.
    fn take(&mut self, count: usize) {
        if self.workers == 0 || count.is_multiple_of(2) {
            self.workers += 1;
        }
        let worker = WorkerId(self.workers - 1);
        let due = self.state.due(self.now, count);
        let is_due = |fate: &Fate| matches!(fate, Fate::Waiting { due, .. } if *due <= self.now);
        let waiting = self.fates.iter().filter(|fate| is_due(fate)).count();
        assert_eq!(due.len(), waiting.min(count), "the messages that are due");
        assert!(due.iter().all(|offset| is_due(&self.fates[offset.0 as usize])));
        self.hand_out(worker, due);
        let mut left = count.saturating_sub(waiting);
        while left > 0
            && let Some(range) = self.state.next_new(Offset(MESSAGES))
        {
            let end = range.end.min(range.start.after(left));
            let offsets: Vec<Offset> = (range.start.0..end.0).map(Offset).collect();
            assert!(offsets.iter().all(|it| self.fates[it.0 as usize] == Fate::New), "{range}");
            if self.delay(&offsets) {
                continue;
            }
            left -= offsets.len();
            self.hand_out(worker, offsets);
        }
        if left > 0 {
            assert!(self.fates.iter().all(|fate| *fate != Fate::New), "new messages were left out");
        }
    }

    /// Has new messages wait whose time has not come. Returns false if there are none.
    fn delay(&mut self, new: &[Offset]) -> bool {
        let mut has_delayed = false;
        for &offset in new {
            let (index, now) = (offset.0 as usize, self.now);
            if let Some(due) = self.deliver_at.get(index).copied().filter(|due| *due > now) {
                self.state.delay(offset, due);
                self.fates[index] = Fate::Waiting { attempts: 0, due };
                has_delayed = true;
            }
        }
        has_delayed
    }

    fn hand_out(&mut self, worker: WorkerId, offsets: Vec<Offset>) {
        if offsets.is_empty() {
            return;
        }
        let messages: Vec<(Offset, u32)> = offsets.iter().map(|offset| (*offset, 7)).collect();
        let (delivery, delivered) = self.state.hand_out(worker, &messages, self.now);
        assert!(self.deliveries.iter().all(|(id, _)| *id < delivery), "ids grow");
        for (offset, delivered) in offsets.iter().zip(&delivered) {
            let fate = &mut self.fates[offset.0 as usize];
            let attempt = match fate {
                Fate::Waiting { attempts, .. } => *attempts + 1,
                _ => 1,
            };
            assert_eq!((delivered.offset, delivered.attempt), (*offset, attempt));
            let deadline = self.now + Duration::from_secs(DEADLINE);
            *fate = Fate::Outstanding { worker, delivery, attempt, deadline };
        }
        self.deliveries.push((delivery, offsets.iter().map(|offset| offset.0).collect()));
    }

    fn settle(
        &mut self,
        id: DeliveryId,
        offsets: &[i64],
        from: usize,
        count: usize,
        verdict: Verdict,
    ) {
        let part: Vec<i64> = offsets.iter().copied().skip(from).take(count).collect();
        // No range means all of them.
        let chosen = if part.is_empty() { offsets.to_vec() } else { part.clone() };
        let ranges = part
            .iter()
            .map(|offset| OffsetRange { start: Offset(*offset), end: Offset(offset + 1) })
            .collect();
        let settlement = Settlement { delivery: id.0, ranges, verdict: verdict.clone() };
        let applied = self.state.settle(&settlement, self.now);
        let mut expected = 0;
        for offset in chosen {
            let fate = self.fates[offset as usize].clone();
            let Fate::Outstanding { worker, delivery, attempt, .. } = fate else { continue };
            if delivery != id {
                continue;
            }
            expected += 1;
            self.fates[offset as usize] = match &verdict {
                Verdict::Acknowledge | Verdict::Reject { .. } => Fate::Done,
                Verdict::Retry { .. } if self.policy.is_last(attempt) => Fate::Done,
                Verdict::Retry { .. } | Verdict::Release if offset < self.removed_before => {
                    Fate::Done
                }
                Verdict::Release => Fate::Waiting { attempts: attempt - 1, due: self.now },
                Verdict::Retry { delay } => {
                    let delay = delay.unwrap_or_else(|| self.policy.retry_delay(attempt));
                    Fate::Waiting { attempts: attempt, due: self.now + delay }
                }
                Verdict::Extend { by } => {
                    let by = by.unwrap_or(Duration::from_secs(DEADLINE));
                    Fate::Outstanding { worker, delivery, attempt, deadline: self.now + by }
                }
            };
        }
        assert_eq!(applied, expected);
    }

    fn take_back(&mut self) {
        let taken_by = self.deliveries.len();
        self.take(3);
        for (delivery, offsets) in self.deliveries.drain(taken_by..) {
            self.state.take_back(delivery, self.now);
            for offset in offsets {
                let fate = &mut self.fates[offset as usize];
                if let Fate::Outstanding { attempt, .. } = *fate {
                    *fate = match offset < self.removed_before {
                        true => Fate::Done,
                        false => Fate::Waiting { attempts: attempt - 1, due: self.now },
                    };
                }
            }
        }
    }

    /// The messages that are stored as parked, and still in the log.
    fn parked(&mut self) -> Vec<Offset> {
        self.store();
        let rows = self.database.rows.iter().filter(|(_, row)| matches!(row, Row::Parked { .. }));
        let offsets = rows.map(|(offset, _)| *offset);
        offsets.filter(|offset| offset.0 >= self.log_start).collect()
    }

    fn replay(&mut self) {
        let parked = self.parked();
        assert_eq!(self.state.replay(&parked, self.now), parked.len());
        assert_eq!(self.state.replay(&parked, self.now), 0, "they are parked no more");
        for offset in &parked {
            self.fates[offset.0 as usize] = Fate::Waiting { attempts: 0, due: self.now };
        }
        self.store();
        assert_eq!(self.parked(), []);
    }

    /// What some workers have is delivered again.
    fn give_back(&mut self, is_over: impl Fn(WorkerId, Instant) -> bool) {
        for (offset, fate) in self.fates.iter_mut().enumerate() {
            if let Fate::Outstanding { worker, attempt, deadline, .. } = *fate
                && is_over(worker, deadline)
            {
                let is_removed = (offset as i64) < self.removed_before;
                *fate = match is_removed || self.policy.is_last(attempt) {
                    true => Fate::Done,
                    false => {
                        let due = self.now + self.policy.retry_delay(attempt);
                        Fate::Waiting { attempts: attempt, due }
                    }
                };
            }
        }
    }

    fn store(&mut self) {
        self.store_parts(usize::MAX);
        self.stored.clone_from(&self.fates);
        // Also those that a worker has.
        self.stored[..self.removed_before as usize].fill(Fate::Done);
    }

    /// Stores as much as fits in so many writes; returns the messages whose rows are left.
    fn store_parts(&mut self, writes: usize) -> BTreeSet<Offset> {
        let Some(mut unwritten) = self.state.take_unstored() else { return BTreeSet::new() };
        for _ in 0..writes {
            if unwritten.is_empty() {
                break;
            }
            let mut part = unwritten.cut(LIMITS);
            if self.database.deltas.len() >= MAX_DELTAS {
                part.settled = self.state.settled_from(part.floor);
                part.settled.forget_those_of(unwritten.held());
                self.database.deltas.clear();
            }
            self.database.store(part, self.log_start);
        }
        unwritten.rows_left().collect()
    }

    /// The owner ends before all is stored. No message is lost.
    fn take_over_while_storing(&mut self, writes: usize) {
        let left = self.store_parts(writes);
        self.stored = self.database.fates();
        for (index, stored) in self.stored.iter().enumerate() {
            let is_left = left.contains(&Offset(index as i64));
            let may_be_done = self.fates[index] == Fate::Done && !is_left;
            let is_removed = (index as i64) < self.log_start;
            assert!(*stored != Fate::Done || may_be_done || is_removed, "{index} is lost");
        }
        self.take_over();
    }

    /// The next owner knows what is stored. It delivers at once what workers had, and what was to be
    /// delivered again without a row.
    fn take_over(&mut self) {
        self.epoch += 1;
        self.removed_before = 0;
        self.state = self.database.load(self.policy.clone(), DeliveryId(self.epoch << 32));
        for (index, fate) in self.stored.iter_mut().enumerate() {
            let row = self.database.rows.get(&Offset(index as i64));
            *fate = match (fate.clone(), row) {
                (_, Some(Row::Retry { attempts, due })) => {
                    Fate::Waiting { attempts: *attempts, due: *due }
                }
                (Fate::Done, _) => Fate::Done,
                _ => Fate::New,
            };
        }
        self.fates.clone_from(&self.stored);
    }

    fn check(&self) {
        let outstanding =
            self.fates.iter().filter(|fate| matches!(fate, Fate::Outstanding { .. })).count();
        let counted = self.state.outstanding();
        assert_eq!((counted.messages, counted.bytes), (outstanding, 7 * outstanding));
        let dues = self.fates.iter().filter_map(|fate| match fate {
            Fate::Waiting { due, .. } => Some(*due),
            _ => None,
        });
        assert_eq!(self.state.next_due(), dues.min());
        let of_workers: usize = (0..self.workers)
            .map(|worker| self.state.outstanding_of(WorkerId(worker)).messages)
            .sum();
        assert_eq!(of_workers, outstanding);
    }
}

#[test]
fn each_message_is_delivered_until_it_is_settled_and_what_is_stored_is_what_was_settled() {
    let policy = |max_deliveries, moves: bool| DeliveryPolicy {
        ack_deadline: Duration::from_secs(DEADLINE),
        backoff: Backoff { shortest: Duration::from_secs(2), longest: Duration::from_secs(5) },
        max_deliveries,
        dead_letter_topic: moves.then(|| TopicName::stored("dead")),
        ..DeliveryPolicy::default()
    };
    let most = prop_oneof![Just(None), (1..4u32).prop_map(Some)];
    let delays = vec(prop_oneof![2 => Just(0), 1 => 1..60u64], MESSAGES as usize);
    let acts = vec(act(), 1..60);
    check(1_000, (most, any::<bool>(), delays, acts), |(most, moves, delays, acts)| {
        let mut run = Run::new(policy(most, moves), &delays);
        acts.into_iter().for_each(|act| run.act(act));
        // In the end, everything can be settled.
        run.act(Act::Store);
        run.act(Act::TakeOver);
        run.act(Act::Wait { seconds: 100 });
        while run.fates.iter().any(|fate| *fate != Fate::Done) {
            run.take(10);
            while let Some((id, offsets)) = run.deliveries.pop() {
                run.settle(id, &offsets, 0, offsets.len(), Verdict::Acknowledge);
            }
        }
        assert_eq!(run.state.floor(), Offset(MESSAGES));
        run.act(Act::Store);
        let retried = run.database.rows.values().filter(|row| matches!(row, Row::Retry { .. }));
        assert_eq!(retried.count(), 0);
    });
}
