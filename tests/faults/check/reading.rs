//! Builds the index from the lines of a history.
//!
//! Lines that contradict others are kept: ignoring them could make a bad history pass.

use std::collections::HashMap;

use crate::history::{Event, Stage, What};

use super::{
    index::{FreshRead, Index},
    log::Log,
    operations::{
        Commit, Handed, Line, LogEnds, Outcome, Position, Publish, RowRead, Seek, Settle, Stored,
        Stream, Subscription, Trim,
    },
    piece::Piece,
};

/// Where an operation is in the index: its owner, and its number among the owner's.
#[derive(Clone, Copy)]
enum Place<'a> {
    Publish(usize),
    Stream((&'a str, &'a str), usize),
    Commit((&'a str, &'a str), usize),
    Seek((&'a str, &'a str), usize),
    Work((&'a str, &'a str)),
    Settle((&'a str, &'a str), usize),
    Trim(&'a str, usize),
}

pub struct Reading<'a> {
    index: Index<'a>,
    /// The started operations by number, each with the line of its end.
    begun: HashMap<u64, (Place<'a>, Option<Line>)>,
    /// The last line of each client.
    last: HashMap<&'a str, Line>,
}

impl<'a> Reading<'a> {
    pub fn of(events: &'a [Event]) -> Index<'a> {
        let (begun, last) = (HashMap::new(), HashMap::new());
        let mut reading = Self { index: Index::default(), begun, last };
        for (line, event) in (1..).zip(events) {
            let fits = match event.stage {
                Stage::Invoke => reading.begin(line, event),
                Stage::Note => reading.note(line, event),
                Stage::Ok | Stage::Fail | Stage::Info => reading.end(line, event),
            };
            if let Err(why) = fits {
                let Event { op, client, .. } = event;
                let contradiction = format!("line {line}, of {client}'s operation {op}: {why}");
                reading.index.contradictions.push(contradiction);
            }
            reading.last.insert(&event.client, line);
        }
        reading.index
    }

    fn begin(&mut self, invoked: Line, event: &'a Event) -> Result<(), &'static str> {
        let (op, index, outcome) = (event.op, &mut self.index, Outcome::Unknown);
        let place = match &event.what {
            What::Publish { topic, values, sequence } => {
                index.topics.entry(topic).or_default();
                let (client, sequence, stored) = (&*event.client, *sequence, None);
                let publish =
                    Publish { op, client, invoked, topic, values, sequence, outcome, stored };
                Place::Publish(push(&mut index.publishes, publish))
            }
            What::Consume { topic, consumer, manual, .. } => {
                index.topics.entry(topic).or_default();
                let key = (&**topic, &**consumer);
                let (ended, manual, frames) = (None, *manual, Vec::new());
                let has_reason = false;
                let stream =
                    Stream { op, invoked, ended, has_reason, topic, consumer, manual, frames };
                Place::Stream(
                    key,
                    push(&mut index.consumers.entry(key).or_default().streams, stream),
                )
            }
            What::Commit { topic, consumer, epoch, position } => {
                let key = (&**topic, &**consumer);
                let (epoch, position) = (*epoch, *position);
                let commit = Commit { op, invoked, epoch, position, outcome };
                Place::Commit(
                    key,
                    push(&mut index.consumers.entry(key).or_default().commits, commit),
                )
            }
            What::Seek { topic, consumer } => {
                let (key, seek) = ((&**topic, &**consumer), Seek { invoked, outcome });
                Place::Seek(key, push(&mut index.consumers.entry(key).or_default().seeks, seek))
            }
            What::Work { topic, consumer } => {
                index.topics.entry(topic).or_default();
                let key = (&**topic, &**consumer);
                index.consumers.entry(key).or_default();
                Place::Work(key)
            }
            What::Settle { topic, consumer, settlements } => {
                let key = (&**topic, &**consumer);
                let settle = Settle { op, settlements, outcome, applied: &[] };
                let settles = &mut index.consumers.entry(key).or_default().settles;
                Place::Settle(key, push(settles, settle))
            }
            What::Trim { topic, before } => {
                let trim = Trim { op, before: *before, first: None };
                Place::Trim(topic, push(&mut index.topics.entry(topic).or_default().trims, trim))
            }
            _ => return Err("no operation starts like this"),
        };
        index.operations += 1;
        match self.begun.insert(op, (place, None)) {
            None => Ok(()),
            Some(_) => Err("another operation has the same number"),
        }
    }

    fn end(&mut self, line: Line, event: &'a Event) -> Result<(), &'static str> {
        let index = &mut self.index;
        let Some((place, ended)) = self.begun.get_mut(&event.op) else {
            return Err("it ends without having started");
        };
        if ended.replace(line).is_some() {
            return Err("it ends again");
        }
        if let Place::Stream(key, number) = *place {
            let stream = &mut index.consumers.get_mut(&key).unwrap().streams[number];
            stream.ended = Some(line);
            stream.has_reason = matches!(
                &event.what,
                What::Refused { reason, .. } if !reason.is_empty()
            );
        }
        let outcome = match event.stage {
            Stage::Ok => Outcome::Done(line),
            Stage::Fail => Outcome::NotDone,
            Stage::Info | Stage::Invoke | Stage::Note => Outcome::Unknown,
        };
        // An answer to another kind of operation leaves the outcome unknown.
        match (*place, outcome, &event.what) {
            (
                Place::Publish(number),
                Outcome::Done(_),
                What::Published { first_offset, duplicate },
            ) => {
                let publish = &mut index.publishes[number];
                let (first_offset, duplicate) = (*first_offset, *duplicate);
                publish.outcome = outcome;
                publish.stored = Some(Stored { first_offset, duplicate });
            }
            (Place::Commit(key, number), Outcome::Done(_), What::Committed) => {
                index.consumers.get_mut(&key).unwrap().commits[number].outcome = outcome;
            }
            (Place::Seek(key, number), Outcome::Done(_), What::Sought { .. }) => {
                index.consumers.get_mut(&key).unwrap().seeks[number].outcome = outcome;
            }
            (Place::Trim(topic, number), Outcome::Done(_), What::Trimmed { first_offset }) => {
                index.topics.get_mut(topic).unwrap().trims[number].first = Some(*first_offset);
            }
            (Place::Settle(key, number), Outcome::Done(_), What::Settled { applied }) => {
                let settle = &mut index.consumers.get_mut(&key).unwrap().settles[number];
                settle.outcome = outcome;
                settle.applied = applied;
            }
            (Place::Stream(..) | Place::Work(_), Outcome::Done(_), What::Left) => {}
            (_, Outcome::Done(_), _) => return Err("the answer is for another kind of operation"),
            (Place::Publish(number), ..) => index.publishes[number].outcome = outcome,
            (Place::Commit(key, number), ..) => {
                index.consumers.get_mut(&key).unwrap().commits[number].outcome = outcome;
            }
            (Place::Seek(key, number), ..) => {
                index.consumers.get_mut(&key).unwrap().seeks[number].outcome = outcome;
            }
            (Place::Settle(key, number), ..) => {
                index.consumers.get_mut(&key).unwrap().settles[number].outcome = outcome;
            }
            // Their effects are known from other lines.
            (Place::Stream(..) | Place::Work(_) | Place::Trim(..), ..) => {}
        }
        Ok(())
    }

    fn note(&mut self, line: Line, event: &'a Event) -> Result<(), &'static str> {
        let (index, client) = (&mut self.index, &*event.client);
        let since = self.last.get(client).copied().unwrap_or(0);
        match &event.what {
            What::Attached { .. }
            | What::Repositioned { .. }
            | What::Delivered { .. }
            | What::Gap { .. }
            | What::CaughtUp { .. } => match self.begun.get(&event.op) {
                Some((Place::Stream(key, number), _)) => {
                    let stream = &mut index.consumers.get_mut(key).unwrap().streams[*number];
                    stream.frames.push((line, &event.what));
                }
                _ => return Err("a frame belongs to no stream"),
            },
            What::Handed { delivery, runs, attempts } => match self.begun.get(&event.op) {
                Some((Place::Work(key), _)) => {
                    let (op, delivery) = (event.op, *delivery);
                    let handed = Handed { op, line, delivery, runs, attempts };
                    index.consumers.get_mut(key).unwrap().handed.push(handed);
                }
                _ => return Err("a delivery belongs to no worker"),
            },
            What::Subscription { topic, consumer, floor, parked, retried } => {
                let subscription = Subscription { floor: *floor, parked, retried };
                let consumer = index.consumers.entry((topic, consumer)).or_default();
                if consumer.subscription.replace(subscription).is_some() {
                    return Err("the subscription was noted before");
                }
            }
            What::Position { topic, consumer, position, epoch } => {
                let row = Position { position: *position, epoch: *epoch };
                let row_reads =
                    &mut index.consumers.entry((topic, consumer)).or_default().row_reads;
                row_reads.push(RowRead { client, since, line, row });
            }
            What::LogEnds { topic, first, head } => {
                let row = LogEnds { first: *first, head: *head };
                let row_reads = &mut index.topics.entry(topic).or_default().row_reads;
                row_reads.push(RowRead { client, since, line, row });
            }
            What::Registered { topic, consumer, position } => {
                index.consumers.entry((topic, consumer)).or_default().start = Some(*position);
            }
            What::Keeps { topic, messages } => {
                index.topics.entry(topic).or_default().keeps = Some(*messages);
            }
            What::Fault { begins, .. } => index.faults += u64::from(*begins),
            What::Table { topic, first, head, runs } => {
                let log = Log::new(*first, *head, runs.iter().map(Piece::from));
                let known = index.topics.entry(topic).or_default().log.replace(log);
                if known.is_some() {
                    return Err("the table of the topic was noted before");
                }
            }
            What::FreshRead { topic, broker, runs } => {
                let pieces = runs.iter().map(Piece::from).collect();
                let read = FreshRead { line, broker, pieces };
                index.topics.entry(topic).or_default().fresh_reads.push(read);
            }
            _ => return Err("this cannot be a note"),
        }
        Ok(())
    }
}

fn push<T>(all: &mut Vec<T>, one: T) -> usize {
    all.push(one);
    all.len() - 1
}
