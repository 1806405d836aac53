//! Readers of topics, and whatever may tell them that there is more.

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
            log::Stored,
        },
    },
    model::{LogEnds, Offset, TopicId},
};

const TOPICS: usize = 2;

#[derive(Clone, Debug)]
enum Act {
    /// This broker stores messages.
    Store(usize, usize),
    /// Another broker does; its hint comes later.
    StoreElsewhere(usize, usize),
    /// A hint comes, or the answer to a poll, however old it is.
    Hear(Index),
    Poll(usize),
    Come(usize),
    Run(Index),
    Leave(Index),
    ClearCache,
    Delete(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let topic = || 0..TOPICS;
    let count = || 1..4usize;
    prop_oneof![
        6 => (topic(), count()).prop_map(|(topic, count)| Act::Store(topic, count)),
        4 => (topic(), count()).prop_map(|(topic, count)| Act::StoreElsewhere(topic, count)),
        4 => any::<Index>().prop_map(Act::Hear),
        2 => topic().prop_map(Act::Poll),
        5 => topic().prop_map(Act::Come),
        30 => any::<Index>().prop_map(Act::Run),
        2 => any::<Index>().prop_map(Act::Leave),
        1 => Just(Act::ClearCache),
        1 => topic().prop_map(Act::Delete),
    ]
}

/// What will be heard.
enum News {
    Head(TopicId, Offset),
    Ends(TopicId, Offset),
    Gone(TopicId),
}

#[derive(Default)]
struct Topic {
    stored: Stored,
    deleted: bool,
}

type Topics = Rc<RefCell<[Topic; TOPICS]>>;

struct Reader<'a> {
    topic: usize,
    task: ByHand<'a, ()>,
    ended: bool,
    position: Rc<Cell<Offset>>,
    /// The head that its log tells, once it has joined, and the last one that was seen there.
    head: Rc<RefCell<Option<watch::Receiver<Offset>>>>,
    seen: Offset,
}

impl Reader<'_> {
    fn new(topic: usize, topics: Topics, logs: Arc<TopicLogs>) -> Self {
        let (position, head) = (Rc::<Cell<_>>::default(), Rc::<RefCell<_>>::default());
        let task = read(topic, topics, logs, position.clone(), head.clone());
        let (task, seen) = (ByHand::new(task), Offset(0));
        Self { topic, task, ended: false, position, head, seen }
    }

    fn run(&mut self) {
        self.ended = self.ended || self.task.run() == Poll::Ready(());
    }

    fn see_head(&mut self) {
        if let Some(head) = &*self.head.borrow() {
            let head = *head.borrow();
            assert!(head >= self.seen, "a head went back");
            self.seen = head;
        }
    }
}

/// Reads a topic as a stream does it: what may come at each await is chosen by the test.
async fn read(
    topic: usize,
    topics: Topics,
    logs: Arc<TopicLogs>,
    position: Rc<Cell<Offset>>,
    told: Rc<RefCell<Option<watch::Receiver<Offset>>>>,
) {
    let head = topics.borrow()[topic].stored.head();
    pause().await;
    let mut log = logs.begin().join(TopicId(topic as i32), LogEnds { start: Offset(0), head });
    *told.borrow_mut() = Some(log.head.clone());
    let gone = log.deleted();
    let mut behind = true;
    loop {
        // Noted before the read: what comes while it runs still wakes us.
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
            () = gone.cancelled() => return,
        }
    }
}

#[test]
fn no_reader_misses_what_it_was_told_of_and_no_head_goes_back() {
    check(128, vec(act(), 1..150), |acts| {
        let (logs, topics) = (Arc::new(TopicLogs::default()), Topics::default());
        let mut news = Vec::new();
        let mut readers: Vec<Reader> = Vec::new();
        for act in acts {
            let id = |topic| TopicId(topic as i32);
            match act {
                Act::Store(topic, count) if !topics.borrow()[topic].deleted => {
                    let batch = topics.borrow_mut()[topic].stored.store(&vec![8; count]);
                    logs.batch_stored(id(topic), (*batch).clone());
                }
                Act::StoreElsewhere(topic, count) if !topics.borrow()[topic].deleted => {
                    let end = topics.borrow_mut()[topic].stored.store(&vec![8; count]).end();
                    news.push(News::Head(id(topic), end));
                }
                Act::Poll(topic) if !topics.borrow()[topic].deleted => {
                    news.push(News::Ends(id(topic), topics.borrow()[topic].stored.head()));
                }
                Act::Delete(topic) => {
                    topics.borrow_mut()[topic].deleted = true;
                    news.push(News::Gone(id(topic)));
                }
                Act::Hear(index) if !news.is_empty() => {
                    receive(&logs, news.swap_remove(index.index(news.len())));
                }
                Act::Come(topic) => readers.push(Reader::new(topic, topics.clone(), logs.clone())),
                Act::Run(index) if !readers.is_empty() => {
                    index.get_mut(&mut readers).run();
                }
                Act::Leave(index) if !readers.is_empty() => {
                    drop(readers.swap_remove(index.index(readers.len())));
                }
                Act::ClearCache => logs.clear_cache(),
                _ => {}
            }
            readers.iter_mut().for_each(Reader::see_head);
        }
        news.into_iter().for_each(|news| receive(&logs, news));
        // Each comes to its topic's end within as many reads as there can be.
        for _ in 0..500 {
            readers.iter_mut().for_each(Reader::run);
        }
        for reader in &readers {
            let topic = &topics.borrow()[reader.topic];
            let caught_up = reader.position.get() == topic.stored.head();
            assert!(if topic.deleted { reader.ended } else { caught_up });
        }
        drop(readers);
        assert!(logs.heads().is_empty(), "the last reader takes the log along");
    });
}

fn receive(logs: &Arc<TopicLogs>, news: News) {
    match news {
        News::Head(topic, head) => logs.head_moved(topic, head),
        News::Ends(topic, head) => {
            logs.begin().observe(topic, LogEnds { start: Offset(0), head });
        }
        News::Gone(topic) => logs.topic_deleted(topic),
    }
}
