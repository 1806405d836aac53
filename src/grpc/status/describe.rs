//! The code, the reason and the values of each error.

use tonic::Code;

use crate::{
    access::{self, jwt::Refusal},
    broker::Error,
    model::{
        InvalidInput, Limit, LogEnds, OffsetRange, Principal, QuotaKey, RegistrationId,
        RegistrationKey, StoredRun, TopicName,
    },
};

/// The domain of all reasons.
pub(super) const DOMAIN: &str = "trunkline";

/// The values that the text of an error names.
pub(super) type Metadata = Vec<(&'static str, String)>;

/// The code, reason and metadata of an error. Without a wildcard arm, so that a new error does not
/// compile until it has them.
pub(super) fn describe(error: &Error) -> (Code, &'static str, Metadata) {
    use Error::*;
    match error {
        Invalid(invalid) => (Code::InvalidArgument, "INVALID_FIELD", of_field(invalid)),
        TopicNotFound { topic } => (Code::NotFound, "TOPIC_NOT_FOUND", values([("topic", topic)])),
        TopicExists { topic } => (Code::AlreadyExists, "TOPIC_EXISTS", values([("topic", topic)])),
        TopicDiffers { topic, fields } => (
            Code::AlreadyExists,
            "TOPIC_DIFFERS",
            vec![("topic", topic.to_string()), ("fields", fields.join(","))],
        ),
        ProducerNotFound { topic, producer } => (
            Code::NotFound,
            "PRODUCER_NOT_FOUND",
            two_values(("topic", topic), ("producer_id", producer)),
        ),
        ProducerExists { topic, producer } => (
            Code::AlreadyExists,
            "PRODUCER_EXISTS",
            two_values(("topic", topic), ("producer_id", producer)),
        ),
        ProducerNotRegistered { topic, producer } => (
            Code::PermissionDenied,
            "PRODUCER_NOT_REGISTERED",
            two_values(("topic", topic), ("producer_id", producer)),
        ),
        ProducerFenced { topic, producer, epoch, current } => {
            let mut metadata = two_values(("topic", topic), ("producer_id", producer));
            metadata.extend(values([("epoch", epoch), ("current_epoch", current)]));
            (Code::FailedPrecondition, "PRODUCER_FENCED", metadata)
        }
        SequenceGap { topic, producer, sequence, expected } => {
            let mut metadata = two_values(("topic", topic), ("producer_id", producer));
            metadata.extend(values([("sequence", sequence), ("expected", expected)]));
            (Code::OutOfRange, "SEQUENCE_GAP", metadata)
        }
        SequencePassed { topic, producer, sequence, expected, stored } => {
            let mut metadata = two_values(("topic", topic), ("producer_id", producer));
            metadata.extend(values([("sequence", sequence), ("expected", expected)]));
            if !stored.is_empty() {
                let ranges = |first: fn(&StoredRun) -> i64| {
                    let range =
                        |run| format!("{}-{}", first(run), first(run) + run.count as i64 - 1);
                    stored.iter().map(range).collect::<Vec<_>>().join(",")
                };
                metadata.push(("stored_sequences", ranges(|run| run.sequence.0)));
                metadata.push(("stored_offsets", ranges(|run| run.offset.0)));
            }
            (Code::OutOfRange, "SEQUENCE_PASSED", metadata)
        }
        HeadMoved { topic, expected_head, head } => {
            let mut metadata = values([("topic", topic)]);
            metadata.extend(values([("expected_head", expected_head), ("head", head)]));
            (Code::Aborted, "HEAD_MOVED", metadata)
        }
        ConsumerNotFound { topic, consumer } => (
            Code::NotFound,
            "CONSUMER_NOT_FOUND",
            two_values(("topic", topic), ("consumer_id", consumer)),
        ),
        ConsumerExists { topic, consumer } => (
            Code::AlreadyExists,
            "CONSUMER_EXISTS",
            two_values(("topic", topic), ("consumer_id", consumer)),
        ),
        ConsumerIsShared { topic, consumer } => (
            Code::FailedPrecondition,
            "CONSUMER_IS_SHARED",
            two_values(("topic", topic), ("consumer_id", consumer)),
        ),
        NotASubscription { topic, consumer } => (
            Code::FailedPrecondition,
            "NOT_A_SUBSCRIPTION",
            two_values(("topic", topic), ("consumer_id", consumer)),
        ),
        DeadLetterTopicNotFound { topic } => (
            Code::FailedPrecondition,
            "DEAD_LETTER_TOPIC_NOT_FOUND",
            values([("dead_letter_topic", topic)]),
        ),
        FilterUnreadable { topic, consumer, problem } => {
            let mut metadata = two_values(("topic", topic), ("consumer_id", consumer));
            metadata.push(("problem", problem.clone()));
            (Code::FailedPrecondition, "FILTER_UNREADABLE", metadata)
        }
        SubscriptionElsewhere { topic, consumer, .. } => (
            Code::Unavailable,
            "SUBSCRIPTION_ELSEWHERE",
            two_values(("topic", topic), ("consumer_id", consumer)),
        ),
        OffsetOutOfRange { topic, offset, ends: LogEnds { start, head } } => {
            let mut metadata = values([("topic", topic)]);
            metadata.extend(values([("offset", offset), ("first_offset", start), ("head", head)]));
            (Code::OutOfRange, "OFFSET_OUT_OF_RANGE", metadata)
        }
        LeaseHeld { topic, consumer, holder } => {
            let mut metadata = two_values(("topic", topic), ("consumer_id", consumer));
            metadata.push(("holder", holder.clone()));
            (Code::FailedPrecondition, "LEASE_HELD", metadata)
        }
        LeaseLost { topic, consumer, epoch } => {
            let mut metadata = two_values(("topic", topic), ("consumer_id", consumer));
            metadata.push(("epoch", epoch.to_string()));
            (Code::Aborted, "LEASE_LOST", metadata)
        }
        LeaseTakenOver { topic, consumer, by } => {
            let mut metadata = two_values(("topic", topic), ("consumer_id", consumer));
            metadata.push(("holder", by.clone()));
            (Code::Aborted, "LEASE_TAKEN_OVER", metadata)
        }
        CommitBehind { asked, position } => {
            (Code::OutOfRange, "COMMIT_BEHIND", values([("asked", asked), ("position", position)]))
        }
        CommitBeyond { asked, delivered } => (
            Code::OutOfRange,
            "COMMIT_BEYOND",
            values([("asked", asked), ("delivered", delivered)]),
        ),
        MessagesLost { topic, lost: OffsetRange { start, end } } => {
            let mut metadata = values([("topic", topic)]);
            metadata.extend(values([("first_offset", start), ("end_offset", end)]));
            (Code::DataLoss, "MESSAGES_LOST", metadata)
        }
        NumbersUsedUp { what } => {
            (Code::ResourceExhausted, "NUMBERS_USED_UP", vec![("what", (*what).to_owned())])
        }
        TooManyTopics { limit } => too_many(Limit::Topics, "max-topics", None, *limit),
        TooManyProducers { topic, limit } => {
            too_many(Limit::Producers, "max-producers-per-topic", Some(topic), *limit)
        }
        TooManyConsumers { topic, limit } => {
            too_many(Limit::Consumers, "max-consumers-per-topic", Some(topic), *limit)
        }
        TooManyRetried { limit } => {
            (Code::ResourceExhausted, "TOO_MANY_RETRIED", values([("limit", limit)]))
        }
        TooManyStreams { limit } => too_many(Limit::Streams, "max-streams", None, *limit),
        TooManyOfPrincipal { principal, what, limit } => {
            (Code::ResourceExhausted, reason_of(*what), of_quota(principal, *what, limit))
        }
        AnswersUnread { limit } => {
            (Code::ResourceExhausted, "ANSWERS_UNREAD", values([("limit", limit)]))
        }
        TopicBusy { topic } => (Code::Unavailable, "TOPIC_BUSY", values([("topic", topic)])),
        DatabaseUnavailable(_) => (Code::Unavailable, "DATABASE_UNAVAILABLE", Vec::new()),
        OutcomeUnknown(_) => (Code::Unavailable, "OUTCOME_UNKNOWN", Vec::new()),
        DeadlineExceeded => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", Vec::new()),
        Draining => (Code::Unavailable, "DRAINING", Vec::new()),
        Internal(_) => (Code::Internal, "INTERNAL", Vec::new()),
    }
}

/// As [`describe`], for what only the access layer refuses.
pub(super) fn describe_access(error: &access::Error) -> (Code, &'static str, Metadata) {
    use access::Error::*;
    match error {
        TokenMissing => (Code::Unauthenticated, "TOKEN_MISSING", Vec::new()),
        TokenMalformed { .. } => (Code::Unauthenticated, "TOKEN_MALFORMED", Vec::new()),
        TokenUnknown => (Code::Unauthenticated, "TOKEN_UNKNOWN", Vec::new()),
        TokenExpired => (Code::Unauthenticated, "TOKEN_EXPIRED", Vec::new()),
        TokenRevoked => (Code::Unauthenticated, "TOKEN_REVOKED", Vec::new()),
        Jwt { refusal } => describe_jwt(refusal),
        JwtPrincipal { .. } => (Code::Unauthenticated, "TOKEN_CLAIM_REFUSED", Vec::new()),
        NotGranted { operation, topic, .. } => (
            Code::PermissionDenied,
            "NOT_GRANTED",
            two_values(("operation", operation), ("topic", topic)),
        ),
        NotOwner(key) => (Code::PermissionDenied, "NOT_OWNER", of_registration(key)),
        NoOwner(key) => (Code::PermissionDenied, "NO_OWNER", of_registration(key)),
        NotPresented { id } => {
            (Code::PermissionDenied, "TOKEN_NOT_PRESENTED", values([("token_id", id)]))
        }
        // What does not exist for the caller looks like what does not exist.
        TokenNotFound { id } | TokenHidden { id } => {
            (Code::NotFound, "TOKEN_NOT_FOUND", values([("token_id", id)]))
        }
        GrantNotFound { principal, operation, topics } => {
            let mut metadata = two_values(("principal", principal), ("operation", operation));
            metadata.push(("topics", topics.clone()));
            (Code::NotFound, "GRANT_NOT_FOUND", metadata)
        }
        LastAdministrator => (Code::FailedPrecondition, "LAST_ADMINISTRATOR", Vec::new()),
        TooManyTokens { principal, limit } => {
            let metadata = of_limit("tokens", limit, principal.as_ref());
            (Code::ResourceExhausted, "TOO_MANY_TOKENS", metadata)
        }
        TooManyGrants { principal, limit } => {
            let metadata = of_limit("grants", limit, principal.as_ref());
            (Code::ResourceExhausted, "TOO_MANY_GRANTS", metadata)
        }
        TooManyQuotas { limit } => {
            (Code::ResourceExhausted, "TOO_MANY_QUOTAS", of_limit("quotas", limit, None))
        }
        QuotaNotFound(QuotaKey { holder, limit }) => (
            Code::NotFound,
            "QUOTA_NOT_FOUND",
            two_values(("principal", holder), ("limit_name", limit)),
        ),
        TooManyStreams { principal, limit } => {
            let what = Limit::Streams;
            (Code::ResourceExhausted, reason_of(what), of_quota(principal, what, limit))
        }
        RateExceeded { principal, limit, value, .. } => {
            (Code::ResourceExhausted, reason_of(*limit), of_quota(principal, *limit, value))
        }
        // Those that the broker's errors stand for.
        TopicHidden { .. }
        | RegistrationHidden(_)
        | NotRegistered(_)
        | OwnerFull { .. }
        | Unconfirmed
        | Invalid(_)
        | Read(_)
        | Write(_) => describe(&Error::internal()),
    }
}

/// As [`describe`], for why a token of an identity provider is refused.
fn describe_jwt(refusal: &Refusal) -> (Code, &'static str, Metadata) {
    let reason = match refusal {
        Refusal::Malformed(_) => "TOKEN_MALFORMED",
        Refusal::Expired => "TOKEN_EXPIRED",
        Refusal::Algorithm => "TOKEN_ALGORITHM_REFUSED",
        Refusal::UnknownKey => "TOKEN_KEY_UNKNOWN",
        Refusal::Signature => "TOKEN_SIGNATURE_WRONG",
        Refusal::NotYetValid => "TOKEN_NOT_YET_VALID",
        Refusal::Claim(claim) => {
            let metadata = vec![("claim", claim.clone())];
            return (Code::Unauthenticated, "TOKEN_CLAIM_REFUSED", metadata);
        }
        Refusal::NoKeys => return (Code::Unavailable, "TOKEN_KEYS_UNAVAILABLE", Vec::new()),
    };
    (Code::Unauthenticated, reason, Vec::new())
}

fn of_registration(RegistrationKey { topic, id }: &RegistrationKey) -> Metadata {
    let name = match id {
        RegistrationId::Producer(_) => "producer_id",
        RegistrationId::Consumer(_) => "consumer_id",
    };
    vec![("topic", topic.to_string()), (name, id.as_str().to_owned())]
}

/// There are as many of something as an option permits.
fn too_many(
    what: Limit,
    option: &'static str,
    topic: Option<&TopicName>,
    limit: usize,
) -> (Code, &'static str, Metadata) {
    let mut metadata = of_limit(option, &limit, None);
    metadata.extend(topic.map(|topic| ("topic", topic.to_string())));
    (Code::ResourceExhausted, reason_of(what), metadata)
}

fn of_quota(principal: &Principal, limit: Limit, value: &impl ToString) -> Metadata {
    of_limit(limit, value, Some(principal))
}

/// A limit by its name and value, and the principal that it holds for.
fn of_limit(name: impl ToString, value: &impl ToString, principal: Option<&Principal>) -> Metadata {
    let mut metadata = two_values(("limit", value), ("limit_name", &name));
    metadata.extend(principal.map(|principal| ("principal", principal.to_string())));
    metadata
}

/// Why a call is refused that would exceed a limit.
fn reason_of(limit: Limit) -> &'static str {
    match limit {
        Limit::MessagesPerSecond | Limit::BytesPerSecond => "RATE_EXCEEDED",
        Limit::Streams => "TOO_MANY_STREAMS",
        Limit::Topics => "TOO_MANY_TOPICS",
        Limit::Producers => "TOO_MANY_PRODUCERS",
        Limit::Consumers => "TOO_MANY_CONSUMERS",
    }
}

fn values<const N: usize>(values: [(&'static str, &impl ToString); N]) -> Metadata {
    values.into_iter().map(|(name, value)| (name, value.to_string())).collect()
}

fn two_values(
    (first_name, first): (&'static str, &impl ToString),
    (second_name, second): (&'static str, &impl ToString),
) -> Metadata {
    vec![(first_name, first.to_string()), (second_name, second.to_string())]
}

fn of_field(invalid: &InvalidInput) -> Metadata {
    let mut metadata = vec![("field", invalid.field.clone())];
    metadata.extend(invalid.limit.map(|limit| ("limit", limit.to_string())));
    metadata
}
