//! The messages that workers have and have not settled: who has each, as which delivery, until when.
//!
//! A delivery is a run of messages that a worker gets together. They are found by its id and their offsets, so
//! no index by message is needed. Deadlines are moved without looking at each message: a request may name large
//! deliveries thousands of times.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use crate::{
    broker::subscription::flags::Flags,
    model::{Offset, OffsetRange},
};

/// The number of a delivery. Each of a subscription's deliveries has a greater one than those before it,
/// also after the subscription has moved to another broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub u64);

/// The number of a worker: of a stream, or of a call that takes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WorkerId(pub u64);

/// A message that is handed to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub offset: Offset,
    /// How often it was delivered, with this time.
    pub attempt: u32,
    pub bytes: u32,
}

/// How much is with workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// Messages.
    pub messages: usize,
    /// Bytes of messages, encoded.
    pub bytes: usize,
}

/// All messages of a delivery.
pub(crate) const ALL: OffsetRange = OffsetRange { start: Offset(0), end: Offset(i64::MAX) };

/// What workers have.
pub(crate) struct Deliveries {
    by_id: BTreeMap<DeliveryId, Delivery>,
    /// The first deadline of each.
    deadlines: BTreeSet<(Instant, DeliveryId)>,
    next: DeliveryId,
    outstanding: Outstanding,
    /// Those workers that have something.
    workers: HashMap<WorkerId, Had>,
}

/// What a worker has.
#[derive(Default)]
struct Had {
    outstanding: Outstanding,
    deliveries: BTreeSet<DeliveryId>,
}

struct Delivery {
    worker: WorkerId,
    /// In the order of their offsets.
    messages: Vec<Delivered>,
    /// Which of them are outstanding, and how many.
    outstanding: Flags,
    left: usize,
    /// Their deadlines. Each holds from its offset on, up to the offset of the next one.
    deadlines: BTreeMap<Offset, Instant>,
    /// The first deadline of those that are outstanding, or an earlier time.
    deadline: Instant,
}

impl Deliveries {
    /// Nothing; the first delivery gets the id `first`.
    pub(crate) fn new(first: DeliveryId) -> Self {
        Self {
            by_id: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            next: first,
            outstanding: Outstanding::default(),
            workers: HashMap::new(),
        }
    }

    /// Records that messages, in the order of their offsets, are handed to a worker.
    pub(crate) fn add(
        &mut self,
        worker: WorkerId,
        messages: impl Iterator<Item = Delivered>,
        deadline: Instant,
    ) -> DeliveryId {
        let messages: Vec<Delivered> = messages.collect();
        let added = Outstanding::of(&messages);
        let id = self.next;
        self.next = DeliveryId(id.0 + 1);
        if !messages.is_empty() {
            self.outstanding.add(added);
            let had = self.workers.entry(worker).or_default();
            had.outstanding.add(added);
            had.deliveries.insert(id);
            self.deadlines.insert((deadline, id));
            self.by_id.insert(id, Delivery::new(worker, messages, deadline));
        }
        id
    }

    /// Takes those messages of a delivery back that are outstanding and in one of the ranges, which do
    /// not overlap.
    pub(crate) fn take(&mut self, id: DeliveryId, ranges: &[OffsetRange]) -> Vec<Delivered> {
        let Some(delivery) = self.by_id.get_mut(&id) else { return Vec::new() };
        let mut taken = Vec::new();
        ranges.iter().for_each(|range| delivery.take(*range, &mut taken));
        self.record_taken(id, &taken);
        taken
    }

    /// Moves the deadline of those messages of a delivery that are outstanding and in one of the ranges, which do
    /// not overlap; returns how many there are.
    pub(crate) fn extend(
        &mut self,
        id: DeliveryId,
        ranges: &[OffsetRange],
        deadline: Instant,
    ) -> usize {
        let Some(delivery) = self.by_id.get_mut(&id) else { return 0 };
        let extended: usize = ranges.iter().map(|range| delivery.extend(*range, deadline)).sum();
        // If it is later, the one that is noted comes too early, and is found again then.
        if extended > 0 && deadline < delivery.deadline {
            self.deadlines.remove(&(delivery.deadline, id));
            delivery.deadline = deadline;
            self.deadlines.insert((deadline, id));
        }
        extended
    }

    /// Takes the messages back whose deadlines have passed.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Delivered> {
        let mut expired = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
            && let Some(delivery) = self.by_id.get_mut(&id)
        {
            let mut taken = Vec::new();
            delivery.take_late(now, &mut taken);
            self.record_taken(id, &taken);
            self.note_deadline(id);
            expired.extend(taken);
        }
        expired
    }

    /// Takes everything back that a worker has.
    pub(crate) fn release(&mut self, worker: WorkerId) -> Vec<Delivered> {
        let Some(had) = self.workers.get(&worker) else { return Vec::new() };
        let ids: Vec<DeliveryId> = had.deliveries.iter().copied().collect();
        ids.into_iter().flat_map(|id| self.take(id, &[ALL])).collect()
    }

    /// How much a worker has.
    pub(crate) fn outstanding_of(&self, worker: WorkerId) -> Outstanding {
        self.workers.get(&worker).map(|had| had.outstanding).unwrap_or_default()
    }

    /// The workers that have something.
    pub(crate) fn workers(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.workers.keys().copied()
    }

    /// The next deadline, or an earlier time.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The last deadline of all.
    pub(crate) fn last_deadline(&self) -> Option<Instant> {
        self.by_id.values().filter_map(Delivery::last_deadline).max()
    }

    /// All messages that workers have.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = Offset> + '_ {
        self.by_id.values().flat_map(Delivery::open).map(|message| message.offset)
    }

    /// How much all workers have.
    pub(crate) fn outstanding(&self) -> Outstanding {
        self.outstanding
    }

    fn record_taken(&mut self, id: DeliveryId, taken: &[Delivered]) {
        let Some(delivery) = self.by_id.get(&id) else { return };
        let gone = Outstanding::of(taken);
        self.outstanding.subtract(gone);
        if let Some(had) = self.workers.get_mut(&delivery.worker) {
            had.outstanding.subtract(gone);
            if delivery.left == 0 {
                had.deliveries.remove(&id);
            }
            if had.deliveries.is_empty() {
                self.workers.remove(&delivery.worker);
            }
        }
        let (left, deadline) = (delivery.left, delivery.deadline);
        if left == 0 {
            self.deadlines.remove(&(deadline, id));
            self.by_id.remove(&id);
        } else if let Some(delivery) = self.by_id.get_mut(&id)
            && left < delivery.messages.len() / 4
        {
            // A few that are left must not keep the room of all.
            delivery.shrink();
        }
    }

    /// Finds a delivery's first deadline again.
    fn note_deadline(&mut self, id: DeliveryId) {
        let Some(delivery) = self.by_id.get_mut(&id) else { return };
        let Some(deadline) = delivery.first_deadline() else { return };
        self.deadlines.remove(&(delivery.deadline, id));
        delivery.deadline = deadline;
        self.deadlines.insert((deadline, id));
    }
}

impl Delivery {
    /// A delivery of some messages, at least one.
    fn new(worker: WorkerId, messages: Vec<Delivered>, deadline: Instant) -> Self {
        let (outstanding, left) = (Flags::all(messages.len()), messages.len());
        let deadlines = BTreeMap::from([(messages[0].offset, deadline)]);
        Self { worker, messages, outstanding, left, deadlines, deadline }
    }

    /// Where the messages of a range are.
    fn indices(&self, range: OffsetRange) -> (usize, usize) {
        let from = self.messages.partition_point(|message| message.offset < range.start);
        let to = self.messages.partition_point(|message| message.offset < range.end);
        (from, to.max(from))
    }

    /// Takes those messages of a range that are outstanding.
    fn take(&mut self, range: OffsetRange, taken: &mut Vec<Delivered>) {
        let (from, to) = self.indices(range);
        let found = self.outstanding.take(from, to);
        self.left -= found.len();
        taken.extend(found.into_iter().map(|index| self.messages[index]));
    }

    /// Takes the messages whose deadlines have passed.
    fn take_late(&mut self, now: Instant, taken: &mut Vec<Delivered>) {
        let late = self.with_deadlines().filter(|(_, deadline)| *deadline <= now);
        let late: Vec<OffsetRange> = late.map(|(range, _)| range).collect();
        late.into_iter().for_each(|range| self.take(range, taken));
    }

    /// Moves the deadline of those messages of a range that are outstanding; returns how many there are.
    fn extend(&mut self, range: OffsetRange, deadline: Instant) -> usize {
        let (from, to) = self.indices(range);
        let extended = self.outstanding.count(from, to);
        if extended > 0 {
            let start = self.messages[from].offset;
            let end = self.messages.get(to).map(|next| next.offset);
            // Those that follow keep theirs.
            if let Some(end) = end
                && let Some((_, theirs)) = self.deadlines.range(..=end).next_back()
            {
                let theirs = *theirs;
                self.deadlines.insert(end, theirs);
            }
            let within = self.deadlines.range(start..end.unwrap_or(ALL.end));
            let within: Vec<Offset> = within.map(|(at, _)| *at).collect();
            for at in within {
                self.deadlines.remove(&at);
            }
            self.deadlines.insert(start, deadline);
        }
        extended
    }

    /// The ranges of messages that have the same deadline.
    fn with_deadlines(&self) -> impl Iterator<Item = (OffsetRange, Instant)> + '_ {
        let ends = self.deadlines.keys().skip(1).copied().chain([ALL.end]);
        let ranges = self.deadlines.iter().zip(ends);
        ranges.map(|((start, deadline), end)| (OffsetRange { start: *start, end }, *deadline))
    }

    /// The ranges of those that are outstanding.
    fn with_open_deadlines(&self) -> impl Iterator<Item = (OffsetRange, Instant)> + '_ {
        self.with_deadlines().filter(|(range, _)| {
            let (from, to) = self.indices(*range);
            self.outstanding.count(from, to) > 0
        })
    }

    fn first_deadline(&self) -> Option<Instant> {
        self.with_open_deadlines().map(|(_, deadline)| deadline).min()
    }

    fn last_deadline(&self) -> Option<Instant> {
        self.with_open_deadlines().map(|(_, deadline)| deadline).max()
    }

    /// Those that are outstanding.
    fn open(&self) -> impl Iterator<Item = &Delivered> {
        let messages = self.messages.iter().enumerate();
        let open = messages.filter(|(index, _)| self.outstanding.count(*index, index + 1) > 0);
        open.map(|(_, message)| message)
    }

    /// Forgets the messages that are not outstanding.
    fn shrink(&mut self) {
        let open = self.with_open_deadlines().map(|(range, deadline)| (range.start, deadline));
        self.deadlines = open.collect();
        let left = self.outstanding.take(0, self.messages.len());
        self.messages = left.into_iter().map(|index| self.messages[index]).collect();
        self.outstanding = Flags::all(self.messages.len());
    }
}

impl Outstanding {
    fn of(messages: &[Delivered]) -> Self {
        let bytes = messages.iter().map(|message| message.bytes as usize).sum();
        Self { messages: messages.len(), bytes }
    }

    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }

    fn subtract(&mut self, other: Self) {
        self.messages -= other.messages;
        self.bytes -= other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WORKER: WorkerId = WorkerId(1);

    fn delivered(offset: i64) -> Delivered {
        Delivered { offset: Offset(offset), attempt: 1, bytes: 7 }
    }

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange { start: Offset(start), end: Offset(end) }
    }

    #[test]
    fn deadlines_of_ranges_pass_in_their_order_and_extending_again_keeps_no_more_of_them() {
        let (began, mut deliveries) = (Instant::now(), Deliveries::new(DeliveryId(1)));
        let after = |seconds| began + Duration::from_secs(seconds);
        let id = deliveries.add(WORKER, (100..1_100).map(delivered), after(10));
        assert_eq!(deliveries.extend(id, &[range(0, 200), range(500, 600)], after(30)), 200);
        assert_eq!(deliveries.extend(id, &[range(150, 550)], after(20)), 400);
        assert_eq!(deliveries.extend(id, &[range(1_099, 5_000)], after(5)), 1);
        assert_eq!(deliveries.extend(id, &[range(1_100, 5_000)], after(5)), 0);
        let mut expired = |seconds| {
            let expired = deliveries.expire(after(seconds));
            expired.iter().map(|it| it.offset.0).collect::<Vec<_>>()
        };
        assert!(expired(4).is_empty());
        assert_eq!(expired(5), [1_099]);
        assert_eq!(expired(10), (600..1_099).collect::<Vec<_>>());
        assert_eq!(expired(29), (150..550).collect::<Vec<_>>());
        assert_eq!(deliveries.outstanding(), Outstanding { messages: 100, bytes: 700 });
        assert_eq!(deliveries.next_deadline(), Some(after(30)));
        for number in 0..10_000 {
            let part = [range(100 + number % 50, 1_000)];
            let which = if number % 2 == 0 { &part } else { &[ALL] };
            deliveries.extend(id, which, after(40 + number as u64));
        }
        assert!(deliveries.by_id[&id].deadlines.len() < 5);
        assert_eq!(deliveries.expire(after(100_000)).len(), 100);
        assert_eq!(deliveries.next_deadline(), None);
    }

    #[test]
    fn a_delivery_of_which_few_messages_are_left_keeps_their_deadlines() {
        let (began, mut deliveries) = (Instant::now(), Deliveries::new(DeliveryId(1)));
        let after = |seconds| began + Duration::from_secs(seconds);
        let id = deliveries.add(WORKER, (0..1_000).map(delivered), after(10));
        assert_eq!(deliveries.extend(id, &[range(900, 910)], after(20)), 10);
        assert_eq!(deliveries.take(id, &[range(0, 905)]).len(), 905);
        assert_eq!(deliveries.by_id[&id].messages.len(), 95);
        assert_eq!(deliveries.extend(id, &[range(0, 902)], after(30)), 0);
        assert_eq!(deliveries.expire(after(15)).len(), 90);
        assert_eq!(deliveries.expire(after(20)).len(), 5);
    }
}
