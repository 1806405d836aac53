//! All calls, and who may make them.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic_reflection::pb::{v1, v1alpha};
use trunkline::proto::{self, Operation};

use crate::support::message;

/// What a call is answered with, as far as this test tells answers apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was permitted, whatever came of it.
    Permitted,
    /// The reason why not.
    Refused(&'static str),
}

pub use Outcome::{Permitted, Refused};

pub const NOT_GRANTED: Outcome = Refused("NOT_GRANTED");
pub const HIDDEN: Outcome = Refused("TOPIC_NOT_FOUND");

/// A call, and who may make it.
pub struct Call {
    /// The encoded request, for a topic.
    pub request: fn(&Names) -> Vec<u8>,
    /// By whom it is permitted, of those with a grant on the topic. Registrations that the call names
    /// belong to those of them who may have any.
    pub permits: &'static [Operation],
    /// The outcome for a principal without any right on the topic.
    pub without_rights: Outcome,
    /// The outcome for somebody with the same grants whose registration it is not; `None` if the
    /// call names none.
    pub of_another: Option<Outcome>,
}

/// What a call is about: one topic for each of them, as some calls delete it.
pub struct Names {
    pub topic: String,
    /// A token that does not belong to the caller.
    pub token_id: String,
}

pub const ALL: &[Operation] =
    &[Operation::Admin, Operation::Publish, Operation::Consume, Operation::Read];
const ADMIN: &[Operation] = &[Operation::Admin];
const READ: &[Operation] = &[Operation::Admin, Operation::Consume, Operation::Read];
const PUBLISH: &[Operation] = &[Operation::Publish];
const CONSUME: &[Operation] = &[Operation::Consume];

/// Neither the topic's administrators nor anybody else with a grant on topics may call these.
pub const NOBODY: &[Operation] = &[];

fn on_topic(
    request: fn(&Names) -> Vec<u8>,
    permits: &'static [Operation],
    of_another: Option<Outcome>,
) -> Call {
    Call { request, permits, without_rights: HIDDEN, of_another }
}

fn for_everyone(request: fn(&Names) -> Vec<u8>) -> Call {
    Call { request, permits: ALL, without_rights: Permitted, of_another: None }
}

fn for_administrators(request: fn(&Names) -> Vec<u8>) -> Call {
    Call { request, permits: NOBODY, without_rights: NOT_GRANTED, of_another: None }
}

/// For the principal of the token that the call names; for others there is no such token.
fn for_its_principal(request: fn(&Names) -> Vec<u8>) -> Call {
    Call { request, permits: NOBODY, without_rights: Refused("TOKEN_NOT_FOUND"), of_another: None }
}

pub const NOT_OWNER: Option<Outcome> = Some(Refused("NOT_OWNER"));

/// The calls, with one entry for each.
pub fn table() -> BTreeMap<&'static str, Call> {
    let register = |permits, request| on_topic(request, permits, NOT_OWNER);
    let own = |permits, request| on_topic(request, permits, NOT_OWNER);
    let get_producer = |names: &Names| producer(&names.topic);
    let get_consumer = |names: &Names| consumer(&names.topic);
    let topic = |names: &Names| topic(&names.topic);
    BTreeMap::from([
        ("trunkline.v1.AccessService/WhoAmI", for_everyone(|_| Vec::new())),
        ("trunkline.v1.AccessService/ListTokens", for_everyone(|_| Vec::new())),
        ("trunkline.v1.AccessService/ListGrants", for_everyone(|_| Vec::new())),
        ("trunkline.v1.AccessService/ListQuotas", for_everyone(|_| Vec::new())),
        ("trunkline.v1.AccessService/SetQuota", for_administrators(quota)),
        ("trunkline.v1.AccessService/RemoveQuota", for_administrators(quota)),
        ("trunkline.v1.AccessService/ListAudit", for_administrators(|_| Vec::new())),
        ("trunkline.v1.AccessService/CreateToken", for_administrators(create_token)),
        ("trunkline.v1.AccessService/AddGrant", for_administrators(grant)),
        ("trunkline.v1.AccessService/RemoveGrant", for_administrators(grant)),
        ("trunkline.v1.AccessService/RevokeToken", for_its_principal(token_id)),
        ("trunkline.v1.AccessService/RotateToken", for_its_principal(token_id)),
        ("trunkline.v1.AccessService/AssignOwner", on_topic(assign, ADMIN, None)),
        (
            "trunkline.v1.TopicService/CreateTopic",
            Call { request: topic, permits: ADMIN, without_rights: NOT_GRANTED, of_another: None },
        ),
        ("trunkline.v1.OverviewService/GetOverview", for_everyone(|_| Vec::new())),
        ("trunkline.v1.TopicService/ListTopics", for_everyone(|_| Vec::new())),
        ("trunkline.v1.TopicService/GetTopic", on_topic(topic, ALL, None)),
        ("trunkline.v1.TopicService/ReadMessages", on_topic(topic, READ, None)),
        ("trunkline.v1.TopicService/UpdateTopic", on_topic(update, ADMIN, None)),
        ("trunkline.v1.TopicService/TrimTopic", on_topic(trim, ADMIN, None)),
        ("trunkline.v1.TopicService/DeleteTopic", on_topic(topic, ADMIN, None)),
        (
            "trunkline.v1.ProducerService/RegisterProducer",
            register(&[Operation::Admin, Operation::Publish], get_producer),
        ),
        (
            "trunkline.v1.ProducerService/UnregisterProducer",
            own(&[Operation::Admin, Operation::Publish], get_producer),
        ),
        (
            "trunkline.v1.ProducerService/GetProducer",
            on_topic(get_producer, ALL, Some(Refused("PRODUCER_NOT_FOUND"))),
        ),
        ("trunkline.v1.ProducerService/ListProducers", on_topic(topic, ALL, None)),
        ("trunkline.v1.ProducerService/Publish", own(PUBLISH, publish)),
        ("trunkline.v1.ProducerService/PublishStream", own(PUBLISH, publish)),
        (
            "trunkline.v1.ConsumerService/RegisterConsumer",
            register(&[Operation::Admin, Operation::Consume], get_consumer),
        ),
        (
            "trunkline.v1.ConsumerService/UnregisterConsumer",
            own(&[Operation::Admin, Operation::Consume], get_consumer),
        ),
        (
            "trunkline.v1.ConsumerService/GetConsumer",
            on_topic(get_consumer, ALL, Some(Refused("CONSUMER_NOT_FOUND"))),
        ),
        ("trunkline.v1.ConsumerService/ListConsumers", on_topic(topic, ALL, None)),
        ("trunkline.v1.ConsumerService/Consume", own(CONSUME, consume)),
        ("trunkline.v1.ConsumerService/Pull", own(CONSUME, get_consumer)),
        ("trunkline.v1.ConsumerService/Commit", own(CONSUME, commit)),
        (
            "trunkline.v1.ConsumerService/Seek",
            own(&[Operation::Admin, Operation::Consume], get_consumer),
        ),
        (
            "trunkline.v1.SubscriptionService/CreateSubscription",
            register(&[Operation::Admin, Operation::Consume], get_consumer),
        ),
        (
            "trunkline.v1.SubscriptionService/DeleteSubscription",
            own(&[Operation::Admin, Operation::Consume], get_consumer),
        ),
        (
            "trunkline.v1.SubscriptionService/GetSubscription",
            on_topic(get_consumer, ALL, Some(Refused("CONSUMER_NOT_FOUND"))),
        ),
        ("trunkline.v1.SubscriptionService/ListSubscriptions", on_topic(topic, ALL, None)),
        (
            "trunkline.v1.SubscriptionService/UpdateSubscription",
            own(&[Operation::Admin, Operation::Consume], get_consumer),
        ),
        (
            "trunkline.v1.SubscriptionService/SeekSubscription",
            own(&[Operation::Admin, Operation::Consume], get_consumer),
        ),
        ("trunkline.v1.SubscriptionService/Subscribe", own(CONSUME, subscribe)),
        ("trunkline.v1.SubscriptionService/Receive", own(CONSUME, get_consumer)),
        ("trunkline.v1.SubscriptionService/Settle", own(CONSUME, settle)),
        (
            "trunkline.v1.SubscriptionService/ListParked",
            on_topic(get_consumer, ALL, Some(Refused("CONSUMER_NOT_FOUND"))),
        ),
        (
            "trunkline.v1.SubscriptionService/ReplayParked",
            own(&[Operation::Admin, Operation::Consume], get_consumer),
        ),
        (
            "trunkline.v1.SubscriptionService/DiscardParked",
            own(&[Operation::Admin, Operation::Consume], get_consumer),
        ),
        (
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            for_everyone(|_| {
                let list =
                    v1::server_reflection_request::MessageRequest::ListServices(String::new());
                v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) }
                    .encode_to_vec()
            }),
        ),
        (
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            for_everyone(|_| {
                let list =
                    v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
                v1alpha::ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(list),
                }
                .encode_to_vec()
            }),
        ),
    ])
}

/// Calls that need no token.
pub const OPEN: [&str; 2] = ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"];

/// The paths of all calls in the descriptors that the broker serves.
pub fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    for set in [
        proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        v1::FILE_DESCRIPTOR_SET,
        v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        for file in FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                let calls = service.method.iter();
                paths.extend(calls.map(|method| {
                    format!("{}.{}/{}", file.package(), service.name(), method.name())
                }));
            }
        }
    }
    paths
}

fn topic(topic: &str) -> Vec<u8> {
    proto::GetTopicRequest { topic: topic.to_owned() }.encode_to_vec()
}

fn producer(topic: &str) -> Vec<u8> {
    proto::GetProducerRequest { topic: topic.to_owned(), producer_id: "p".to_owned() }
        .encode_to_vec()
}

fn consumer(topic: &str) -> Vec<u8> {
    proto::GetConsumerRequest { topic: topic.to_owned(), consumer_id: "c".to_owned() }
        .encode_to_vec()
}

fn subscribe(names: &Names) -> Vec<u8> {
    let open = proto::OpenSubscription {
        topic: names.topic.clone(),
        subscription_id: "c".to_owned(),
        ..Default::default()
    };
    let request = Some(proto::subscribe_request::Request::Open(open));
    proto::SubscribeRequest { request }.encode_to_vec()
}

fn settle(names: &Names) -> Vec<u8> {
    let acknowledge = proto::settlement::Verdict::Acknowledge(proto::Acknowledge {});
    let settlement =
        proto::Settlement { delivery: 1, verdict: Some(acknowledge), ..Default::default() };
    proto::SettleRequest {
        topic: names.topic.clone(),
        subscription_id: "c".to_owned(),
        settlements: vec![settlement],
    }
    .encode_to_vec()
}

fn publish(names: &Names) -> Vec<u8> {
    proto::PublishRequest {
        topic: names.topic.clone(),
        producer_id: "p".to_owned(),
        messages: vec![message("m")],
        ..Default::default()
    }
    .encode_to_vec()
}

/// A stream that ends by itself.
fn consume(names: &Names) -> Vec<u8> {
    proto::ConsumeRequest {
        topic: names.topic.clone(),
        consumer_id: "c".to_owned(),
        stop: Some(proto::consume_request::Stop::UntilCaughtUp(true)),
        ..Default::default()
    }
    .encode_to_vec()
}

fn commit(names: &Names) -> Vec<u8> {
    let (topic, consumer_id) = (names.topic.clone(), "c".to_owned());
    proto::CommitRequest { topic, consumer_id, epoch: 1, position: 0 }.encode_to_vec()
}

fn update(names: &Names) -> Vec<u8> {
    proto::UpdateTopicRequest {
        topic: names.topic.clone(),
        description: "changed".to_owned(),
        ..Default::default()
    }
    .encode_to_vec()
}

fn trim(names: &Names) -> Vec<u8> {
    let before = Some(proto::trim_topic_request::Before::Offset(0));
    proto::TrimTopicRequest { topic: names.topic.clone(), before }.encode_to_vec()
}

fn assign(names: &Names) -> Vec<u8> {
    let producer = proto::assign_owner_request::Registration::ProducerId("p".to_owned());
    proto::AssignOwnerRequest {
        topic: names.topic.clone(),
        registration: Some(producer),
        principal: "x".to_owned(),
    }
    .encode_to_vec()
}

fn create_token(_: &Names) -> Vec<u8> {
    proto::CreateTokenRequest { principal: "x".to_owned(), ..Default::default() }.encode_to_vec()
}

fn grant(_: &Names) -> Vec<u8> {
    let (principal, topics) = ("x".to_owned(), "*".to_owned());
    proto::AddGrantRequest { principal, operation: Operation::Read.into(), topics }.encode_to_vec()
}

fn quota(_: &Names) -> Vec<u8> {
    let (principal, limit) = ("x".to_owned(), proto::Limit::Streams.into());
    proto::SetQuotaRequest { principal, limit, value: 1 }.encode_to_vec()
}

fn token_id(names: &Names) -> Vec<u8> {
    proto::RevokeTokenRequest { token_id: names.token_id.clone() }.encode_to_vec()
}
