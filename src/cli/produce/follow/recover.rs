//! Opens producers, and goes back to what is stored.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

use tonic::Code;

use super::super::super::plural::count;
use super::{
    super::{
        super::failure::{Failure, print_notice},
        checks,
        message::Rule,
        problem::Problem,
        state::registered,
    },
    content::{Content, Life},
    destination::{Destination, JournaledPortion},
    follower::{Follower, RefusedMessage},
    journal::Changes,
    notices::Kind,
    patterns::FoundFile,
    place::Place,
    stored::StoredPortion,
    topic_names::TopicNames,
};
use crate::client::{Error, Producer, Refusal};

/// The longest pause between two tries to open a producer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How many refused messages are remembered, until they are passed over.
const MAX_REFUSED: usize = 10_000;

impl Follower<'_> {
    /// Takes over what the journal says.
    pub(super) fn restore(&mut self) -> Result<(), Failure> {
        let recorded = self.journal.read()?;
        for (topic, registered) in recorded.topics {
            self.want_destination(&topic);
            if let Some(destination) = self.destinations.get_mut(&topic) {
                destination.registered = Some(registered);
                // It was there once, so that its name is no mistake.
                destination.is_late = matches!(self.topic_names, TopicNames::Template(_));
            }
        }
        for (topic, first, messages) in recorded.portions {
            let Some(destination) = self.destinations.get_mut(&topic) else { continue };
            // It may have been acknowledged long ago: it is remembered for a while from now on.
            let settled = None;
            destination.portions.push_back(JournaledPortion { first, messages, settled });
            destination.next_sequence = first + messages;
        }
        let mut newest: HashMap<String, u64> = HashMap::new();
        for (id, stored, head) in recorded.contents {
            if Some(&stored.topic) == self.options.bad_lines_topic.as_ref() && !stored.is_gone {
                return Err(Failure::usage(format!(
                    "--bad-lines-topic {} is the topic of {}",
                    stored.topic, stored.name
                )));
            }
            // Contents of a log are numbered in the order of their rotation.
            let older = newest.insert(stored.name.clone(), id);
            let path = stored.path();
            let found = FoundFile {
                path: path.clone(),
                inode: stored.inode(),
                size: 0,
                modified: stored.modified(),
                is_gzip: stored.is_gzip,
            };
            let rule = self.rules.of(&stored.name);
            let mut content = Content::new(id, &found, stored.topic.clone(), rule);
            content.life = match stored.is_gone {
                true => Life::Gone,
                false => Life::Renamed,
            };
            content.place = stored.place();
            content.comes_after = older;
            content.head = head;
            content.seen.modified = stored.modified();
            content.name = stored.name;
            content.packed_end = stored.packed_end;
            content.seen.size = content.place.offset;
            content.is_changed = false;
            content.is_dirty = content.is_followed();
            self.next_id = self.next_id.max(id + 1);
            self.contents.insert(id, content);
        }
        Ok(())
    }

    /// Has a topic opened.
    pub(super) fn want_destination(&mut self, topic: &str) {
        if !self.destinations.contains_key(topic) {
            let destination = Destination::new(topic.to_owned(), self.has_started);
            self.destinations.insert(topic.to_owned(), destination);
        }
    }

    /// Whether a topic is to be opened: it is named, something is followed to it, or it was open
    /// before. The state may know topics besides, and those may be deleted by now.
    pub(super) fn is_wanted(&self, destination: &Destination) -> bool {
        matches!(self.topic_names, TopicNames::One(_))
            || destination.stored_before.is_some()
            || self.contents.values().any(|it| it.is_followed() && it.topic == destination.topic)
    }

    /// Opens the producers that are not open, as far as it is time to try it.
    pub(super) async fn open_destinations(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let closed = self.destinations.values().filter(|it| it.producer.is_none());
        let due = closed.filter(|it| it.retry_at <= now && self.is_wanted(it));
        for topic in due.map(|it| it.topic.clone()).collect::<Vec<_>>() {
            match self.open(&topic).await {
                Ok(producer) => {
                    self.take_refusal(&topic, &producer)?;
                    self.take_over(&topic, producer)?;
                }
                Err(failure) => self.put_off(&topic, failure)?,
            }
        }
        Ok(())
    }

    /// Opens the producer on a topic, which fences older instances of it.
    async fn open(&self, topic: &str) -> Result<Producer, Failure> {
        let is_known = self.destinations.get(topic).is_some_and(|it| it.registered.is_some());
        if !is_known && !self.options.restart {
            // A run that is refused fences nobody.
            let found = checks::find(self.client, self.options, topic).await?;
            let stored = found.map_or(0, |producer| producer.next_sequence);
            self.refuse_unknown(topic, stored.unsigned_abs())?;
        }
        let producer = self.options.open_to_follow(self.client, topic).await?;
        self.refuse_lost(topic, &producer)?;
        Ok(producer)
    }

    /// Refuses messages that were published before, and are not in the state.
    fn refuse_unknown(&self, topic: &str, stored: u64) -> Result<(), Failure> {
        if stored == 0 {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "producer {} has published {} on topic {topic} before, and the state {} does not say \
             which: another --producer or --restart ships the files from their beginning",
            self.options.producer,
            count(stored, "message"),
            self.journal.path().display()
        )))
    }

    /// Refuses a topic that has lost so much that it is not known which lines that were.
    fn refuse_lost(&self, topic: &str, producer: &Producer) -> Result<(), Failure> {
        let Some(destination) = self.destinations.get(topic) else { return Ok(()) };
        let stored = producer.first_sequence().unsigned_abs();
        let oldest = destination.portions.front().map_or(0, |portion| portion.first);
        let is_another = destination.registered != Some(registered(producer.registration()));
        if is_another || stored >= oldest {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "topic {topic} has {} of producer {}, and at least {oldest} were acknowledged: its \
             database has lost the others, and it is not known any more which lines they were; \
             --restart ships the files from their beginning",
            count(stored, "message"),
            self.options.producer
        )))
    }

    /// Tries later again, if that may help.
    fn put_off(&mut self, topic: &str, failure: Failure) -> Result<(), Failure> {
        let Some(destination) = self.destinations.get_mut(topic) else { return Ok(()) };
        let is_lost = failure.is_unavailable();
        // A topic that appeared later does not end the shipping to the others.
        let may_wait = is_lost || (destination.is_late && !self.options.follow.exit_at_end);
        if !may_wait || (is_lost && self.options.gives_up_after(self.lost_since(topic))) {
            return Err(failure);
        }
        let Some(destination) = self.destinations.get_mut(topic) else { return Ok(()) };
        destination.failed_tries += 1;
        let pause = Duration::from_millis(100) * 2u32.pow(destination.failed_tries.min(6));
        destination.retry_at = Instant::now() + pause.min(LONGEST_PAUSE);
        let text = format!("topic {topic}: {}; trying again", failure.message());
        self.notices.tell(Kind::Lost, &text);
        Ok(())
    }

    fn lost_since(&mut self, topic: &str) -> Duration {
        let Some(destination) = self.destinations.get_mut(topic) else { return Duration::ZERO };
        destination.lost_since.get_or_insert_with(Instant::now).elapsed()
    }

    /// Brings the places in line with what the broker has stored. The producer is the only live
    /// instance, so that number is final.
    fn take_over(&mut self, topic: &str, producer: Producer) -> Result<(), Failure> {
        let now_registered = registered(producer.registration());
        let stored = producer.first_sequence().unsigned_abs();
        let Some(destination) = self.destinations.get_mut(topic) else { return Ok(()) };
        let known = destination.registered;
        if known.is_some_and(|known| known != now_registered) {
            print_notice(&format!(
                "producer {} was registered again on topic {topic}, so what the state says of it is \
                 ignored",
                self.options.producer
            ));
            self.forget_topic(topic)?;
        } else {
            self.go_back(topic, stored)?;
        }
        let Some(destination) = self.destinations.get_mut(topic) else { return Ok(()) };
        destination.next_sequence = stored;
        destination.stored = stored;
        destination.stored_before.get_or_insert(stored);
        destination.registered = Some(now_registered);
        destination.producer = Some(producer);
        destination.failed_tries = 0;
        destination.lost_since = None;
        let topics = vec![(topic, now_registered)];
        self.journal.commit(&Changes { topics, ..Changes::default() })
    }

    /// Ships the files of a topic from their beginning.
    fn forget_topic(&mut self, topic: &str) -> Result<(), Failure> {
        let Some(destination) = self.destinations.get_mut(topic) else { return Ok(()) };
        let portions = std::mem::take(&mut destination.portions);
        let forgotten_portions = portions.iter().map(|portion| (topic, portion.first)).collect();
        let of_topic = self.contents.values_mut().filter(|content| content.topic == topic);
        of_topic.for_each(|content| content.go_to(Place::default()));
        self.journal.commit(&Changes {
            contents: self.contents.values().filter(|content| content.topic == topic).collect(),
            forgotten_portions,
            ..Changes::default()
        })
    }

    /// Goes back to the places after the messages that are stored.
    fn go_back(&mut self, topic: &str, stored: u64) -> Result<(), Failure> {
        let Some(destination) = self.destinations.get_mut(topic) else { return Ok(()) };
        let Some(last) = destination.portions.back() else { return Ok(()) };
        if stored > last.end() {
            print_notice(&format!(
                "found {} on topic {topic} that another program published as producer {}",
                count(stored - last.end(), "message"),
                self.options.producer
            ));
        }
        let settled = destination.portions.iter().filter(|portion| portion.settled.is_some());
        let settled = settled.map(JournaledPortion::end).max().unwrap_or(0);
        if stored < settled {
            print_notice(&format!(
                "the database has lost {} on topic {topic} that it had acknowledged: what it lost is \
                 shipped again",
                count(settled - stored, "message")
            ));
        }
        let (mut undone, mut kept) = (Vec::new(), Vec::new());
        while let Some(portion) = destination.portions.pop_back() {
            if portion.end() <= stored {
                destination.portions.push_back(portion);
                break;
            }
            undone.push(portion.first);
            if portion.first < stored {
                kept.push((portion.first, stored - portion.first));
                let (first, messages) = (portion.first, stored - portion.first);
                let settled = Some(Instant::now());
                destination.portions.push_back(JournaledPortion { first, messages, settled });
                break;
            }
        }
        // What is stored of them is settled.
        for portion in &mut destination.portions {
            portion.settled.get_or_insert_with(Instant::now);
        }
        self.undo(topic, &undone, &kept)
    }

    fn undo(&mut self, topic: &str, undone: &[u64], kept: &[(u64, u64)]) -> Result<(), Failure> {
        let mut shortened = Vec::new();
        for &first in undone {
            let mut portion = self.journal.portion(topic, first)?;
            let kept =
                kept.iter().find(|(it, _)| *it == first).map_or(0, |(_, messages)| *messages);
            self.undo_portion(&portion, usize::try_from(kept).unwrap_or(usize::MAX));
            if kept > 0 {
                portion.lengths.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
                shortened.push((topic, first, portion));
            }
        }
        self.journal.commit(&Changes {
            contents: self.contents.values().filter(|content| content.is_changed).collect(),
            portions: shortened,
            forgotten_portions: undone.iter().map(|first| (topic, *first)).collect(),
            ..Changes::default()
        })
    }

    /// Goes back to the place in a content after some messages of a portion.
    fn undo_portion(&mut self, portion: &StoredPortion, messages: usize) {
        let Some(content) = self.contents.get_mut(&portion.content) else {
            let text = "lines that are not stored were in a file that is gone";
            return self.notices.tell(Kind::Replaced, text);
        };
        let start = portion.start();
        let place = match messages {
            0 => start,
            _ => content.place_within(start, portion.end_of(messages)),
        };
        let lost = content.place.offset.saturating_sub(place.offset);
        // A copy may have less than was read before the original was truncated.
        if place.offset < content.place.offset {
            content.go_to(place);
        }
        if content.life == Life::Gone && lost > 0 {
            let name = &content.name;
            let text = format!("{name} is gone, and {lost} bytes of it are not stored");
            self.notices.tell(Kind::Replaced, &text);
        }
    }

    /// Deals with a producer that has failed: opens it again, if that may help.
    pub(super) fn recover(&mut self, topic: &str, error: Error) -> Result<(), Failure> {
        // A topic may be missing while there are others.
        let may_be_missing =
            matches!(self.topic_names, TopicNames::Template(_)) && !self.options.follow.exit_at_end;
        let Some(destination) = self.destinations.get_mut(topic) else { return Ok(()) };
        destination.producer = None;
        destination.generation += 1;
        destination.forget_sent();
        destination.retry_at = Instant::now();
        let reason = error.reason().unwrap_or_default().to_owned();
        match &error {
            Error::Refused(refusal) if refusal.code == Code::InvalidArgument => {
                let Some(index) = refused_message(refusal) else { return Err(error.into()) };
                let text = refusal.message.replace(&format!("messages[{index}]."), "");
                if is_about_flag(self.rules.rule(), &text) {
                    return Err(Failure::usage(format!("--header: {text}")));
                }
                destination.refusal = Some((index, Problem::new(&text)));
                Ok(())
            }
            Error::Refused(_) if ["SEQUENCE_GAP", "SEQUENCE_PASSED"].contains(&reason.as_str()) => {
                let now = Instant::now();
                let is_repeated =
                    destination.reopened.is_some_and(|at| now - at < Duration::from_secs(10));
                destination.reopened = Some(now);
                match is_repeated {
                    true => Err(error.into()),
                    false => Ok(()),
                }
            }
            Error::Lost { .. } if self.options.retry_for.is_none() => {
                self.notices.tell(Kind::Lost, &format!("topic {topic}: {error}; trying again"));
                Ok(())
            }
            Error::Refused(_) if may_be_missing && is_gone(&reason) => {
                // It is looked for from now on, while the others go on.
                destination.is_late = true;
                Ok(())
            }
            _ => Err(error.into()),
        }
    }

    /// Takes note of the message that the broker has refused. Only the broker can find out that its
    /// database cannot store a character. The record is a bad one then: the others are read again and
    /// sent without it.
    fn take_refusal(&mut self, topic: &str, producer: &Producer) -> Result<(), Failure> {
        let Some(destination) = self.destinations.get_mut(topic) else { return Ok(()) };
        let Some((index, problem)) = destination.refusal.take() else { return Ok(()) };
        if destination.registered != Some(registered(producer.registration())) {
            return Ok(());
        }
        // The refused request is the first one that is not stored.
        let refused = producer.first_sequence().unsigned_abs() + index;
        let mut portions = destination.portions.iter();
        let portion = portions.find(|it| it.first <= refused && refused < it.end());
        let Some(portion) = portion else { return Ok(()) };
        let within = usize::try_from(refused - portion.first).unwrap_or(usize::MAX);
        let portion = self.journal.portion(topic, portion.first)?;
        let end = portion.end_of(within + 1);
        let refused = RefusedMessage { problem, is_kept: false };
        let key = (portion.content, end);
        self.refused.insert(key, refused);
        if self.refused.len() > MAX_REFUSED
            && let Some(other) = self.refused.keys().copied().find(|other| *other != key)
        {
            self.refused.remove(&other);
        }
        Ok(())
    }
}

impl Content {
    /// The place at an offset after `start`.
    fn place_within(&mut self, start: Place, offset: u64) -> Place {
        let read = |file: &File| -> io::Result<Place> {
            let lines = start.lines + count_lines(file, start.offset, offset)?;
            Place::read(file, offset, lines)
        };
        let opened = self.open();
        let place = match (opened, &self.file) {
            (Ok(()), Some(file)) => read(file).ok(),
            _ => None,
        };
        place.unwrap_or(Place { offset, lines: start.lines, tail: Vec::new() })
    }
}

fn count_lines(file: &File, from: u64, to: u64) -> io::Result<u64> {
    let (mut at, mut lines) = (from, 0);
    let mut buffer = vec![0; 64 * 1024];
    while at < to {
        let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = file.read_at(&mut buffer[..wanted], at)?;
        if read == 0 {
            break;
        }
        lines += memchr::memchr_iter(b'\n', &buffer[..read]).count() as u64;
        at += read as u64;
    }
    Ok(lines)
}

/// Whether a refusal says that the topic, or the registration on it, was deleted.
fn is_gone(reason: &str) -> bool {
    ["TOPIC_NOT_FOUND", "PRODUCER_NOT_REGISTERED", "PRODUCER_NOT_FOUND"].contains(&reason)
}

/// Whether a refusal is about a header that all messages have.
fn is_about_flag(rule: &Rule, text: &str) -> bool {
    let is_named = |c: char| text.contains(&format!("(U+{:04X})", u32::from(c)));
    rule.headers.iter().any(|(name, value)| name.chars().chain(value.chars()).any(is_named))
}

/// The index in its request of the message that was refused for its value.
fn refused_message(refusal: &Refusal) -> Option<u64> {
    let field = refusal.metadata.get("field")?.strip_prefix("messages[")?;
    field.split_once(']')?.0.parse().ok()
}
