//! The broker's domain types. They are checked when they are made: a [`TopicName`] is a well-formed
//! name wherever it appears.

mod access;
mod audit;
mod deliver_at;
mod draft;
mod endpoint;
mod filter;
mod invalid;
mod labels;
mod message;
mod name;
mod page;
mod position;
mod quota;
mod range;
mod record;
#[cfg(feature = "sabotage")]
mod sabotage;
mod subscription;
mod time;

pub use access::{
    Grant, GrantKey, Operation, Principal, RegistrationId, RegistrationKey, Token, TopicFilter,
    TopicPattern,
};
pub use audit::{Act, AuditEntry, AuditFilter, AuditPlace, AuditRecord, Origin, Outcome};
pub use deliver_at::DeliverAt;
pub use draft::{Draft, Sequences, Stamp};
pub use endpoint::Endpoint;
pub use filter::{Filter, FilterError};
pub use invalid::{InvalidInput, InvalidValue};
pub use labels::Labels;
pub use message::{
    Batch, Encoded, MAX_MESSAGE_BYTES, MAX_REQUEST_MESSAGES, Message, MessageRef, NewMessages,
    ProducerRun,
};
pub use name::{ConsumerId, ProducerId, TopicName};
pub use page::{Page, PageRequest, TopicMark};
pub use position::{ConsumerKey, Epoch, Offset, Sequence, Start, TopicId};
pub use quota::{Allowance, Claimant, Limit, Quota, QuotaHolder, QuotaKey};
pub use range::{LogEnds, OffsetRange};
pub use record::{
    Consumer, Producer, Registration, Retention, SequenceRun, StoredRun, Topic, TopicChanges,
};
#[cfg(feature = "sabotage")]
pub use sabotage::Sabotage;
pub use subscription::{Backoff, DeliveryPolicy, MAX_REASON_CHARACTERS, ParkedMessage, Sharing};
pub use time::TimeBound;
