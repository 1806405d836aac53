//! The only place that makes statuses: each error of the broker gets its code, its reason, and
//! every value that its text names.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    access::{self, jwt::Refusal},
    broker::Error,
    grpc::{
        limits::{MAX_METADATA_BYTES, MAX_METADATA_ENTRIES, MAX_REQUEST_BYTES},
        open_calls::TooManyCalls,
    },
    model::{
        InvalidInput, Limit, LogEnds, OffsetRange, Principal, QuotaKey, RegistrationId,
        RegistrationKey, StoredRun, TopicName,
    },
    proto::PublishRefusal,
};

const DOMAIN: &str = "trunkline";

type Metadata = Vec<(&'static str, String)>;

/// Why a call is refused: by the broker, or because of who makes it.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    Broker(Error),
    Access(access::Error),
    /// Because of who makes it, which the caller must not learn: it is told of something else.
    Hidden {
        told: Error,
        denied: access::Error,
    },
}

impl Refused {
    /// Whether the call may have been done.
    pub(crate) fn has_unknown_outcome(&self) -> bool {
        matches!(self, Self::Broker(Error::OutcomeUnknown(_)))
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Broker(error)
    }
}

impl From<InvalidInput> for Refused {
    fn from(invalid: InvalidInput) -> Self {
        Self::Broker(invalid.into())
    }
}

/// What is hidden from a caller is refused with the very error of what does not exist.
impl From<access::Error> for Refused {
    fn from(error: access::Error) -> Self {
        Self::Broker(match error {
            access::Error::TopicHidden { ref topic } => {
                let told = Error::TopicNotFound { topic: topic.clone() };
                return Self::Hidden { told, denied: error };
            }
            access::Error::RegistrationHidden(ref key) => {
                return Self::Hidden { told: not_registered(key.clone()), denied: error };
            }
            access::Error::NotRegistered(key) => not_registered(key),
            access::Error::OwnerFull { principal, what, limit } => {
                Error::TooManyOfPrincipal { principal, what, limit }
            }
            access::Error::Unconfirmed => Error::unavailable(),
            access::Error::Invalid(invalid) => invalid.into(),
            access::Error::Read(error) => Error::of_read(error),
            access::Error::Write(error) => error.into(),
            other => return Self::Access(other),
        })
    }
}

fn not_registered(RegistrationKey { topic, id }: RegistrationKey) -> Error {
    match id {
        RegistrationId::Producer(producer) => Error::ProducerNotFound { topic, producer },
        RegistrationId::Consumer(consumer) => Error::ConsumerNotFound { topic, consumer },
    }
}

/// The code, reason and metadata of an error. Without a wildcard arm, so that a new error does not
/// compile until it has them.
fn describe(error: &Error) -> (Code, &'static str, Metadata) {
    use Error::*;
    match error {
        Invalid(invalid) => (Code::InvalidArgument, "INVALID_FIELD", of_field(invalid)),
        TopicNotFound { topic } => (Code::NotFound, "TOPIC_NOT_FOUND", values([("topic", topic)])),
        TopicExists { topic } => (Code::AlreadyExists, "TOPIC_EXISTS", values([("topic", topic)])),
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
fn describe_access(error: &access::Error) -> (Code, &'static str, Metadata) {
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
            let mut metadata = values([("limit", limit)]);
            metadata.extend(principal.iter().map(|name| ("principal", name.to_string())));
            (Code::ResourceExhausted, "TOO_MANY_TOKENS", metadata)
        }
        TooManyGrants { principal, limit } => {
            let mut metadata = values([("limit", limit)]);
            metadata.extend(principal.iter().map(|name| ("principal", name.to_string())));
            (Code::ResourceExhausted, "TOO_MANY_GRANTS", metadata)
        }
        TooManyQuotas { limit } => {
            (Code::ResourceExhausted, "TOO_MANY_QUOTAS", values([("limit", limit)]))
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
    let mut metadata = two_values(("limit", &limit), ("limit_name", &option));
    metadata.extend(topic.map(|topic| ("topic", topic.to_string())));
    (Code::ResourceExhausted, reason_of(what), metadata)
}

fn of_quota(principal: &Principal, limit: Limit, value: &impl ToString) -> Metadata {
    let mut metadata = two_values(("limit", value), ("limit_name", &limit));
    metadata.push(("principal", principal.to_string()));
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

/// The status that refuses a call or ends a stream. Logs the database's error, if there is one.
pub(crate) fn refuse(error: impl Into<Refused>) -> Status {
    match error.into() {
        Refused::Broker(error) => {
            error.log_cause("refuse a call");
            of(&error)
        }
        Refused::Access(error) => {
            let (code, reason, metadata) = describe_access(&error);
            let mut details = ErrorDetails::with_error_info(reason, DOMAIN, owned(metadata));
            if let Some(delay) = error.retry_after() {
                details.set_retry_info(Some(delay));
            }
            denied(Status::with_error_details(code, error.to_string(), details), error)
        }
        Refused::Hidden { told, denied: error } => denied(of(&told), error),
    }
}

/// Attaches why a call was denied to its status, for the audit. It is never sent.
fn denied(mut status: Status, error: access::Error) -> Status {
    status.set_source(Arc::new(error));
    status
}

/// The reason by which the audit knows a denied call: what its caller was told, unless that was something
/// else. `None` for what is refused for another reason than who calls.
pub(crate) fn denial(error: &access::Error) -> Option<&'static str> {
    use access::Error::*;
    match error {
        TopicHidden { .. } => Some("TOPIC_HIDDEN"),
        RegistrationHidden(_) => Some("REGISTRATION_HIDDEN"),
        TokenHidden { .. } => Some("TOKEN_HIDDEN"),
        TokenNotFound { .. } | NotRegistered(_) | Unconfirmed | Invalid(_) | Read(_) | Write(_) => {
            None
        }
        error => {
            let (code, reason, _) = describe_access(error);
            matches!(code, Code::Unauthenticated | Code::PermissionDenied).then_some(reason)
        }
    }
}

/// An error as a status.
pub(crate) fn of(error: &Error) -> Status {
    let (code, reason, metadata) = describe(error);
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, owned(metadata));
    if let Error::Invalid(invalid) = error {
        details.add_bad_request_violation(&invalid.field, &invalid.problem);
    }
    if let Error::LeaseHeld { topic, consumer, .. } = error {
        let subject = format!("{topic}/{consumer}");
        details.add_precondition_failure_violation("LEASE", subject, error.to_string());
    }
    if let Error::ProducerFenced { topic, producer, .. } = error {
        let subject = format!("{topic}/{producer}");
        details.add_precondition_failure_violation("EPOCH", subject, error.to_string());
    }
    if let Some(delay) = error.retry_after() {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, error.to_string(), details)
}

/// What a publish stream answers in place of a receipt.
pub(crate) fn refusal(error: &Refused) -> PublishRefusal {
    let ((code, reason, metadata), message, retry_after) = match error {
        Refused::Broker(error) | Refused::Hidden { told: error, .. } => {
            (describe(error), error.to_string(), error.retry_after())
        }
        Refused::Access(error) => (describe_access(error), error.to_string(), error.retry_after()),
    };
    PublishRefusal {
        code: code as i32,
        reason: reason.to_owned(),
        message,
        metadata: metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        retry_delay: retry_after.and_then(|delay| delay.try_into().ok()),
    }
}

fn owned(metadata: Metadata) -> HashMap<String, String> {
    metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A request that is larger than the server decodes.
pub(crate) fn too_large(bytes: usize, limit: usize) -> Status {
    let hint = if limit == MAX_REQUEST_BYTES { "; send fewer messages at once" } else { "" };
    let text = format!("request: is {bytes} bytes, and the limit is {limit}{hint}");
    over_limit("REQUEST_TOO_LARGE", limit, text)
}

/// A call beyond those that its owner, or all together, may have open.
pub(crate) fn too_many_calls(refusal: TooManyCalls) -> Status {
    let (whose, limit) = match refusal {
        TooManyCalls::OfOwner(limit) => ("this client", limit),
        TooManyCalls::OfAll(limit) => ("all clients of this broker together", limit),
    };
    let text = format!("{limit} calls of {whose} are open, which is the limit; nothing was done");
    let retry = Some(Duration::from_secs(1));
    limited(Code::ResourceExhausted, "TOO_MANY_CALLS", limit, retry, text)
}

/// A request that waited for room while others of its connection could not arrive.
pub(crate) fn too_many_publishes(limit: usize) -> Status {
    let text = format!(
        "request: others of this client, which may have {limit} bytes in flight, have to arrive \
         first; nothing was stored"
    );
    let retry = Some(Duration::from_millis(500));
    limited(Code::Unavailable, "TOO_MANY_PUBLISHES", limit, retry, text)
}

/// A request of which no byte arrived for too long.
pub(crate) fn stalled(limit: Duration) -> Status {
    let seconds = limit.as_secs();
    let text = format!("request: no part of it arrived for {seconds} s");
    limited(Code::DeadlineExceeded, "REQUEST_STALLED", seconds, None, text)
}

/// An answer that is refused because its owner has not read others.
pub(crate) fn answers_unread(limit: usize) -> Status {
    let text = format!(
        "answer: {limit} bytes of answers to this client wait to be read, which is the limit; what \
         the call did is done"
    );
    // Once the client has read some.
    let retry = Some(Duration::from_secs(1));
    limited(Code::ResourceExhausted, "ANSWERS_UNREAD", limit, retry, text)
}

/// Ends an answer that its client did not read in time.
pub(crate) fn answer_dropped() -> Status {
    let details = ErrorDetails::with_error_info("ANSWER_DROPPED", DOMAIN, HashMap::new());
    let text = "answer: the client did not read it in time; what the call did is done";
    Status::with_error_details(Code::DeadlineExceeded, text, details)
}

/// A call with more metadata than allowed.
pub(crate) fn metadata_too_large(bytes: usize) -> Status {
    let limit = MAX_METADATA_BYTES;
    let text = format!("metadata: is {bytes} bytes, and the limit is {limit}");
    over_limit("METADATA_TOO_LARGE", limit, text)
}

/// A call with more entries of metadata than allowed.
pub(crate) fn too_many_metadata_entries(entries: usize) -> Status {
    let limit = MAX_METADATA_ENTRIES;
    let text = format!("metadata: has {entries} entries, and the limit is {limit}");
    over_limit("METADATA_TOO_LARGE", limit, text)
}

/// A request that cannot be decoded, where no field can be named.
pub(crate) fn malformed(problem: &str) -> Status {
    let details = ErrorDetails::with_error_info("MALFORMED_REQUEST", DOMAIN, HashMap::new());
    let text = format!("request: cannot be decoded: {problem}");
    Status::with_error_details(Code::InvalidArgument, text, details)
}

/// A deadline that passed while a call that may change something was under way.
pub(crate) fn deadline_with_unknown_outcome() -> Status {
    let details = ErrorDetails::with_error_info("OUTCOME_UNKNOWN", DOMAIN, HashMap::new());
    let text = "the client's deadline has passed before the call was done: its outcome is unknown; \
                check before retrying";
    Status::with_error_details(Code::DeadlineExceeded, text, details)
}

fn over_limit(reason: &str, limit: usize, text: String) -> Status {
    limited(Code::ResourceExhausted, reason, limit, None, text)
}

/// A refusal that names its limit and, if that helps, when to try again.
fn limited(
    code: Code,
    reason: &str,
    limit: impl ToString,
    retry: Option<Duration>,
    text: String,
) -> Status {
    let metadata = HashMap::from([("limit".to_owned(), limit.to_string())]);
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    if let Some(delay) = retry {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, text, details)
}
