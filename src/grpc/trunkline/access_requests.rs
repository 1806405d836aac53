//! Decodes and encodes what is asked about tokens, grants, quotas and owners.

use std::time::Duration;

use prost_types::Timestamp;

use crate::{
    access::{NewToken, RotateToken},
    grpc::trunkline::decode,
    model::{
        AuditFilter, AuditRecord, Grant, GrantKey, InvalidInput, Limit, Operation, Principal,
        Quota, QuotaHolder, QuotaKey, RegistrationKey, TimeBound, Token, TopicPattern,
    },
    proto::{self, assign_owner_request::Registration as ProtoRegistration},
};

type Decoded<T> = Result<T, InvalidInput>;

const MAX_DESCRIPTION_BYTES: usize = 256;

const MIN_VALIDITY: Duration = Duration::from_secs(1);
const MAX_VALIDITY: Duration = Duration::from_secs(3_650 * 24 * 3_600);

const DEFAULT_OVERLAP: Duration = Duration::from_secs(3_600);
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3_600);

pub(super) fn new_token(request: proto::CreateTokenRequest) -> Decoded<NewToken> {
    let proto::CreateTokenRequest { principal, description, valid_for } = request;
    let principal = self::principal(&principal)?;
    if description.len() > MAX_DESCRIPTION_BYTES {
        let (actual, limit) = (description.len(), MAX_DESCRIPTION_BYTES);
        return Err(InvalidInput::over_limit("description", actual, limit, "bytes"));
    }
    if description.chars().any(char::is_control) {
        return Err(InvalidInput::new("description", "holds a control character"));
    }
    Ok(NewToken { principal, description, valid_for: validity(valid_for)? })
}

pub(super) fn rotate_token(request: proto::RotateTokenRequest) -> Decoded<RotateToken> {
    let proto::RotateTokenRequest { token_id, valid_for, overlap } = request;
    let overlap = match overlap {
        None => DEFAULT_OVERLAP,
        Some(overlap) => decode::duration("overlap", overlap, Duration::ZERO, MAX_OVERLAP)?,
    };
    Ok(RotateToken { id: token_id, valid_for: validity(valid_for)?, overlap })
}

pub(super) fn principal(text: &str) -> Decoded<Principal> {
    Principal::parse(text).map_err(|invalid| invalid.in_field("principal"))
}

/// A principal that a list is limited to, if it is.
pub(super) fn principal_of_list(text: &str) -> Decoded<Option<Principal>> {
    if text.is_empty() { Ok(None) } else { principal(text).map(Some) }
}

/// Which records of the audit are asked for.
pub(super) fn audit_filter(
    principal: &str,
    topic: &str,
    since: Option<Timestamp>,
) -> Decoded<AuditFilter> {
    Ok(AuditFilter {
        principal: principal_of_list(principal)?,
        topic: if topic.is_empty() { None } else { Some(decode::topic_name(topic)?) },
        since: since
            .map(|Timestamp { seconds, nanos }| TimeBound::parse(seconds, nanos))
            .transpose()
            .map_err(|invalid| invalid.in_field("since"))?
            .map(TimeBound::time),
    })
}

pub(super) fn encode_record(record: AuditRecord) -> proto::AuditRecord {
    proto::AuditRecord {
        time: Some(record.at.into()),
        act: record.act,
        outcome: record.outcome,
        principal: record.principal,
        token_id: record.token_id,
        address: record.address,
        method: record.method,
        topic: record.topic,
        subject: record.subject,
        reason: record.reason,
        details: record.details.into_iter().collect(),
        count: i64::try_from(record.count).unwrap_or(i64::MAX),
    }
}

pub(super) fn grant_key(who: &str, operation: i32, topics: &str) -> Decoded<GrantKey> {
    let principal = principal(who)?;
    let operation = match proto::Operation::try_from(operation) {
        Ok(proto::Operation::Admin) => Operation::Admin,
        Ok(proto::Operation::Publish) => Operation::Publish,
        Ok(proto::Operation::Consume) => Operation::Consume,
        Ok(proto::Operation::Read) => Operation::Read,
        Ok(proto::Operation::Unspecified) => {
            return Err(InvalidInput::new("operation", "must be given"));
        }
        Err(_) => return Err(decode::unknown_value("operation", operation)),
    };
    let topics = TopicPattern::parse(topics).map_err(|invalid| invalid.in_field("topics"))?;
    Ok(GrantKey { principal, operation, topics })
}

fn quota_holder(text: &str) -> Decoded<QuotaHolder> {
    QuotaHolder::parse(text).map_err(|invalid| invalid.in_field("principal"))
}

/// A holder of quotas that a list is limited to, if it is.
pub(super) fn quota_holder_of_list(text: &str) -> Decoded<Option<QuotaHolder>> {
    if text.is_empty() { Ok(None) } else { quota_holder(text).map(Some) }
}

pub(super) fn quota_key(holder: &str, limit: i32) -> Decoded<QuotaKey> {
    let holder = quota_holder(holder)?;
    let limit = match proto::Limit::try_from(limit) {
        Ok(proto::Limit::MessagesPerSecond) => Limit::MessagesPerSecond,
        Ok(proto::Limit::BytesPerSecond) => Limit::BytesPerSecond,
        Ok(proto::Limit::Streams) => Limit::Streams,
        Ok(proto::Limit::Topics) => Limit::Topics,
        Ok(proto::Limit::Producers) => Limit::Producers,
        Ok(proto::Limit::Consumers) => Limit::Consumers,
        Ok(proto::Limit::Unspecified) => {
            return Err(InvalidInput::new("limit", "must be given"));
        }
        Err(_) => return Err(decode::unknown_value("limit", limit)),
    };
    Ok(QuotaKey { holder, limit })
}

pub(super) fn quota_value(value: i64) -> Decoded<u64> {
    Limit::check(value).map_err(|invalid| invalid.in_field("value"))
}

pub(super) fn registration(
    topic: &str,
    registration: Option<ProtoRegistration>,
) -> Decoded<RegistrationKey> {
    let topic = decode::topic_name(topic)?;
    match registration {
        None => Err(InvalidInput::new("registration", "must be a producer_id or a consumer_id")),
        Some(ProtoRegistration::ProducerId(id)) => {
            Ok(RegistrationKey::producer(&topic, &decode::producer_id(&id)?))
        }
        Some(ProtoRegistration::ConsumerId(id)) => {
            Ok(RegistrationKey::consumer(&topic, &decode::consumer_id(&id)?))
        }
    }
}

pub(super) fn encode_token(token: Token) -> proto::Token {
    proto::Token {
        token_id: token.id,
        principal: token.principal.as_str().to_owned(),
        description: token.description,
        create_time: Some(token.created_at.into()),
        expire_time: token.expires_at.map(Timestamp::from),
        revoke_time: token.revoked_at.map(Timestamp::from),
        last_use_time: token.last_used_at.map(Timestamp::from),
        created_by: token.created_by,
    }
}

pub(super) fn encode_grant(grant: Grant) -> proto::Grant {
    let operation = match grant.operation {
        Operation::Admin => proto::Operation::Admin,
        Operation::Publish => proto::Operation::Publish,
        Operation::Consume => proto::Operation::Consume,
        Operation::Read => proto::Operation::Read,
    };
    proto::Grant {
        principal: grant.principal.as_str().to_owned(),
        operation: operation.into(),
        topics: grant.topics.as_str().to_owned(),
        create_time: Some(grant.created_at.into()),
        created_by: grant.created_by,
    }
}

pub(super) fn encode_quota(quota: Quota) -> proto::Quota {
    let limit = match quota.key.limit {
        Limit::MessagesPerSecond => proto::Limit::MessagesPerSecond,
        Limit::BytesPerSecond => proto::Limit::BytesPerSecond,
        Limit::Streams => proto::Limit::Streams,
        Limit::Topics => proto::Limit::Topics,
        Limit::Producers => proto::Limit::Producers,
        Limit::Consumers => proto::Limit::Consumers,
    };
    proto::Quota {
        principal: quota.key.holder.as_str().to_owned(),
        limit: limit.into(),
        value: i64::try_from(quota.value).unwrap_or(i64::MAX),
        change_time: Some(quota.changed_at.into()),
        changed_by: quota.changed_by,
    }
}

fn validity(valid_for: Option<prost_types::Duration>) -> Decoded<Option<Duration>> {
    let checked = |time| decode::duration("valid_for", time, MIN_VALIDITY, MAX_VALIDITY);
    valid_for.map(checked).transpose()
}
