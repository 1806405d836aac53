//! Builds short histories by hand, for the tests of the checks. The topic is `t` unless changed.

mod workers;

use std::sync::Arc;

use crate::history::{Event, Run, Stage, Values, What};

use super::{Figures, LostOffsets, check};

/// A run: its offset, producer, first value and count.
pub type ShortRun<'a> = (i64, &'a str, i64, i64);

pub struct Story {
    events: Vec<Event>,
    operations: u64,
    topic: Arc<str>,
}

impl Story {
    pub fn new() -> Self {
        Self { events: Vec::new(), operations: 0, topic: "t".into() }
    }

    /// Switches to another topic.
    pub fn on(&mut self, topic: &str) {
        self.topic = topic.into();
    }

    pub fn write(&mut self, client: &str, op: u64, stage: Stage, what: What) {
        let at = self.events.len() as u64;
        self.events.push(Event { at, client: client.into(), op, stage, what });
    }

    fn invoke(&mut self, client: &str, what: What) -> u64 {
        self.operations += 1;
        self.write(client, self.operations, Stage::Invoke, what);
        self.operations
    }

    fn end(&mut self, op: u64, stage: Stage, what: What) {
        self.write("client", op, stage, what);
    }

    pub fn publish(
        &mut self,
        producer: &str,
        first: i64,
        count: i64,
        sequence: Option<i64>,
    ) -> u64 {
        let (topic, values) =
            (self.topic.clone(), Values { producer: producer.into(), first, count });
        self.invoke(producer, What::Publish { topic, values, sequence })
    }

    pub fn stored(&mut self, op: u64, first_offset: i64) {
        self.end(op, Stage::Ok, What::Published { first_offset, duplicate: false });
    }

    pub fn stored_again(&mut self, op: u64, first_offset: i64) {
        self.end(op, Stage::Ok, What::Published { first_offset, duplicate: true });
    }

    /// Publishes values without a sequence, with an acknowledgement.
    pub fn publish_at(&mut self, producer: &str, first: i64, count: i64, offset: i64) {
        let publish = self.publish(producer, first, count, None);
        self.stored(publish, offset);
    }

    pub fn refused(&mut self, op: u64) {
        self.end(op, Stage::Fail, refusal());
    }

    pub fn unknown(&mut self, op: u64) {
        self.end(op, Stage::Info, refusal());
    }

    pub fn consume(&mut self, consumer: &str, manual: bool) -> u64 {
        let (topic, consumer) = (self.topic.clone(), consumer.into());
        self.invoke("client", What::Consume { topic, consumer, manual, take_over: false })
    }

    pub fn frame(&mut self, op: u64, frame: What) {
        self.write("client", op, Stage::Note, frame);
    }

    pub fn attached(&mut self, op: u64, position: i64, epoch: i64) {
        self.frame(op, What::Attached { position, head: position, epoch, seek_epoch: 0 });
    }

    pub fn repositioned(&mut self, op: u64, position: i64, epoch: i64) {
        self.frame(op, What::Repositioned { position, epoch });
    }

    pub fn delivered(&mut self, op: u64, runs: &[ShortRun<'_>]) {
        self.frame(op, What::Delivered { runs: all(runs) });
    }

    pub fn gap(&mut self, op: u64, from: i64, to: i64) {
        self.frame(op, What::Gap { from, to });
    }

    pub fn left(&mut self, op: u64) {
        self.end(op, Stage::Ok, What::Left);
    }

    pub fn registered(&mut self, consumer: &str, position: i64) {
        let (topic, consumer) = (self.topic.clone(), consumer.into());
        self.write("run", 0, Stage::Note, What::Registered { topic, consumer, position });
    }

    pub fn keeps(&mut self, messages: i64) {
        let topic = self.topic.clone();
        self.write("run", 0, Stage::Note, What::Keeps { topic, messages });
    }

    /// The broker ends a stream with a reason.
    pub fn ended(&mut self, op: u64, reason: &str) {
        let (code, message) = ("Unavailable".into(), String::new());
        self.end(op, Stage::Fail, What::Refused { code, reason: reason.into(), message });
    }

    pub fn commit(&mut self, consumer: &str, epoch: i64, position: i64) -> u64 {
        let (topic, consumer) = (self.topic.clone(), consumer.into());
        self.invoke("client", What::Commit { topic, consumer, epoch, position })
    }

    pub fn committed(&mut self, op: u64) {
        self.end(op, Stage::Ok, What::Committed);
    }

    pub fn commit_accepted(&mut self, consumer: &str, epoch: i64, position: i64) {
        let commit = self.commit(consumer, epoch, position);
        self.committed(commit);
    }

    pub fn seek(&mut self, consumer: &str) -> u64 {
        let (topic, consumer) = (self.topic.clone(), consumer.into());
        self.invoke("client", What::Seek { topic, consumer })
    }

    pub fn sought(&mut self, op: u64, position: i64) {
        self.end(op, Stage::Ok, What::Sought { position });
    }

    pub fn trim(&mut self, before: i64) -> u64 {
        self.invoke("run", What::Trim { topic: self.topic.clone(), before })
    }

    pub fn trimmed(&mut self, op: u64, first_offset: i64) {
        self.end(op, Stage::Ok, What::Trimmed { first_offset });
    }

    pub fn position(&mut self, consumer: &str, position: i64, epoch: i64) {
        let (topic, consumer) = (self.topic.clone(), consumer.into());
        self.write("observer", 0, Stage::Note, What::Position { topic, consumer, position, epoch });
    }

    pub fn log_ends(&mut self, first: i64, head: i64) {
        let topic = self.topic.clone();
        self.write("observer", 0, Stage::Note, What::LogEnds { topic, first, head });
    }

    pub fn fault(&mut self, begins: bool) {
        self.write("run", 0, Stage::Note, What::Fault { name: "kill".into(), begins });
    }

    pub fn table(&mut self, first: i64, head: i64, runs: &[ShortRun<'_>]) {
        let (topic, runs) = (self.topic.clone(), all(runs));
        self.write("run", 0, Stage::Note, What::Table { topic, first, head, runs });
    }

    pub fn fresh(&mut self, broker: &str, runs: &[ShortRun<'_>]) {
        let (topic, broker, runs) = (self.topic.clone(), broker.into(), all(runs));
        self.write("run", 0, Stage::Note, What::FreshRead { topic, broker, runs });
    }

    pub fn events(&self) -> &[Event] {
        &self.events
    }

    pub fn figures(&self) -> Figures {
        check(&self.events).figures
    }

    pub fn lost(&self) -> Vec<LostOffsets> {
        check(&self.events).lost
    }

    /// The violations that a check found.
    pub fn found(&self, name: &str) -> Vec<String> {
        let violations = check(&self.events).violations.into_iter();
        violations.filter(|one| one.check == name).map(|one| one.text).collect()
    }

    pub fn assert_clean(&self) {
        assert_eq!(check(&self.events).violations, []);
    }

    /// Checks that only one check finds violations, one of which contains these words.
    pub fn assert_only(&self, name: &str, words: &str) {
        let violations = check(&self.events).violations;
        let mut others = violations.iter().filter(|one| one.check != name);
        assert_eq!(others.next(), None);
        self.assert_finds(name, words);
    }

    /// Checks that a check finds a violation that contains these words.
    pub fn assert_finds(&self, name: &str, words: &str) {
        let found = self.found(name);
        assert!(found.iter().any(|text| text.contains(words)), "{name} found {found:?}");
    }
}

fn refusal() -> What {
    let (code, reason, message) = ("UNAVAILABLE".into(), String::new(), String::new());
    What::Refused { code, reason, message }
}

fn all(runs: &[ShortRun<'_>]) -> Vec<Run> {
    let run = |&(offset, producer, first, count): &ShortRun<'_>| Run {
        offset,
        values: Values { producer: producer.into(), first, count },
    };
    runs.iter().map(run).collect()
}
