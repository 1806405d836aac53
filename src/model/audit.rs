//! What the audit records: who did what to what, and who was refused.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::SystemTime};

use super::{
    access::{Principal, RegistrationKey},
    name::TopicName,
    page::Entry,
};

/// Declares the acts: the name of each in the audit, its method, and the sentence in the log.
macro_rules! acts {
    ($($act:ident: $name:literal, $method:literal, $sentence:literal;)*) => {
        /// Something that is recorded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // The sentences document the variants.
        pub enum Act {
            $($act,)*
        }

        impl Act {
            /// All acts.
            pub const ALL: &[Self] = &[$(Self::$act,)*];

            /// Its name in the audit.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$act => $name,)*
                }
            }

            /// The call that does it, as `package.Service/Method`; empty if none does.
            pub fn method(self) -> &'static str {
                match self {
                    $(Self::$act => $method,)*
                }
            }

            /// What the log says.
            pub fn sentence(self) -> &'static str {
                match self {
                    $(Self::$act => $sentence,)*
                }
            }
        }
    };
}

acts! {
    CreateTopic: "create_topic", "trunkline.v1.TopicService/CreateTopic", "created a topic";
    UpdateTopic: "update_topic", "trunkline.v1.TopicService/UpdateTopic", "changed a topic";
    TrimTopic: "trim_topic", "trunkline.v1.TopicService/TrimTopic", "trimmed a topic";
    DeleteTopic: "delete_topic", "trunkline.v1.TopicService/DeleteTopic", "deleted a topic";
    RegisterProducer: "register_producer", "trunkline.v1.ProducerService/RegisterProducer",
        "registered a producer";
    FenceProducer: "fence_producer", "trunkline.v1.ProducerService/RegisterProducer",
        "fenced a producer";
    UnregisterProducer: "unregister_producer", "trunkline.v1.ProducerService/UnregisterProducer",
        "unregistered a producer";
    RegisterConsumer: "register_consumer", "trunkline.v1.ConsumerService/RegisterConsumer",
        "registered a consumer";
    UnregisterConsumer: "unregister_consumer", "trunkline.v1.ConsumerService/UnregisterConsumer",
        "unregistered a consumer";
    CreateSubscription: "create_subscription",
        "trunkline.v1.SubscriptionService/CreateSubscription", "created a subscription";
    DeleteSubscription: "delete_subscription",
        "trunkline.v1.SubscriptionService/DeleteSubscription", "deleted a subscription";
    UpdateSubscription: "update_subscription",
        "trunkline.v1.SubscriptionService/UpdateSubscription", "changed a subscription";
    SeekSubscription: "seek_subscription",
        "trunkline.v1.SubscriptionService/SeekSubscription", "moved a subscription";
    ReplayParked: "replay_parked",
        "trunkline.v1.SubscriptionService/ReplayParked", "replayed parked messages";
    DiscardParked: "discard_parked",
        "trunkline.v1.SubscriptionService/DiscardParked", "discarded parked messages";
    Seek: "seek", "trunkline.v1.ConsumerService/Seek", "moved a position";
    TakeOver: "take_over", "trunkline.v1.ConsumerService/Consume", "took a lease over";
    AssignOwner: "assign_owner", "trunkline.v1.AccessService/AssignOwner", "assigned an owner";
    CreateToken: "create_token", "trunkline.v1.AccessService/CreateToken", "created a token";
    RotateToken: "rotate_token", "trunkline.v1.AccessService/RotateToken", "rotated a token";
    RevokeToken: "revoke_token", "trunkline.v1.AccessService/RevokeToken", "revoked a token";
    AddGrant: "add_grant", "trunkline.v1.AccessService/AddGrant", "added a grant";
    RemoveGrant: "remove_grant", "trunkline.v1.AccessService/RemoveGrant", "removed a grant";
    SetQuota: "set_quota", "trunkline.v1.AccessService/SetQuota", "set a quota";
    RemoveQuota: "remove_quota", "trunkline.v1.AccessService/RemoveQuota", "removed a quota";
    Bootstrap: "bootstrap", "", "created the first administrator";
    DeniedCall: "denied_call", "", "denied a call";
}

/// What came of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// The database did not confirm it.
    Unknown,
    /// It was refused because of who asked.
    Denied,
    /// Calls that were refused, and too many to be recorded one by one.
    NotRecorded,
}

impl Outcome {
    /// Its name in the audit.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::NotRecorded => "not_recorded",
        }
    }
}

/// Who calls, and from where, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The principal.
    pub principal: Option<Principal>,
    /// The id of the token that was presented.
    pub token_id: Option<Arc<str>>,
    /// The client's address.
    pub address: Option<Arc<str>>,
}

/// What is to be recorded. Everything in it is bounded, and nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// What was done.
    pub act: Act,
    /// What came of it.
    pub outcome: Outcome,
    /// Who did it.
    pub origin: Origin,
    /// The call, as `package.Service/Method`; empty without one.
    pub method: &'static str,
    /// The topic, if it is about one.
    pub topic: Option<String>,
    /// What it was done to, if that is not the topic.
    pub subject: Option<String>,
    /// Why a call was denied.
    pub reason: Option<&'static str>,
    /// What else is worth knowing.
    pub details: BTreeMap<&'static str, String>,
    /// How many calls it stands for.
    pub count: u64,
}

impl AuditEntry {
    /// An act that was done.
    pub fn new(act: Act, origin: Origin) -> Self {
        Self {
            act,
            outcome: Outcome::Done,
            origin,
            method: act.method(),
            topic: None,
            subject: None,
            reason: None,
            details: BTreeMap::new(),
            count: 1,
        }
    }

    /// Names the topic.
    pub fn on(self, topic: &TopicName) -> Self {
        Self { topic: Some(topic.as_str().to_owned()), ..self }
    }

    /// Names what it was done to.
    pub fn to(self, kind: &str, name: impl std::fmt::Display) -> Self {
        Self { subject: Some(format!("{kind} {name}")), ..self }
    }

    /// Names the producer or consumer that it was done to, and its topic.
    pub fn to_registration(self, RegistrationKey { topic, id }: &RegistrationKey) -> Self {
        self.on(topic).to(id.kind(), id.as_str())
    }

    /// Adds something that is worth knowing.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.details.insert(name, value.to_string());
        self
    }
}

/// A row of the audit, as it is stored.
#[derive(Clone, Debug)]
pub struct AuditRecord {
    /// Tells rows of one moment apart.
    pub id: i64,
    /// When it was recorded.
    pub at: SystemTime,
    /// What was done.
    pub act: String,
    /// What came of it.
    pub outcome: String,
    /// Who did it; empty if that is unknown.
    pub principal: String,
    /// The id of the token that was presented; empty without one.
    pub token_id: String,
    /// The client's address; empty without one.
    pub address: String,
    /// The call; empty without one.
    pub method: String,
    /// The topic; empty if it is about none.
    pub topic: String,
    /// What it was done to; empty if that is the topic.
    pub subject: String,
    /// Why calls were denied; empty for acts.
    pub reason: String,
    /// What else is worth knowing.
    pub details: BTreeMap<String, String>,
    /// How many calls it stands for.
    pub count: u64,
}

/// Which records a list has.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only those of a principal.
    pub principal: Option<Principal>,
    /// Only those about a topic.
    pub topic: Option<TopicName>,
    /// Only those since a time.
    pub since: Option<SystemTime>,
}

/// Where a page of the audit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPlace {
    /// When the record was made, in microseconds since 1970.
    pub micros: i64,
    /// The record's id.
    pub id: i64,
}

impl AuditPlace {
    /// The place of a name, as `AuditRecord::name` makes it.
    pub fn parse(name: &str) -> Option<Self> {
        let (micros, id) = name.split_once('.')?;
        Some(Self { micros: micros.parse().ok()?, id: id.parse().ok()? })
    }
}

impl Entry for AuditRecord {
    fn name(&self) -> Cow<'_, str> {
        let since = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("{}.{}", since.as_micros(), self.id).into()
    }

    fn bytes(&self) -> usize {
        let details = self.details.iter().map(|(name, value)| name.len() + value.len());
        let texts = [&self.principal, &self.address, &self.method, &self.topic, &self.subject];
        texts.iter().map(|text| text.len()).sum::<usize>() + details.sum::<usize>() + 128
    }
}
