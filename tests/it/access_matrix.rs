//! Every call of every service, by every kind of caller. A call that is missing in the table fails the
//! test.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_types::StatusExt as _;
use trunkline::proto::{
    self, Operation, PublishStreamResponse, publish_stream_response::Result as Answer,
};

use crate::support::{
    RawClient, message,
    secured::{SecuredBroker, id_of},
    soon, until,
};

/// What a call is answered with, as far as this test tells answers apart.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was permitted, whatever came of it.
    Permitted,
    /// The reason why not.
    Refused(&'static str),
}

use Outcome::{Permitted, Refused};

const NOT_GRANTED: Outcome = Refused("NOT_GRANTED");
const HIDDEN: Outcome = Refused("TOPIC_NOT_FOUND");

/// A call, and who may make it.
struct Call {
    /// The encoded request, for a topic.
    request: fn(&Names) -> Vec<u8>,
    /// By whom it is permitted, of those with a grant on the topic. Registrations that the call names
    /// belong to those of them who may have any.
    permits: &'static [Operation],
    /// The outcome for a principal without any right on the topic.
    without_rights: Outcome,
    /// The outcome for somebody with the same grants whose registration it is not; `None` if the
    /// call names none.
    of_another: Option<Outcome>,
}

/// What a call is about: one topic for each of them, as some calls delete it.
struct Names {
    topic: String,
    /// A token that does not belong to the caller.
    token_id: String,
}

const ALL: &[Operation] =
    &[Operation::Admin, Operation::Publish, Operation::Consume, Operation::Read];
const ADMIN: &[Operation] = &[Operation::Admin];
const READ: &[Operation] = &[Operation::Admin, Operation::Consume, Operation::Read];
const PUBLISH: &[Operation] = &[Operation::Publish];
const CONSUME: &[Operation] = &[Operation::Consume];

/// Neither the topic's administrators nor anybody else with a grant on topics may call these.
const NOBODY: &[Operation] = &[];

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

const NOT_OWNER: Option<Outcome> = Some(Refused("NOT_OWNER"));

/// The calls, with one entry for each.
fn table() -> BTreeMap<&'static str, Call> {
    let register = |permits, request| on_topic(request, permits, NOT_OWNER);
    let own = |permits, request| on_topic(request, permits, NOT_OWNER);
    let get_producer = |names: &Names| producer(&names.topic);
    let get_consumer = |names: &Names| consumer(&names.topic);
    let topic = |names: &Names| topic(&names.topic);
    BTreeMap::from([
        ("trunkline.v1.AccessService/WhoAmI", for_everyone(|_| Vec::new())),
        ("trunkline.v1.AccessService/ListTokens", for_everyone(|_| Vec::new())),
        ("trunkline.v1.AccessService/ListGrants", for_everyone(|_| Vec::new())),
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
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            for_everyone(|_| {
                let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
                v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) }
                    .encode_to_vec()
            }),
        ),
        (
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            for_everyone(|_| {
                let list =
                    v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
                v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(list) }
                    .encode_to_vec()
            }),
        ),
    ])
}

/// Calls that need no token.
const OPEN: [&str; 2] = ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"];

/// The paths of all calls in the descriptors that the broker serves.
fn paths() -> Vec<String> {
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

fn token_id(names: &Names) -> Vec<u8> {
    proto::RevokeTokenRequest { token_id: names.token_id.clone() }.encode_to_vec()
}

/// A broker with a principal for each operation on the topics `t*`, and others.
struct Matrix {
    broker: SecuredBroker,
    client: RawClient,
    sql: tokio_postgres::Client,
    topics: usize,
}

impl Matrix {
    async fn start() -> Self {
        let broker = SecuredBroker::start().await;
        let client = RawClient::connect(&broker.endpoint).await;
        let sql = broker.sql().await;
        Self { broker, client, sql, topics: 0 }
    }

    /// The token of a new principal.
    async fn principal(&self, principal: &str, operation: Operation, topics: &str) -> String {
        let root = self.broker.root().await;
        root.grant(principal, operation, topics).await;
        root.create_token(principal).await
    }

    /// A new topic whose producer `p` and consumer `c` belong to a principal.
    async fn topic(&mut self, owner: &str) -> Names {
        self.topics += 1;
        let topic = format!("t{}", self.topics);
        let create = format!(
            "with topic as (insert into trunkline.topic (name) values ('{topic}') returning id),
                  head as (insert into trunkline.topic_head (topic_id) select id from topic)
             select 1 from topic;
             insert into trunkline.producer_topic (topic_id, producer_id, owner)
             select id, 'p', '{owner}' from trunkline.topic where name = '{topic}';
             insert into trunkline.consumer_topic (topic_id, consumer_id, position, owner)
             select id, 'c', 0, '{owner}' from trunkline.topic where name = '{topic}'"
        );
        self.sql.batch_execute(&create).await.unwrap();
        Names { topic, token_id: id_of(&self.broker.root).to_owned() }
    }

    async fn call(&self, path: &str, authorization: Option<&str>, request: &[u8]) -> Outcome {
        let headers = authorization.map(|token| ("authorization", format!("Bearer {token}")));
        let headers: Vec<_> = headers.into_iter().collect();
        let answer = soon(path, self.client.call(path, &headers, &[request])).await;
        let status = answer.status.unwrap_or_else(|| panic!("{path}: no status"));
        let mut reason = status.get_details_error_info().map(|info| info.reason);
        if status.code() == Code::Ok && path.ends_with("/PublishStream") {
            let response = PublishStreamResponse::decode(answer.messages[0].clone()).unwrap();
            if let Some(Answer::Refusal(refusal)) = response.result {
                reason = Some(refusal.reason);
            }
        }
        // What the broker answers once a caller has passed.
        const PASSED: [&str; 8] = [
            "TOPIC_EXISTS",
            "PRODUCER_EXISTS",
            "CONSUMER_EXISTS",
            "LEASE_LOST",
            "COMMIT_BEYOND",
            "GRANT_NOT_FOUND",
            "LEASE_HELD",
            "DEADLINE_EXCEEDED",
        ];
        match reason {
            None => {
                assert_eq!(status.code(), Code::Ok, "{path}: {status:?}");
                Permitted
            }
            Some(reason) if PASSED.contains(&reason.as_str()) => Permitted,
            Some(reason) => Refused(reason.leak()),
        }
    }
}

#[tokio::test]
async fn every_call_has_an_entry_in_the_table() {
    let table = table();
    for path in paths() {
        let known = table.contains_key(path.as_str()) || OPEN.contains(&path.as_str());
        assert!(known, "the table lacks {path}");
    }
    assert_eq!(table.len() + OPEN.len(), paths().len());
}

#[tokio::test]
async fn every_call_but_those_for_health_needs_a_valid_token() {
    let matrix = Matrix::start().await;
    let root = matrix.broker.root().await;
    let revoked = matrix.principal("x", Operation::Read, "*").await;
    root.revoke(id_of(&revoked)).await.unwrap();
    let request = proto::CreateTokenRequest {
        principal: "x".to_owned(),
        valid_for: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    };
    let expired = root.access().create_token(request).await.unwrap().into_inner().secret;
    let short = matrix.broker.with_token(&expired).await;
    until("the token expires", async || short.who_am_i().await.is_err()).await;
    let unknown = format!("{}{}", &revoked[..17], &matrix.broker.root[17..]);
    for (path, call) in table() {
        let names = Names { topic: "t".to_owned(), token_id: "aaaaaaaaaaaa".to_owned() };
        let request = (call.request)(&names);
        for (token, reason) in [
            (None, "TOKEN_MISSING"),
            (Some("nonsense"), "TOKEN_MALFORMED"),
            (Some(unknown.as_str()), "TOKEN_UNKNOWN"),
            (Some(expired.as_str()), "TOKEN_EXPIRED"),
            (Some(revoked.as_str()), "TOKEN_REVOKED"),
        ] {
            let outcome = matrix.call(path, token, &request).await;
            assert_eq!(outcome, Refused(reason), "{path}");
        }
    }
    assert_eq!(matrix.call(OPEN[0], None, b"").await, Permitted);
    let (response, _body) = matrix.client.begin(OPEN[1], &[]).await;
    let response = soon("an answer", response).await.unwrap();
    assert!(!response.headers().contains_key("grpc-status"), "{response:?}");
}

#[tokio::test]
async fn every_call_needs_its_right_on_the_topic() {
    let mut matrix = Matrix::start().await;
    let mut tokens = Vec::new();
    for operation in ALL {
        let name = format!("{operation:?}");
        tokens.push((*operation, matrix.principal(&name, *operation, "t*").await));
    }
    let elsewhere = matrix.principal("elsewhere", Operation::Admin, "elsewhere").await;
    let none = matrix.broker.root().await.create_token("none").await;
    for (path, call) in table() {
        for (operation, token) in &tokens {
            let names = matrix.topic(&format!("{operation:?}")).await;
            let outcome = matrix.call(path, Some(token), &(call.request)(&names)).await;
            let expected = match call.permits.contains(operation) {
                true => Permitted,
                // Not a matter of a topic.
                false if call.without_rights == Refused("TOKEN_NOT_FOUND") => {
                    call.without_rights.clone()
                }
                false => NOT_GRANTED,
            };
            assert_eq!(outcome, expected, "{path} by a principal with {operation:?}");
        }
        for token in [&elsewhere, &none] {
            let names = matrix.topic("none").await;
            let outcome = matrix.call(path, Some(token), &(call.request)(&names)).await;
            assert_eq!(outcome, call.without_rights, "{path} without a right");
        }
        // The token that some of the others name is the administrator's own.
        if call.permits == NOBODY {
            continue;
        }
        let names = matrix.topic("x").await;
        let root = matrix.broker.root.clone();
        let by_root = matrix.call(path, Some(&root), &(call.request)(&names)).await;
        let is_for_admins = call.permits.contains(&Operation::Admin);
        // The registrations are another's.
        let is_another = call.of_another == NOT_OWNER && path.contains("/Register");
        assert_eq!(by_root == Permitted, is_for_admins && !is_another, "{path}: {by_root:?}");
    }
}

#[tokio::test]
async fn every_call_that_names_a_registration_needs_its_owner() {
    let mut matrix = Matrix::start().await;
    for (path, call) in table() {
        let Some(expected) = call.of_another.clone() else { continue };
        // Those who may do it only with what is their own.
        let operation = match path.contains("Consumer") && !path.ends_with("/GetConsumer") {
            true => Operation::Consume,
            false => Operation::Publish,
        };
        let principal = format!("{operation:?}");
        let token = matrix.principal(&principal, operation, "t*").await;
        let names = matrix.topic("somebody-else").await;
        let outcome = matrix.call(path, Some(&token), &(call.request)(&names)).await;
        assert_eq!(outcome, expected, "{path}");
        let names = matrix.topic(&principal).await;
        let outcome = matrix.call(path, Some(&token), &(call.request)(&names)).await;
        assert_eq!(outcome, Permitted, "{path} by the owner");
    }
}
