//! What is wrong, and what to do about it.

use std::time::Duration;

use crate::{
    broker::load::Load,
    model::{ConsumerId, TopicName},
    storage::ConsumerState,
};

/// A consumer that has messages left and does not move for so long is stuck.
const STUCK: Duration = Duration::from_secs(600);

/// Something that needs attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Whether something does not work, and not only works worse than it should.
    pub is_severe: bool,
    /// What is wrong: a sentence without its full stop.
    pub what: String,
    /// What to do about it.
    pub advice: &'static str,
    /// One of the consumers that it concerns; `None` if it concerns none.
    pub example: Option<(TopicName, ConsumerId)>,
}

impl Trouble {
    fn new(is_severe: bool, what: impl Into<String>, advice: &'static str) -> Self {
        Self { is_severe, what: what.into(), advice, example: None }
    }

    /// The database does not answer.
    pub fn database_down() -> Self {
        Self::new(
            true,
            "The database does not answer",
            "Nothing can be published or consumed until it does. The broker's log says why it does \
             not, and the broker reconnects by itself.",
        )
    }
}

/// What is wrong with a broker and with some consumers, the most severe first. Lost messages may be of
/// topics that not everyone may know of: whoever `is_restricted` is not told how many there are.
pub fn find_troubles(
    load: &Load,
    consumers: &[&ConsumerState],
    is_restricted: bool,
) -> Vec<Trouble> {
    let mut troubles = of_broker(load, is_restricted);
    troubles.extend(of_consumers(consumers));
    troubles.sort_by_key(|trouble| !trouble.is_severe);
    troubles
}

fn of_broker(load: &Load, is_restricted: bool) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    if !load.database_up {
        troubles.push(Trouble::database_down());
    }
    if load.is_draining {
        troubles.push(Trouble::new(
            false,
            "The broker is stopping",
            "Clients go on with another broker, or once this one is started again.",
        ));
    }
    if !load.hears_others {
        troubles.push(Trouble::new(
            false,
            "The broker does not hear other brokers",
            "It finds what they store by polling, up to a second later. If the database is reached \
             through a pooler, give the broker a --direct-database-url.",
        ));
    }
    if load.truncations > 0 && !is_restricted {
        troubles.push(Trouble::new(
            true,
            format!("The database has lost messages of {} topics", load.truncations),
            "This broker found it since it was started, and its log names the topics and offsets. \
             Fence the old primary, and look there for the messages.",
        ));
    }
    if load.streams.used * 5 > load.streams.limit * 4 {
        troubles.push(Trouble::new(
            false,
            format!("{} of {} streams are open", load.streams.used, load.streams.limit),
            "Beyond the limit, streams are refused. Raise max_locks_per_transaction of PostgreSQL, \
             or --max-streams.",
        ));
    }
    troubles
}

/// What may be wrong with consumers.
struct Kind {
    applies: fn(&ConsumerState) -> bool,
    is_severe: bool,
    /// What is wrong with one, and with several.
    one: &'static str,
    several: &'static str,
    advice: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind {
        applies: |it| it.missing > 0,
        is_severe: true,
        one: "is beyond the end of the log",
        several: "are beyond the end of the log",
        advice: "Messages that they have had are gone. They get no more until their position is moved (seek).",
    },
    Kind {
        applies: |it| it.lag > 0 && it.is_held && it.unchanged_for >= STUCK,
        is_severe: true,
        one: "has a reader and messages left, and has not moved for 10 minutes",
        several: "have a reader and messages left, and have not moved for 10 minutes",
        advice: "The reader may fail at the same message again and again. Look into its log.",
    },
    Kind {
        applies: |it| it.lag > 0 && !it.is_held && it.unchanged_for >= STUCK,
        is_severe: false,
        one: "has messages left, and has had no reader for 10 minutes",
        several: "have messages left, and have had no reader for 10 minutes",
        advice: "Start their readers, or unregister those that nobody needs any more.",
    },
];

fn of_consumers(consumers: &[&ConsumerState]) -> impl Iterator<Item = Trouble> {
    KINDS.iter().filter_map(|Kind { applies, is_severe, one, several, advice }| {
        let mut found = consumers.iter().filter(|it| applies(it));
        let first = found.next()?;
        let what = match 1 + found.count() {
            1 => format!("1 consumer {one}"),
            count => format!("{count} consumers {several}"),
        };
        let example = Some((first.topic.clone(), first.id.clone()));
        Some(Trouble { example, ..Trouble::new(*is_severe, what, advice) })
    })
}
