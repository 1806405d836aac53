//! Readers of topics, and everything that may wake them.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use proptest::{collection::vec, prelude::*, sample::Index};
use tokio::sync::watch;

use crate::{
    broker::{
        log::topics::TopicLogs,
        testing::{
            by_hand::{ByHand, pause},
            check,
            log::StoredLog,
        },
    },
    model::{LogEnds, Offset, TopicId},
};

const TOPICS: usize = 2;

#[derive(Clone, Debug)]
enum Act {
    /// This broker stores messages.
    Store {
        topic: usize,
        count: usize,
    },
    /// Another broker stores messages; its notification comes later.
    StoreElsewhere {
        topic: usize,
        count: usize,
    },
    /// A notification or the answer to a poll arrives, however old it is.
    Receive(Index),
    Poll {
        topic: usize,
    },
    Join {
        topic: usize,
    },
    Run(Index),
    Leave(Index),
    ClearCache,
    Delete {
        topic: usize,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let topic = || 0..TOPICS;
    let count = || 1..4usize;
    prop_oneof![
        6 => (topic(), count()).prop_map(|(topic, count)| Act::Store { topic, count }),
        4 => (topic(), count()).prop_map(|(topic, count)| Act::StoreElsewhere { topic, count }),
        4 => any::<Index>().prop_map(Act::Receive),
        2 => topic().prop_map(|topic| Act::Poll { topic }),
        5 => topic().prop_map(|topic| Act::Join { topic }),
        30 => any::<Index>().prop_map(Act::Run),
        2 => any::<Index>().prop_map(Act::Leave),
        1 => Just(Act::ClearCache),
        1 => topic().prop_map(|topic| Act::Delete { topic }),
    ]
}

/// What this broker has yet to receive.
enum Underway {
    Notification { topic: TopicId, head: Offset },
    PollAnswer { topic: TopicId, head: Offset },
    Deletion { topic: TopicId },
}

#[derive(Default)]
struct Topic {
    stored: StoredLog,
    deleted: bool,
}

type Topics = Rc<RefCell<[Topic; TOPICS]>>;

struct Reader<'a> {
    topic: usize,
    task: ByHand<'a, ()>,
    ended: bool,
    position: Rc<Cell<Offset>>,
    /// The head that its log announces, once it has joined.
    head: Rc<RefCell<Option<watch::Receiver<Offset>>>>,
    /// The last head that was seen there.
    seen_head: Offset,
}

impl Reader<'_> {
    fn new(topic: usize, topics: Topics, logs: Arc<TopicLogs>) -> Self {
        let (position, head) = (Rc::<Cell<_>>::default(), Rc::<RefCell<_>>::default());
        let task = read(topic, topics, logs, position.clone(), head.clone());
        let (task, seen_head) = (ByHand::new(task), Offset(0));
        Self { topic, task, ended: false, position, head, seen_head }
    }

    fn run(&mut self) {
        self.ended = self.ended || self.task.run() == Poll::Ready(());
    }

    fn check_head(&mut self) {
        if let Some(head) = &*self.head.borrow() {
            let head = *head.borrow();
            assert!(head >= self.seen_head, "a head moved back");
            self.seen_head = head;
        }
    }
}

/// Reads a topic as a stream does. At each await, the test chooses what happens.
async fn read(
    topic: usize,
    topics: Topics,
    logs: Arc<TopicLogs>,
    position: Rc<Cell<Offset>>,
    announced_head: Rc<RefCell<Option<watch::Receiver<Offset>>>>,
) {
    let head = topics.borrow()[topic].stored.head();
    pause().await;
    let mut log = logs.begin().join(TopicId(topic as i32), LogEnds { start: Offset(0), head });
    *announced_head.borrow_mut() = Some(log.head.clone());
    let deleted = log.deleted();
    let mut behind = true;
    loop {
        // Noted before the read: a head that moves during it still wakes the reader.
        let known = *log.head.borrow_and_update();
        if behind || position.get() < known {
            pause().await;
            let mut found = log.cached(position.get(), usize::MAX);
            if found.is_empty() {
                if topics.borrow()[topic].deleted {
                    return;
                }
                found = topics.borrow()[topic].stored.read(position.get(), 20).batches;
            }
            pause().await;
            behind = !found.is_empty();
            for batch in found {
                assert!(batch.base <= position.get() && position.get() < batch.end());
                position.set(batch.end());
            }
            if behind {
                continue;
            }
        }
        tokio::select! {
            _ = log.head.changed() => {}
            () = deleted.cancelled() => return,
        }
    }
}

#[test]
fn no_reader_misses_a_head_and_no_head_moves_back() {
    check(128, vec(act(), 1..150), |acts| {
        let (logs, topics) = (Arc::new(TopicLogs::default()), Topics::default());
        let mut under_way = Vec::new();
        let mut readers: Vec<Reader> = Vec::new();
        for act in acts {
            let id = |topic| TopicId(topic as i32);
            match act {
                Act::Store { topic, count } if !topics.borrow()[topic].deleted => {
                    let batch = topics.borrow_mut()[topic].stored.store(&vec![8; count]);
                    logs.batch_stored(id(topic), (*batch).clone());
                }
                Act::StoreElsewhere { topic, count } if !topics.borrow()[topic].deleted => {
                    let end = topics.borrow_mut()[topic].stored.store(&vec![8; count]).end();
                    under_way.push(Underway::Notification { topic: id(topic), head: end });
                }
                Act::Poll { topic } if !topics.borrow()[topic].deleted => {
                    let head = topics.borrow()[topic].stored.head();
                    under_way.push(Underway::PollAnswer { topic: id(topic), head });
                }
                Act::Delete { topic } => {
                    topics.borrow_mut()[topic].deleted = true;
                    under_way.push(Underway::Deletion { topic: id(topic) });
                }
                Act::Receive(index) if !under_way.is_empty() => {
                    receive(&logs, under_way.swap_remove(index.index(under_way.len())));
                }
                Act::Join { topic } => {
                    readers.push(Reader::new(topic, topics.clone(), logs.clone()))
                }
                Act::Run(index) if !readers.is_empty() => {
                    index.get_mut(&mut readers).run();
                }
                Act::Leave(index) if !readers.is_empty() => {
                    drop(readers.swap_remove(index.index(readers.len())));
                }
                Act::ClearCache => logs.clear_cache(),
                _ => {}
            }
            readers.iter_mut().for_each(Reader::check_head);
        }
        under_way.into_iter().for_each(|underway| receive(&logs, underway));
        // Enough runs for each reader to reach its topic's end.
        for _ in 0..500 {
            readers.iter_mut().for_each(Reader::run);
        }
        for reader in &readers {
            let topic = &topics.borrow()[reader.topic];
            let caught_up = reader.position.get() == topic.stored.head();
            assert!(if topic.deleted { reader.ended } else { caught_up });
        }
        drop(readers);
        assert!(logs.heads().is_empty(), "the last reader to go removes the log");
    });
}

fn receive(logs: &Arc<TopicLogs>, underway: Underway) {
    match underway {
        Underway::Notification { topic, head } => logs.head_moved(topic, head),
        Underway::PollAnswer { topic, head } => {
            logs.begin().observe(topic, LogEnds { start: Offset(0), head });
        }
        Underway::Deletion { topic } => logs.topic_deleted(topic),
    }
}
