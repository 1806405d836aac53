//! Open streams end when their callers may not have them any more.

use std::time::Duration;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::time::Instant;
use tonic::Code;
use tonic_reflection::pb::{v1, v1alpha};
use trunkline::proto::{
    self, Operation, assign_owner_request::Registration, publish_stream_response::Result as Answer,
};

use crate::support::{
    RawClient, assert_refused, frames, info, message, read,
    secured::{SecuredBroker, end_of, id_of},
    shop::Shop,
    soon, until,
};

#[tokio::test]
async fn revoking_a_token_ends_its_streams_on_every_broker() {
    let Shop { broker, root, shop, office } = Shop::open().await;
    let other = broker.start_another().await;
    let shop_token = root.create_token("shop").await;
    let office_token = root.create_token("office").await;
    let shop_there = other.with_token(&shop_token).await;
    let office_there = other.with_token(&office_token).await;
    until("the other broker knows the tokens", async || office_there.who_am_i().await.is_ok())
        .await;
    let mut publishing = shop_there.publish_stream("orders", "web").await;
    let mut consuming = office_there.consume("orders", "billing").await;
    // A standby on the broker that revokes.
    let mut standby = office.try_consume("orders", "billing").await.unwrap();
    for token in [&shop_token, &office_token] {
        root.revoke(id_of(token)).await.unwrap();
    }
    info(&publishing.end().await, Code::Unauthenticated, "TOKEN_REVOKED");
    info(&end_of(&mut consuming).await, Code::Unauthenticated, "TOKEN_REVOKED");
    let status = office_there.who_am_i().await.unwrap_err();
    info(&status, Code::Unauthenticated, "TOKEN_REVOKED");
    // Other tokens of the same principals are unaffected, and the lease is free.
    loop {
        let frame = soon("a frame", standby.message()).await.unwrap().unwrap();
        if let Some(proto::consume_response::Event::Attached(_)) = frame.event {
            break;
        }
    }
    shop.publish("orders", "web", "a").await.unwrap();
    other.stop().await;
}

/// A call is judged when it acts, however long its request takes to arrive.
#[tokio::test]
async fn a_request_that_ends_after_its_token_was_revoked_is_refused() {
    let Shop { broker, root, .. } = Shop::open().await;
    let publish = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: "web".to_owned(),
        messages: vec![proto::NewMessage::new("late")],
        ..Default::default()
    };
    let grant = proto::AddGrantRequest {
        principal: "thief".to_owned(),
        operation: Operation::Admin.into(),
        topics: "*".to_owned(),
    };
    for (principal, method, request) in [
        ("shop", "trunkline.v1.ProducerService/Publish", publish.encode_to_vec()),
        ("admin", "trunkline.v1.AccessService/AddGrant", grant.encode_to_vec()),
    ] {
        let token = root.create_token(principal).await;
        let headers = [("authorization", format!("Bearer {token}"))];
        let client = RawClient::connect(&broker.endpoint).await;
        let (response, mut body) = client.begin(method, &headers).await;
        // The broker has read the headers of the first call once it has answered another one.
        let other = "trunkline.v1.AccessService/WhoAmI";
        let answer = client.call(other, &headers, &[&[]]).await;
        assert_eq!(answer.status.map(|status| status.code()), Some(Code::Ok));
        root.revoke(id_of(&token)).await.unwrap();
        body.send_data(frames(&[&request]), true).unwrap();
        let answer = read(soon("an answer", response).await.unwrap()).await;
        info(&answer.status.unwrap(), Code::Unauthenticated, "TOKEN_REVOKED");
    }
    let messages = "select count(*) from trunkline.message";
    let stored: i64 = broker.sql().await.query_one(messages, &[]).await.unwrap().get(0);
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_lease_when_its_token_is_revoked() {
    let Shop { broker, root, shop, .. } = Shop::open().await;
    let token = root.create_token("office").await;
    let deaf = broker.with_token(&token).await;
    let unread = deaf.consume("orders", "billing").await;
    let big = "x".repeat(1024 * 1024 - 1024);
    // More than the stream's window and its frames.
    for _ in 0..12 {
        shop.publish("orders", "web", &big).await.unwrap();
    }
    root.revoke(id_of(&token)).await.unwrap();
    let again = broker.with_token(&root.create_token("office").await).await;
    drop(again.consume("orders", "billing").await);
    drop(unread);
}

#[tokio::test]
async fn withdrawing_a_grant_ends_the_streams_that_need_it() {
    let Shop { broker: _broker, root, shop, office } = Shop::open().await;
    let mut publishing = shop.publish_stream("orders", "web").await;
    let mut consuming = office.consume("orders", "billing").await;
    root.grant("shop", Operation::Read, "orders").await;
    root.try_withdraw("shop", Operation::Publish, "orders").await.unwrap();
    let metadata = info(&publishing.end().await, Code::PermissionDenied, "NOT_GRANTED");
    assert_eq!(metadata["operation"], "publish");
    root.try_withdraw("office", Operation::Consume, "orders").await.unwrap();
    info(&end_of(&mut consuming).await, Code::NotFound, "TOPIC_NOT_FOUND");
    let refused = root.try_withdraw("office", Operation::Consume, "orders").await;
    assert_refused(refused, Code::NotFound, "GRANT_NOT_FOUND");
}

#[tokio::test]
async fn assigning_a_registration_ends_the_streams_of_its_owner_on_every_broker() {
    let Shop { broker, root, shop, office } = Shop::open().await;
    let other = broker.start_another().await;
    let office_there = other.with_token(&root.create_token("office").await).await;
    until("the other broker knows the token", async || office_there.who_am_i().await.is_ok()).await;
    let mut consuming = office_there.consume("orders", "billing").await;
    let mut publishing = shop.publish_stream("orders", "web").await;
    root.assign("orders", Registration::ConsumerId("billing".to_owned()), "x").await.unwrap();
    root.assign("orders", Registration::ProducerId("web".to_owned()), "x").await.unwrap();
    info(&end_of(&mut consuming).await, Code::PermissionDenied, "NOT_OWNER");
    info(&publishing.end().await, Code::PermissionDenied, "NOT_OWNER");
    let refused = office.try_consume("orders", "billing").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let Shop { broker, root, .. } = Shop::open().await;
    let request = proto::CreateTokenRequest {
        principal: "office".to_owned(),
        valid_for: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        ..Default::default()
    };
    let token = root.access().create_token(request).await.unwrap().into_inner();
    assert_eq!(token.token.unwrap().created_by, "admin");
    let office = broker.with_token(&token.secret).await;
    let mut consuming = office.consume("orders", "billing").await;
    info(&end_of(&mut consuming).await, Code::Unauthenticated, "TOKEN_EXPIRED");
}

#[tokio::test]
async fn a_pull_that_waits_ends_when_its_token_is_revoked() {
    let Shop { broker: _broker, root, office, .. } = Shop::open().await;
    let id = office.token_id().await;
    let request = proto::PullRequest {
        topic: "orders".to_owned(),
        consumer_id: "billing".to_owned(),
        wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    let mut consumers = office.consumers();
    let pull = tokio::spawn(async move { consumers.pull(request).await });
    // Calls on the same connection begin in their order.
    office.who_am_i().await.unwrap();
    root.revoke(&id).await.unwrap();
    let refused = soon("the pull ends", pull).await.unwrap();
    assert_refused(refused, Code::Unauthenticated, "TOKEN_REVOKED");
}

#[tokio::test]
async fn a_request_without_the_right_is_refused_and_its_publish_stream_goes_on() {
    let Shop { broker: _broker, root, shop, .. } = Shop::open().await;
    root.create_topic("hidden").await.unwrap();
    let mut stream = shop.publish_stream("orders", "web").await;
    for (topic, id, reason) in
        [("hidden", "web", "TOPIC_NOT_FOUND"), ("orders", "nope", "PRODUCER_NOT_REGISTERED")]
    {
        stream.publish(topic, id).await;
        match stream.answer().await.unwrap().result.unwrap() {
            Answer::Refusal(refusal) => assert_eq!(refusal.reason, reason),
            other => panic!("{other:?}"),
        }
    }
    stream.publish("orders", "web").await;
    let answer = stream.answer().await.unwrap().result.unwrap();
    assert!(matches!(answer, Answer::Receipt(_)), "{answer:?}");
}

#[tokio::test]
async fn while_the_database_is_away_new_calls_are_refused_and_open_streams_go_on() {
    let Shop { broker, office, .. } = Shop::open().await;
    let mut consuming = office.consume("orders", "billing").await;
    let sql = broker.sql().await;
    let lock = "begin; lock table trunkline.access_version in access exclusive mode";
    sql.batch_execute(lock).await.unwrap();
    until("new calls are refused", async || office.get_topic("orders").await.is_err()).await;
    let status = office.get_topic("orders").await.unwrap_err();
    info(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");
    for _ in 0..3 {
        soon("a heartbeat", consuming.message()).await.unwrap().unwrap();
    }
    sql.batch_execute("rollback").await.unwrap();
    until("calls are accepted again", async || office.get_topic("orders").await.is_ok()).await;
    soon("a heartbeat", consuming.message()).await.unwrap().unwrap();
}

/// How soon a revocation takes effect.
const SOON: Duration = Duration::from_secs(5);

/// The calls that are answered by streams, and need a token; and whether their requests are streams.
fn streams() -> Vec<(String, bool)> {
    let sets = [proto::FILE_DESCRIPTOR_SET, v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];
    let files = sets.into_iter().flat_map(|set| FileDescriptorSet::decode(set).unwrap().file);
    let mut streams = Vec::new();
    for file in files {
        for service in &file.service {
            let methods = service.method.iter().filter(|method| method.server_streaming());
            let name = format!("{}.{}", file.package(), service.name());
            streams
                .extend(methods.map(|method| {
                    (format!("{name}/{}", method.name()), method.client_streaming())
                }));
        }
    }
    assert!(streams.len() >= 4, "{streams:?}");
    streams
}

/// A request after which a stream goes on.
fn request_of(stream: &str) -> Vec<u8> {
    let (topic, id) = ("orders".to_owned(), "any".to_owned());
    match stream {
        "trunkline.v1.ConsumerService/Consume" => {
            proto::ConsumeRequest { topic, consumer_id: id, ..Default::default() }.encode_to_vec()
        }
        "trunkline.v1.ProducerService/PublishStream" => {
            let messages = vec![message("m")];
            proto::PublishRequest { topic, producer_id: id, messages, ..Default::default() }
                .encode_to_vec()
        }
        "trunkline.v1.SubscriptionService/Subscribe" => {
            let subscription_id = "pool".to_owned();
            let open = proto::OpenSubscription { topic, subscription_id, ..Default::default() };
            let request = Some(proto::subscribe_request::Request::Open(open));
            proto::SubscribeRequest { request }.encode_to_vec()
        }
        // Both versions have the same fields.
        _ if stream.contains("ServerReflection/") => {
            let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
            v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) }
                .encode_to_vec()
        }
        other => panic!("write a request for {other}, so that its end is tested"),
    }
}

/// A broker, and somebody's token for all of its streams.
async fn with_token_for_streams() -> (SecuredBroker, String) {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    root.create_topic("orders").await.unwrap();
    let grants = [(Operation::Publish, "orders"), (Operation::Consume, "orders")];
    let any = broker.principal("any", grants).await;
    any.register_producer("orders", "any", false).await.unwrap();
    any.register_consumer("orders", "any").await.unwrap();
    let request = proto::CreateSubscriptionRequest {
        topic: "orders".to_owned(),
        subscription_id: "pool".to_owned(),
        ..Default::default()
    };
    any.subscriptions().create_subscription(request).await.unwrap();
    let token = root.create_token("any").await;
    (broker, token)
}

/// Waits until the audit has the end of each stream, once.
async fn ends_are_recorded(broker: &SecuredBroker) {
    let sql = broker.sql().await;
    let recorded = async || -> Vec<(String, i64)> {
        let found = "select method, sum(count)::bigint from trunkline.audit
                     where reason = 'TOKEN_REVOKED' and principal = 'any' group by method";
        let rows = sql.query(found, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let all = streams().len();
    until("all ends are recorded", async || recorded().await.len() >= all).await;
    for (stream, ends) in recorded().await {
        assert_eq!(ends, 1, "{stream}");
    }
}

#[tokio::test]
async fn every_stream_ends_when_its_token_is_revoked() {
    let (broker, token) = with_token_for_streams().await;
    let client = RawClient::connect(&broker.endpoint).await;
    let headers = [("authorization", format!("Bearer {token}"))];
    let mut open = Vec::new();
    for (stream, goes_on) in streams() {
        let (response, mut requests) = client.begin(&stream, &headers).await;
        requests.send_data(frames(&[&request_of(&stream)]), !goes_on).unwrap();
        let mut answer = soon(&stream, response).await.unwrap();
        let first = soon(&stream, answer.body_mut().data()).await.unwrap().unwrap();
        answer.body_mut().flow_control().release_capacity(first.len()).unwrap();
        open.push((stream, answer, requests));
    }
    broker.root().await.revoke(id_of(&token)).await.unwrap();
    let revoked = Instant::now();
    for (stream, answer, _requests) in open {
        let status = read(answer).await.status.unwrap_or_else(|| panic!("{stream}: no status"));
        info(&status, Code::Unauthenticated, "TOKEN_REVOKED");
        assert!(revoked.elapsed() < SOON, "{stream}: {:?}", revoked.elapsed());
    }
    ends_are_recorded(&broker).await;
}

#[tokio::test]
async fn every_stream_that_is_not_read_is_reset_when_its_token_is_revoked() {
    let (broker, token) = with_token_for_streams().await;
    let client = RawClient::connect_with_shut_windows(&broker.endpoint).await;
    let headers = [("authorization", format!("Bearer {token}"))];
    let mut open = Vec::new();
    for (stream, goes_on) in streams() {
        let (response, mut requests) = client.begin(&stream, &headers).await;
        requests.send_data(frames(&[&request_of(&stream)]), !goes_on).unwrap();
        open.push((soon(&stream, response).await.unwrap(), requests, stream));
    }
    broker.root().await.revoke(id_of(&token)).await.unwrap();
    let revoked = Instant::now();
    for (mut answer, _requests, stream) in open {
        let end = soon(&stream, answer.body_mut().data()).await;
        let status = read(answer).await.status.map(|status| status.code());
        let is_reset = matches!(&end, Some(Err(error)) if error.is_reset());
        assert!(is_reset || status == Some(Code::Unauthenticated), "{stream}: {end:?} {status:?}");
        assert!(revoked.elapsed() < SOON, "{stream}: {:?}", revoked.elapsed());
    }
    assert!(client.is_open(), "the connection goes on");
    ends_are_recorded(&broker).await;
}
