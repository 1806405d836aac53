//! Clients that publish: mostly correctly, and now and then incorrectly.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;

use crate::{
    broker::publish::{
        pending::Answers,
        request::Publish,
        tests::{
            values::{CURSE, POISON, TOPICS, producer, topic},
            writer::Driver,
        },
    },
    model::{Epoch, Labels, MAX_MESSAGE_BYTES, Message, NewMessages, Offset, Sequence},
};

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Publish(Request),
    /// The writer writes as many waiting publishes as can be stored together.
    Flush,
    /// The writer writes all of them, and clients with sequences find out which sequence is next.
    FlushAll,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    topic: u8,
    producer: u8,
    epoch: i64,
    sequence: SequenceChoice,
    expected_head: Option<ExpectedHead>,
    size: Size,
    /// The header of the last message, if it has one.
    header: Option<Header>,
    /// Whether the request may join the group of the one before.
    joins: bool,
}

#[derive(Clone, Copy, Debug)]
struct Size {
    messages: usize,
    /// The bytes of each message.
    bytes: usize,
}

/// Which sequence a client gives a request.
#[derive(Clone, Debug)]
enum SequenceChoice {
    None,
    Next,
    /// Repeats the request that was sent this many sequenced requests before.
    Repeat(usize),
    /// Skips this many sequences, or goes back by as many.
    Skip(i64),
}

#[derive(Clone, Debug)]
enum Header {
    Good,
    /// One of a few characters that the database cannot store.
    Refused(u8),
    /// Another value that the database refuses.
    Poison,
    /// A value that makes its statement fail.
    Curse,
}

#[derive(Clone, Debug)]
enum ExpectedHead {
    Current,
    At(i64),
}

pub(crate) fn act() -> impl Strategy<Value = Act> {
    acts(size(1..5usize, 0..100usize).boxed())
}

/// Requests up to the limits of a flush, in messages and in bytes.
pub(crate) fn large_act() -> impl Strategy<Value = Act> {
    let many = size(1_000..9_000usize, Just(1));
    let large = size(1..6usize, 1..=1024 * 1024usize);
    let small = Just(Size { messages: 1, bytes: 1 });
    acts(prop_oneof![2 => many, 3 => large, 1 => small].boxed())
}

fn size(
    messages: impl Strategy<Value = usize>,
    bytes: impl Strategy<Value = usize>,
) -> impl Strategy<Value = Size> {
    (messages, bytes).prop_map(|(messages, bytes)| Size { messages, bytes })
}

fn acts(size: BoxedStrategy<Size>) -> impl Strategy<Value = Act> {
    let sequence = prop_oneof![
        3 => Just(SequenceChoice::None),
        8 => Just(SequenceChoice::Next),
        3 => (1..12usize).prop_map(SequenceChoice::Repeat),
        1 => (-5..5i64).prop_map(SequenceChoice::Skip),
    ];
    let expected_head = prop_oneof![
        12 => Just(None),
        2 => Just(Some(ExpectedHead::Current)),
        1 => (0..30i64).prop_map(|head| Some(ExpectedHead::At(head))),
    ];
    let topic = prop_oneof![20 => 0..TOPICS, 1 => Just(TOPICS)];
    let producer = prop_oneof![30 => 0..3u8, 1 => Just(3u8)];
    let epoch = prop_oneof![15 => Just(0), 1 => Just(1)];
    let header = prop_oneof![
        12 => Just(None),
        2 => Just(Some(Header::Good)),
        2 => (0..6u8).prop_map(|number| Some(Header::Refused(number))),
        1 => Just(Some(Header::Poison)),
        1 => Just(Some(Header::Curse)),
    ];
    let request = (topic, producer, epoch, sequence, expected_head, size, header, any::<bool>())
        .prop_map(|(topic, producer, epoch, sequence, expected_head, size, header, joins)| {
            Act::Publish(Request {
                topic,
                producer,
                epoch,
                sequence,
                expected_head,
                size,
                header,
                joins,
            })
        });
    prop_oneof![10 => request, 1 => Just(Act::Flush), 1 => Just(Act::FlushAll)]
}

/// A request of one message, of which only the topic and the header matter.
pub(crate) fn plain(topic_number: u8, id: usize, header: Option<&str>) -> Publish {
    let headers = header.map(|value| Labels::stored([("name".into(), value.into())].into()));
    let message = Message {
        key: Some(Bytes::copy_from_slice(&id.to_be_bytes())),
        headers: headers.unwrap_or_default(),
        ..Message::default()
    };
    Publish {
        topic: topic(topic_number),
        producer: producer(0),
        epoch: Epoch(0),
        sequence: None,
        expected_head: None,
        messages: NewMessages::parse(vec![message]).unwrap(),
    }
}

/// The keys of messages, which identify them. A repeated request has the same ones.
pub(crate) fn ids(publish: &Publish) -> impl Iterator<Item = Bytes> {
    publish.messages.as_slice().iter().map(|message| message.key.clone().unwrap())
}

/// A request group that was enqueued.
pub(crate) struct Enqueued {
    pub requests: Vec<Publish>,
    pub answers: Answers,
}

/// A request group that may still grow.
struct Group {
    publish: Publish,
    requests: Vec<Publish>,
}

/// The number of a topic, and of a producer that publishes to it.
type Client = (u8, u8);

#[derive(Default)]
pub(crate) struct Clients {
    pub enqueued: Vec<Enqueued>,
    group: Option<Group>,
    /// The next sequence of each client that gives its messages sequences.
    next: HashMap<Client, Sequence>,
    /// The requests of each client that had the next sequence.
    sequenced: HashMap<Client, Vec<Publish>>,
    /// How many messages were made.
    messages: u64,
}

impl Clients {
    pub(crate) fn act(&mut self, act: Act, driver: &mut Driver) {
        match act {
            Act::Publish(request) => self.publish(request, driver),
            Act::Flush => {
                self.enqueue_group(driver);
                driver.write_flush();
            }
            Act::FlushAll => {
                self.enqueue_group(driver);
                driver.write_all();
                self.next.clear();
            }
        }
    }

    fn publish(&mut self, request: Request, driver: &mut Driver) {
        let joins = request.joins;
        let sent = self.make(request, driver);
        let mut publish = sent.clone();
        if joins && let Some(group) = &mut self.group {
            match group.publish.append(publish) {
                None => return group.requests.push(sent),
                Some(refused) => publish = refused,
            }
        }
        self.enqueue_group(driver);
        self.group = Some(Group { publish, requests: vec![sent] });
    }

    fn make(&mut self, request: Request, driver: &Driver) -> Publish {
        let Request {
            topic: topic_number,
            producer: producer_number,
            epoch,
            sequence,
            expected_head,
            size,
            header,
            ..
        } = request;
        let client = (topic_number, producer_number);
        let (topic, producer) = (topic(topic_number), producer(producer_number));
        let sequenced = self.sequenced.entry(client).or_default();
        if let SequenceChoice::Repeat(back) = sequence
            && let Some(index) = sequenced.len().checked_sub(back)
        {
            return sequenced[index].clone();
        }
        let stored = || driver.database().next_sequence(&topic, &producer);
        let next = self.next.entry(client).or_insert_with(stored);
        let sequence = match sequence {
            SequenceChoice::None => None,
            SequenceChoice::Next | SequenceChoice::Repeat(_) => Some(*next),
            SequenceChoice::Skip(skipped) => Some(Sequence((next.0 + skipped).max(0))),
        };
        let mut message = |size| {
            self.messages += 1;
            let payload = Bytes::from_static(&[0; 1024 * 1024]).slice(..size);
            let key = Some(Bytes::copy_from_slice(&self.messages.to_be_bytes()));
            Message { payload, key, ..Message::default() }
        };
        // A message's key and header count too.
        let largest = MAX_MESSAGE_BYTES - 24;
        let bytes = size.bytes.min(largest);
        let mut messages: Vec<_> = (0..size.messages).map(|_| message(bytes)).collect();
        if let (Some(last), Some(header)) = (messages.last_mut(), header) {
            let value = match header {
                Header::Good => "gr\u{fc}n".to_owned(),
                Header::Refused(number) => ["\u{fc} \u{20ac}", "\u{4e00}"][usize::from(number) % 2]
                    .chars()
                    .chain(char::from_u32(0x5000 + u32::from(number)))
                    .collect(),
                Header::Poison => POISON.to_owned(),
                Header::Curse => CURSE.to_owned(),
            };
            last.headers = Labels::stored([("name".to_owned(), value)].into());
        }
        let messages = NewMessages::parse(messages).unwrap();
        let expected_head = expected_head.map(|expected| match expected {
            ExpectedHead::Current => driver.database().head(&topic),
            ExpectedHead::At(head) => Offset(head),
        });
        let publish =
            Publish { topic, producer, epoch: Epoch(epoch), sequence, expected_head, messages };
        if sequence == Some(*next) {
            *next = next.after(publish.messages.count());
            sequenced.push(publish.clone());
        }
        publish
    }

    /// Enqueues the request group.
    pub(crate) fn enqueue_group(&mut self, driver: &mut Driver) {
        if let Some(Group { publish, requests }) = self.group.take() {
            let answers = driver.enqueue(publish);
            self.enqueued.push(Enqueued { requests, answers });
        }
    }
}
