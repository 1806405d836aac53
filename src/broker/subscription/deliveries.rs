//! The messages that workers have and have not settled: who has each, as which delivery, until when.
//!
//! A delivery is a run of messages that a worker gets together. They are found by its id and their offsets, so
//! no index by message is needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use crate::model::{Offset, OffsetRange};

/// The number of a delivery. Each of a subscription's deliveries has a greater one than those before it,
/// also after the subscription has moved to another broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DeliveryId(pub u64);

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
    items: Vec<Item>,
    /// How many of them are outstanding.
    left: usize,
    /// The first deadline of those, or an earlier time.
    deadline: Instant,
}

#[derive(Clone, Copy)]
struct Item {
    message: Delivered,
    deadline: Instant,
    is_outstanding: bool,
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
        let item = |message| Item { message, deadline, is_outstanding: true };
        let items: Vec<Item> = messages.map(item).collect();
        let added = Outstanding {
            messages: items.len(),
            bytes: items.iter().map(|item| item.message.bytes as usize).sum(),
        };
        let id = self.next;
        self.next = DeliveryId(id.0 + 1);
        if !items.is_empty() {
            self.outstanding.add(added);
            let had = self.workers.entry(worker).or_default();
            had.outstanding.add(added);
            had.deliveries.insert(id);
            self.deadlines.insert((deadline, id));
            self.by_id.insert(id, Delivery { worker, left: items.len(), items, deadline });
        }
        id
    }

    /// Takes those messages of a delivery back that are outstanding and in one of the ranges, which do
    /// not overlap.
    pub(crate) fn take(&mut self, id: DeliveryId, ranges: &[OffsetRange]) -> Vec<Delivered> {
        let Some(delivery) = self.by_id.get_mut(&id) else { return Vec::new() };
        let mut taken = Vec::new();
        ranges.iter().for_each(|range| delivery.take(*range, |_| true, &mut taken));
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
        let mut extended = 0;
        for range in ranges {
            for item in delivery.items_in(*range).iter_mut().filter(|item| item.is_outstanding) {
                item.deadline = deadline;
                extended += 1;
            }
        }
        // If it is later, the one that is noted comes too early, and is found again then.
        if deadline < delivery.deadline {
            self.note_deadline(id);
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
            delivery.take(ALL, |item| item.deadline <= now, &mut taken);
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

    /// How much all workers have.
    pub(crate) fn outstanding(&self) -> Outstanding {
        self.outstanding
    }

    fn record_taken(&mut self, id: DeliveryId, taken: &[Delivered]) {
        let Some(delivery) = self.by_id.get(&id) else { return };
        let gone = Outstanding {
            messages: taken.len(),
            bytes: taken.iter().map(|message| message.bytes as usize).sum(),
        };
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
            && left < delivery.items.len() / 4
        {
            // A few that are left must not keep the room of all.
            delivery.items.retain(|item| item.is_outstanding);
            delivery.items.shrink_to_fit();
        }
    }

    /// Finds a delivery's first deadline again.
    fn note_deadline(&mut self, id: DeliveryId) {
        let Some(delivery) = self.by_id.get_mut(&id) else { return };
        let left = delivery.items.iter().filter(|item| item.is_outstanding);
        let Some(deadline) = left.map(|item| item.deadline).min() else { return };
        self.deadlines.remove(&(delivery.deadline, id));
        delivery.deadline = deadline;
        self.deadlines.insert((deadline, id));
    }
}

impl Delivery {
    fn items_in(&mut self, range: OffsetRange) -> &mut [Item] {
        let from = self.items.partition_point(|item| item.message.offset < range.start);
        let to = self.items.partition_point(|item| item.message.offset < range.end);
        &mut self.items[from..to.max(from)]
    }

    fn take(
        &mut self,
        range: OffsetRange,
        wanted: impl Fn(&Item) -> bool,
        taken: &mut Vec<Delivered>,
    ) {
        let before = taken.len();
        for item in self.items_in(range) {
            if item.is_outstanding && wanted(item) {
                item.is_outstanding = false;
                taken.push(item.message);
            }
        }
        self.left -= taken.len() - before;
    }
}

impl Outstanding {
    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }

    fn subtract(&mut self, other: Self) {
        self.messages -= other.messages;
        self.bytes -= other.bytes;
    }
}
