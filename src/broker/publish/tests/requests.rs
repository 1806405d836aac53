//! Clients that publish: mostly as they should, and now and then as they should not.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;

use crate::{
    broker::publish::{
        pending::Answers,
        request::Publish,
        tests::{
            database::{CURSE, POISON, refuses_value},
            writer::Driver,
        },
    },
    model::{
        Epoch, Labels, MAX_MESSAGE_BYTES, Message, NewMessages, Offset, ProducerId, Sequence,
        TopicName,
    },
};

/// How many topics there are; one more is published to, and does not exist.
pub(crate) const TOPICS: u8 = 3;

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Publish(Request),
    /// The writer writes as much of what waits as can be stored together.
    Flush,
    /// It writes all, and whoever counts sees how far its count got.
    FlushAll,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    topic: u8,
    producer: u8,
    epoch: i64,
    count: Count,
    head: Option<Head>,
    /// How many messages, and the bytes of each.
    size: (usize, usize),
    /// What its last message has for a header, if it has any.
    text: Option<Text>,
    /// Whether it may travel together with the request before it.
    joins: bool,
}

/// What the client counts its messages by.
#[derive(Clone, Debug)]
enum Count {
    None,
    GoOn,
    /// It sends once more what it sent so many counted requests before.
    Again(usize),
    Skip(i64),
}

#[derive(Clone, Debug)]
enum Text {
    Good,
    /// A character that the database cannot store, of a few.
    Refused(u8),
    /// Something else that it refuses.
    Poison,
    /// Something that makes its statement fail.
    Curse,
}

#[derive(Clone, Debug)]
enum Head {
    AsStored,
    At(i64),
}

pub(crate) fn topic(number: u8) -> TopicName {
    TopicName::stored(["orders", "bills", "audit", "nowhere"][usize::from(number)])
}

pub(crate) fn producer(number: u8) -> ProducerId {
    ProducerId::stored(&format!("producer-{number}"))
}

/// One more publishes that is not registered.
pub(crate) fn initially_registered() -> impl Iterator<Item = ProducerId> {
    (0..3).map(producer)
}

pub(crate) fn act() -> impl Strategy<Value = Act> {
    acts((1..5usize, 0..100usize).boxed())
}

/// What comes up to the limits of a flush, in messages and in bytes.
pub(crate) fn large_act() -> impl Strategy<Value = Act> {
    let many = (1_000..9_000usize).prop_map(|count| (count, 1));
    let large = (1..6usize, 1..=1024 * 1024usize);
    acts(prop_oneof![2 => many, 3 => large, 1 => Just((1, 1))].boxed())
}

fn acts(size: BoxedStrategy<(usize, usize)>) -> impl Strategy<Value = Act> {
    let count = prop_oneof![
        3 => Just(Count::None),
        8 => Just(Count::GoOn),
        3 => (1..12usize).prop_map(Count::Again),
        1 => (-5..5i64).prop_map(Count::Skip),
    ];
    let head = prop_oneof![
        12 => Just(None),
        2 => Just(Some(Head::AsStored)),
        1 => (0..30i64).prop_map(|head| Some(Head::At(head))),
    ];
    let topic = prop_oneof![20 => 0..TOPICS, 1 => Just(TOPICS)];
    let producer = prop_oneof![30 => 0..3u8, 1 => Just(3u8)];
    let epoch = prop_oneof![15 => Just(0), 1 => Just(1)];
    let text = prop_oneof![
        12 => Just(None),
        2 => Just(Some(Text::Good)),
        2 => (0..6u8).prop_map(|number| Some(Text::Refused(number))),
        1 => Just(Some(Text::Poison)),
        1 => Just(Some(Text::Curse)),
    ];
    let request = (topic, producer, epoch, count, head, size, text, any::<bool>()).prop_map(
        |(topic, producer, epoch, count, head, size, text, joins)| {
            Act::Publish(Request { topic, producer, epoch, count, head, size, text, joins })
        },
    );
    prop_oneof![10 => request, 1 => Just(Act::Flush), 1 => Just(Act::FlushAll)]
}

/// A request of one message, of which only the topic and the header matter.
pub(crate) fn plain(of: u8, id: usize, header: Option<&str>) -> Publish {
    let headers = header.map(|value| Labels::stored([("name".into(), value.into())].into()));
    let message = Message {
        key: Some(Bytes::copy_from_slice(&id.to_be_bytes())),
        headers: headers.unwrap_or_default(),
        ..Message::default()
    };
    Publish {
        topic: topic(of),
        producer: producer(0),
        epoch: Epoch(0),
        sequence: None,
        expected_head: None,
        messages: NewMessages::parse(vec![message]).unwrap(),
    }
}

/// Whether the database refuses a message, wherever it comes.
pub(crate) fn is_refused(message: &Message) -> bool {
    message.headers.entries().values().any(|value| refuses_value(value)) || is_cursed(message)
}

/// Whether every statement with a message fails.
pub(crate) fn is_cursed(message: &Message) -> bool {
    message.headers.entries().values().any(|value| value == CURSE)
}

/// What tells messages from all others: their keys. A request that is sent once more has the same.
pub(crate) fn ids(publish: &Publish) -> impl Iterator<Item = Bytes> {
    publish.messages.as_slice().iter().map(|message| message.key.clone().unwrap())
}

#[derive(Default)]
pub(crate) struct Clients {
    /// What was enqueued, request by request, and the answers to it.
    pub enqueued: Vec<(Vec<Publish>, Answers)>,
    open: Option<(Publish, Vec<Publish>)>,
    next: HashMap<(u8, u8), Sequence>,
    counted: HashMap<(u8, u8), Vec<Publish>>,
    messages: u64,
}

impl Clients {
    pub(crate) fn act(&mut self, act: Act, driver: &mut Driver) {
        match act {
            Act::Publish(request) => self.publish(request, driver),
            Act::Flush => {
                self.send_open(driver);
                driver.write_flush();
            }
            Act::FlushAll => {
                self.send_open(driver);
                driver.write_all();
                self.next.clear();
            }
        }
    }

    fn publish(&mut self, request: Request, driver: &mut Driver) {
        let joins = request.joins;
        let sent = self.make(request, driver);
        let mut publish = sent.clone();
        if joins && let Some((open, requests)) = &mut self.open {
            match open.append(publish) {
                Ok(()) => return requests.push(sent),
                Err(refused) => publish = refused,
            }
        }
        self.send_open(driver);
        self.open = Some((publish, vec![sent]));
    }

    fn make(&mut self, request: Request, driver: &Driver) -> Publish {
        let Request {
            topic: topic_number,
            producer: producer_number,
            epoch,
            count,
            head,
            size,
            text,
            ..
        } = request;
        let who = (topic_number, producer_number);
        let (topic, producer) = (topic(topic_number), producer(producer_number));
        let counted = self.counted.entry(who).or_default();
        if let Count::Again(back) = count
            && let Some(index) = counted.len().checked_sub(back)
        {
            return counted[index].clone();
        }
        let stored = || driver.database().next_sequence(&topic, &producer);
        let next = self.next.entry(who).or_insert_with(stored);
        let sequence = match count {
            Count::None => None,
            Count::GoOn | Count::Again(_) => Some(*next),
            Count::Skip(skipped) => Some(Sequence((next.0 + skipped).max(0))),
        };
        let mut message = |size| {
            self.messages += 1;
            let payload = Bytes::from_static(&[0; 1024 * 1024]).slice(..size);
            let key = Some(Bytes::copy_from_slice(&self.messages.to_be_bytes()));
            Message { payload, key, ..Message::default() }
        };
        // A message's key and its header count too.
        let largest = MAX_MESSAGE_BYTES - 24;
        let mut messages: Vec<_> = (0..size.0).map(|_| message(size.1.min(largest))).collect();
        if let (Some(last), Some(text)) = (messages.last_mut(), text) {
            let value = match text {
                Text::Good => "gr\u{fc}n".to_owned(),
                Text::Refused(number) => ["\u{fc} \u{20ac}", "\u{4e00}"][usize::from(number) % 2]
                    .chars()
                    .chain(char::from_u32(0x5000 + u32::from(number)))
                    .collect(),
                Text::Poison => POISON.to_owned(),
                Text::Curse => CURSE.to_owned(),
            };
            last.headers = Labels::stored([("name".to_owned(), value)].into());
        }
        let messages = NewMessages::parse(messages).unwrap();
        let expected_head = head.map(|head| match head {
            Head::AsStored => driver.database().head(&topic),
            Head::At(head) => Offset(head),
        });
        let publish =
            Publish { topic, producer, epoch: Epoch(epoch), sequence, expected_head, messages };
        if sequence == Some(*next) {
            *next = next.after(publish.messages.count());
            counted.push(publish.clone());
        }
        publish
    }

    /// Enqueues the requests that are to travel together.
    pub(crate) fn send_open(&mut self, driver: &mut Driver) {
        if let Some((publish, requests)) = self.open.take() {
            self.enqueued.push((requests, driver.enqueue(publish)));
        }
    }
}
