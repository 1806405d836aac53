//! Names and values that the model of the database and its clients agree on.

use crate::model::{Message, ProducerId, TopicName};

/// How many topics exist. Clients also publish to one more, which does not.
pub(crate) const TOPICS: u8 = 3;

pub(crate) fn topic(number: u8) -> TopicName {
    TopicName::stored(["orders", "bills", "audit", "nowhere"][usize::from(number)])
}

pub(crate) fn producer(number: u8) -> ProducerId {
    ProducerId::stored(&format!("producer-{number}"))
}

/// The producers that are registered. One more publishes without being registered.
pub(crate) fn initially_registered() -> impl Iterator<Item = ProducerId> {
    (0..3).map(producer)
}

/// Whether the model's encoding, LATIN1, has a character.
pub(crate) fn can_be_stored(character: char) -> bool {
    character <= '\u{ff}'
}

/// A header's value that the database refuses, though it can store its characters.
pub(crate) const POISON: &str = "poison";

/// A header's value that makes every statement with it fail, as an operator's trigger may.
pub(crate) const CURSE: &str = "curse";

/// Whether the database refuses a header's value.
pub(crate) fn refuses_value(value: &str) -> bool {
    value == POISON || !value.chars().all(can_be_stored)
}

/// Whether the database refuses a message, wherever it is.
pub(crate) fn is_refused(message: &Message) -> bool {
    message.headers.entries().values().any(|value| refuses_value(value)) || is_cursed(message)
}

/// Whether a message makes every statement with it fail.
pub(crate) fn is_cursed(message: &Message) -> bool {
    message.headers.entries().values().any(|value| value == CURSE)
}
