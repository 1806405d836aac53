//! The words of the broker. What is made here has been checked: a [`TopicName`] is a well-formed
//! name wherever it turns up.

mod draft;
mod invalid;
mod labels;
mod message;
mod name;
mod page;
mod position;
mod range;
mod record;
#[cfg(feature = "sabotage")]
mod sabotage;
mod time;

pub use draft::{Draft, Sequences, Stamp};
pub use invalid::InvalidInput;
pub use labels::Labels;
pub use message::{Batch, Encoded, Message, MessageRef, NewMessages, ProducerRun};
pub use name::{ConsumerId, ProducerId, TopicName};
pub use page::{Page, PageRequest};
pub use position::{ConsumerKey, Epoch, Offset, Sequence, Start, TopicId};
pub use range::{LogEnds, OffsetRange};
pub use record::{Consumer, Producer, Registration, Retention, SequenceRun, Topic, TopicChanges};
#[cfg(feature = "sabotage")]
pub use sabotage::Sabotage;
pub use time::TimeBound;

/// The most bytes that a message's payload, key and headers may hold together.
///
/// It lies well below the 4 MiB that a gRPC client decodes by default: a message that no client
/// could decode would stop its consumers for ever.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// The most messages that one publish request may hold.
pub const MAX_REQUEST_MESSAGES: usize = 10_000;
