//! Owners of an exactly-once subscription that take over from each other, some without being noticed: no
//! message is handed out while a worker may still settle an earlier delivery of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{collection::vec, prelude::*, sample::Index};
use tokio::time::Instant;

use super::state::{Database, verdict};
use crate::{
    broker::{
        subscription::{
            deliveries::{DeliveryId, WorkerId},
            request::{Settlement, Verdict},
            reservation::Reservation,
            state::State,
            unstored::{Part, PartLimits, Row},
        },
        testing::check,
    },
    model::{Backoff, DeliveryPolicy, Offset, OffsetRange},
};

const DEADLINE: Duration = Duration::from_secs(10);

/// How many messages the log has.
const HEAD: Offset = Offset(40);

#[derive(Clone, Debug)]
enum Act {
    /// An owner hands out so many messages.
    Take {
        owner: Index,
        count: usize,
    },
    /// A worker settles a part of a delivery.
    Settle {
        owner: Index,
        delivery: Index,
        skip: usize,
        verdict: Verdict,
    },
    /// A worker goes.
    Leave {
        owner: Index,
    },
    /// An owner delivers everything again that the database has as parked.
    Replay {
        owner: Index,
    },
    /// An owner begins to store what there is to store.
    Write {
        owner: Index,
    },
    /// What an owner stores reaches the database, which refuses it after a take-over.
    Land {
        owner: Index,
    },
    Wait {
        milliseconds: u64,
    },
    /// Another owner takes over. The one before does not notice.
    TakeOver {
        lag: u64,
    },
    /// The last owner stores everything and ends.
    End,
    /// The position is moved.
    Seek {
        to: i64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let owner = any::<Index>;
    prop_oneof![
        8 => (owner(), 1..15usize).prop_map(|(owner, count)| Act::Take { owner, count }),
        6 => (owner(), any::<Index>(), 0..4usize, verdict()).prop_map(
            |(owner, delivery, skip, verdict)| Act::Settle { owner, delivery, skip, verdict }
        ),
        1 => owner().prop_map(|owner| Act::Leave { owner }),
        2 => owner().prop_map(|owner| Act::Replay { owner }),
        6 => owner().prop_map(|owner| Act::Write { owner }),
        6 => owner().prop_map(|owner| Act::Land { owner }),
        5 => (1..9_000u64).prop_map(|milliseconds| Act::Wait { milliseconds }),
        2 => (0..300u64).prop_map(|lag| Act::TakeOver { lag }),
        1 => Just(Act::End),
        1 => (0..HEAD.0).prop_map(|to| Act::Seek { to }),
    ]
}

struct Owner {
    epoch: u64,
    state: State,
    deliveries: Vec<DeliveryId>,
    /// Deadlines that are to be confirmed, and those that are when the write has landed.
    extended: Vec<(usize, Instant)>,
    /// What is to be final.
    done: Vec<Offset>,
    write: Option<Write>,
}

struct Write {
    part: Part,
    reservation: Option<(Offset, Duration)>,
    extended: Vec<(usize, Instant)>,
    done: Vec<Offset>,
}

/// A message that a worker has, or had.
struct Had {
    offset: Offset,
    epoch: u64,
    delivery: DeliveryId,
    /// Until when the worker knows that it has it.
    deadline: Instant,
    /// Until when its owner believes that.
    believed: Instant,
    /// Whether the owner knows that it is over.
    is_over: bool,
    /// Whether every owner does.
    is_over_for_all: bool,
}

struct World {
    now: Instant,
    policy: DeliveryPolicy,
    database: Database,
    reservation: Option<Reservation>,
    epoch: u64,
    owners: Vec<Owner>,
    had: Vec<Had>,
    /// What is acknowledged for good, or parked.
    done: BTreeSet<Offset>,
}

impl World {
    fn new(max_deliveries: Option<u32>) -> Self {
        let policy = DeliveryPolicy {
            ack_deadline: DEADLINE,
            backoff: Backoff { shortest: Duration::ZERO, longest: Duration::from_secs(2) },
            max_deliveries,
            exactly_once: true,
            ..DeliveryPolicy::default()
        };
        let (floor, deltas, rows) = (Offset(0), Vec::new(), BTreeMap::new());
        let mut world = Self {
            now: Instant::now(),
            policy,
            database: Database { floor, deltas, rows, moved: BTreeSet::new() },
            reservation: None,
            epoch: 0,
            owners: Vec::new(),
            had: Vec::new(),
            done: BTreeSet::new(),
        };
        world.take_over(0);
        world
    }

    fn act(&mut self, act: Act) {
        let index = |owner: Index, world: &Self| owner.index(world.owners.len());
        match act {
            Act::Take { owner, count } => self.take(index(owner, self), count),
            Act::Settle { owner, delivery, skip, verdict } => {
                let owner = index(owner, self);
                let deliveries = &self.owners[owner].deliveries;
                if !deliveries.is_empty() {
                    self.settle(owner, *delivery.get(deliveries), skip, verdict);
                }
            }
            Act::Leave { owner } => {
                let owner = index(owner, self);
                self.owners[owner].state.leave(WorkerId(0), self.now);
            }
            Act::Replay { owner } => {
                let owner = index(owner, self);
                let rows = self.database.rows.iter();
                let parked = rows.filter(|(_, row)| matches!(row, Row::Parked { .. }));
                let parked: Vec<Offset> = parked.map(|(offset, _)| *offset).collect();
                self.owners[owner].state.replay(&parked, self.now);
            }
            Act::Write { owner } => self.write(index(owner, self)),
            Act::Land { owner } => self.land(index(owner, self)),
            Act::Wait { milliseconds } => self.now += Duration::from_millis(milliseconds),
            Act::TakeOver { lag } => self.take_over(lag),
            Act::End => self.end(),
            Act::Seek { to } => {
                self.epoch += 1;
                self.database.floor = Offset(to);
                self.database.deltas.clear();
                self.database.rows.retain(|_, row| matches!(row, Row::Parked { .. }));
                self.done.retain(|offset| offset.0 < to);
                self.take_over(0);
            }
        }
    }

    /// Hands messages out, as an owner does.
    fn take(&mut self, owner: usize, count: usize) {
        let (now, state) = (self.now, &mut self.owners[owner].state);
        state.expire(now);
        state.end_hold(now, HEAD);
        let Some(reserved) = state.reserved_end(now) else { return };
        let due = state.due(now, count);
        let mut left = count - due.len();
        self.hand_out(owner, due);
        while left > 0
            && let Some(range) = self.owners[owner].state.next_new(HEAD)
            && range.start < reserved
        {
            let end = range.end.min(reserved).min(range.start.after(left));
            let offsets: Vec<Offset> = (range.start.0..end.0).map(Offset).collect();
            left -= offsets.len();
            self.hand_out(owner, offsets);
        }
    }

    fn hand_out(&mut self, owner: usize, offsets: Vec<Offset>) {
        if offsets.is_empty() {
            return;
        }
        let Owner { epoch, state, deliveries, .. } = &mut self.owners[owner];
        let (epoch, deadline) = (*epoch, self.now + DEADLINE);
        for offset in &offsets {
            let earlier = self.had.iter().filter(|had| had.offset == *offset);
            for had in earlier {
                let is_over = had.is_over_for_all || (had.is_over && had.epoch == epoch);
                assert!(is_over || had.deadline <= self.now, "{offset} is with a worker");
            }
            assert!(!self.done.contains(offset), "{offset} is done");
        }
        let messages: Vec<(Offset, u32)> = offsets.iter().map(|offset| (*offset, 7)).collect();
        let (delivery, delivered) = state.hand_out(WorkerId(0), &messages, self.now);
        deliveries.push(delivery);
        for message in delivered {
            // Releases do not count, and after a replay, attempts are counted from one again.
            let mut earlier = self.had.iter().filter(|had| had.offset == message.offset);
            let has_row = self.database.rows.contains_key(&message.offset);
            assert!(message.attempt > 1 || has_row || earlier.all(|had| had.is_over));
            self.had.push(Had {
                offset: message.offset,
                epoch,
                delivery,
                deadline,
                believed: deadline,
                is_over: false,
                is_over_for_all: false,
            });
        }
    }

    fn settle(&mut self, owner: usize, delivery: DeliveryId, skip: usize, verdict: Verdict) {
        let (now, Owner { epoch, state, extended, done, .. }) = (self.now, &mut self.owners[owner]);
        state.expire(now);
        let concerned = self.had.iter_mut().enumerate();
        let concerned = concerned.filter(|(_, had)| had.delivery == delivery);
        let mut ranges = Vec::new();
        let mut expected = 0;
        for (index, had) in concerned.skip(skip) {
            ranges.push(OffsetRange { start: had.offset, end: had.offset.after(1) });
            if had.epoch != *epoch || had.is_over || had.believed <= now {
                continue;
            }
            expected += 1;
            match &verdict {
                Verdict::Extend { by } => {
                    had.believed = now + by.unwrap_or(DEADLINE);
                    // It holds for the worker once it is confirmed.
                    had.deadline = had.deadline.min(had.believed);
                    extended.push((index, had.believed));
                }
                Verdict::Acknowledge | Verdict::Reject { .. } => {
                    had.is_over = true;
                    done.push(had.offset);
                }
                Verdict::Retry { .. } | Verdict::Release => had.is_over = true,
            }
        }
        if !ranges.is_empty() {
            let settlement = Settlement { delivery: delivery.0, ranges, verdict };
            assert_eq!(state.settle(&settlement, now), expected);
        }
    }

    fn write(&mut self, owner: usize) {
        let owner = &mut self.owners[owner];
        if owner.write.is_some() {
            return;
        }
        let (extended, done) =
            (std::mem::take(&mut owner.extended), std::mem::take(&mut owner.done));
        match owner.state.take_unstored() {
            Some(mut unwritten) => {
                let part = unwritten.cut(PartLimits::OF_A_WRITE);
                assert!(unwritten.is_empty());
                let reservation = part.reservation;
                let reservation =
                    reservation.map(|it| (it.end, it.until.saturating_duration_since(self.now)));
                owner.write = Some(Write { part, reservation, extended, done });
            }
            // Nothing is to be stored for it: it is confirmed.
            None => self.confirm(extended),
        }
    }

    fn confirm(&mut self, extended: Vec<(usize, Instant)>) {
        for (index, deadline) in extended {
            // A later one may have made it shorter again.
            self.had[index].deadline = deadline.min(self.had[index].believed);
        }
    }

    fn land(&mut self, index: usize) {
        let owner = &mut self.owners[index];
        let Some(Write { part, reservation, extended, done }) = owner.write.take() else { return };
        if owner.epoch < self.epoch {
            // It knows now.
            self.owners.remove(index);
            return;
        }
        for (offset, row) in &part.rows {
            if matches!(row, Row::Retry { .. }) {
                self.done.remove(offset);
            }
        }
        owner.state.note_stored();
        self.database.store(part, 0);
        if let Some((end, left)) = reservation {
            self.reservation = Some(Reservation { end, until: self.now + left });
        }
        self.done.extend(done);
        self.confirm(extended);
    }

    /// Another owner reads what is stored, which takes so many milliseconds.
    fn take_over(&mut self, lag: u64) {
        self.epoch += 1;
        let lag = Duration::from_millis(lag);
        let mut state = self.database.load(self.policy.clone(), DeliveryId(self.epoch << 32));
        if let Some(stored) = self.reservation {
            let left = stored.until.saturating_duration_since(self.now);
            let reserved = Reservation { until: self.now + left, ..stored };
            self.now += lag;
            state = state.take_over(reserved, self.now + left);
        }
        self.owners.push(Owner {
            epoch: self.epoch,
            state,
            deliveries: Vec::new(),
            extended: Vec::new(),
            done: Vec::new(),
            write: None,
        });
    }

    fn end(&mut self) {
        let last = self.owners.len() - 1;
        if self.owners[last].epoch < self.epoch {
            return;
        }
        self.land(last);
        self.owners[last].state.shrink_reservation(self.now);
        self.write(last);
        self.land(last);
        let Some(ended) = self.owners.pop() else { return };
        let had = self.had.iter_mut().filter(|had| had.epoch == ended.epoch && had.is_over);
        had.for_each(|had| had.is_over_for_all = true);
        self.take_over(0);
    }
}

#[test]
fn no_message_is_handed_out_while_a_worker_may_settle_an_earlier_delivery_whoever_takes_over() {
    let most = prop_oneof![Just(None), (1..4u32).prop_map(Some)];
    check(1_000, (most, vec(act(), 1..80)), |(most, acts)| {
        let mut world = World::new(most);
        acts.into_iter().for_each(|act| world.act(act));
        // In the end, everything is delivered.
        world.owners.clear();
        world.take_over(0);
        for _ in 0..200 {
            world.now += Duration::from_secs(100);
            world.take(0, 100);
            world.write(0);
            world.land(0);
            // Now that it is reserved.
            world.take(0, 100);
            for delivery in std::mem::take(&mut world.owners[0].deliveries) {
                world.settle(0, delivery, 0, Verdict::Acknowledge);
            }
            world.write(0);
            world.land(0);
            if world.owners[0].state.floor() == HEAD && world.owners[0].state.exceptions() == 0 {
                return;
            }
        }
        panic!("messages were never delivered");
    });
}

/// A new owner after another one that reserved the messages before `end` for so many seconds.
fn after(end: i64, seconds: u64, now: Instant) -> State {
    let mut world = World::new(None);
    let until = now + Duration::from_secs(seconds);
    world.reservation = Some(Reservation { end: Offset(end), until });
    world.now = now;
    world.take_over(0);
    world.owners.pop().unwrap().state
}

#[test]
fn messages_that_were_not_reserved_before_are_handed_out_at_once() {
    let now = Instant::now();
    let mut state = after(30, 5, now);
    state.end_hold(now, HEAD);
    assert_eq!(state.next_new(HEAD), Some(OffsetRange { start: Offset(30), end: HEAD }));
    assert_eq!(state.next_deadline(), Some(now + Duration::from_secs(5)));
    let (_, delivered) = state.hand_out(WorkerId(1), &[(Offset(30), 7)], now);
    assert_eq!(delivered[0].attempt, 1);
    let later = now + Duration::from_secs(5);
    state.end_hold(later, HEAD);
    assert_eq!(state.next_new(HEAD), Some(OffsetRange { start: Offset(0), end: Offset(30) }));
    let (_, delivered) = state.hand_out(WorkerId(1), &[(Offset(0), 7)], later);
    assert_eq!(delivered[0].attempt, 2);
    assert_eq!(state.next_new(HEAD).map(|range| range.start), Some(Offset(1)));
}

#[test]
fn what_is_published_after_the_hold_is_new() {
    let now = Instant::now();
    let mut state = after(100, 5, now);
    let later = now + Duration::from_secs(5);
    state.end_hold(later, HEAD);
    let messages: Vec<(Offset, u32)> = (39..42).map(|offset| (Offset(offset), 7)).collect();
    let (_, delivered) = state.hand_out(WorkerId(1), &messages, later);
    assert_eq!(delivered.iter().map(|it| it.attempt).collect::<Vec<_>>(), [2, 1, 1]);
}

#[test]
fn switching_it_on_reserves_what_workers_have() {
    let now = Instant::now();
    let World { policy, database, .. } = World::new(None);
    let off = DeliveryPolicy { exactly_once: false, ..policy.clone() };
    let mut state = database.load(off.clone(), DeliveryId(1));
    assert_eq!(state.reserved_end(now), Some(Offset(i64::MAX)));
    let messages: Vec<(Offset, u32)> = (0..30).map(|offset| (Offset(offset), 7)).collect();
    let (id, _) = state.hand_out(WorkerId(1), &messages, now);
    let by = Some(Duration::from_secs(600));
    let extend = Settlement { delivery: id.0, ranges: Vec::new(), verdict: Verdict::Extend { by } };
    assert_eq!(state.settle(&extend, now), 30);
    assert!(state.take_unstored().is_none(), "it costs nothing while it is off");
    state.set_policy(policy, now);
    assert_eq!(state.reserved_end(now), None);
    let mut unwritten = state.take_unstored().unwrap();
    let reserved = unwritten.cut(PartLimits::OF_A_WRITE).reservation.unwrap();
    assert!(reserved.end >= Offset(30) && reserved.until > now + Duration::from_secs(600));
    assert_eq!(state.reserved_end(now), None, "it is not stored yet");
    state.note_stored();
    assert_eq!(state.reserved_end(now), Some(reserved.end));
    // What a worker has stays with it when it goes, until it is switched off.
    state.leave(WorkerId(1), now);
    assert_eq!(state.outstanding().messages, 30);
    state.set_policy(off, now);
    state.leave(WorkerId(1), now);
    assert_eq!(state.outstanding().messages, 0);
}
