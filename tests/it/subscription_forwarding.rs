//! Subscriptions whose workers are at another broker than the owner.

use std::time::{Duration, Instant};

use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use trunkline::proto::{
    self, settlement::Verdict, subscribe_request::Request as Ask, subscribe_response::Event,
    subscription_service_client::SubscriptionServiceClient,
};

use crate::support::{
    TestBroker, info,
    secured::SecuredBroker,
    soon, until,
    worker::{TestWorker, Work, at_once, payloads, publish, reject, retry, with_jobs},
};

/// A broker that owns the subscription `pool` of some messages, another one, and a worker at each.
async fn with_owner(count: usize) -> (TestBroker, TestBroker, TestWorker, TestWorker) {
    let (owner, mut here) = with_jobs(count, at_once()).await;
    // Nobody has that delivery, but the broker begins to own the subscription.
    let unknown = Work { delivery: 1, offset: 0, payload: String::new(), attempt: 1 };
    assert_eq!(here.acknowledge(&[unknown]).await, 0);
    let other = owner.start_another().await;
    let there = TestWorker::at(&other.client, "jobs", "pool");
    (owner, other, here, there)
}

#[tokio::test]
async fn every_call_reaches_the_owner_through_any_broker() {
    let (_owner, _other, mut here, mut there) = with_owner(5).await;
    let first = here.receive(1).await;
    let rest = there.receive(10).await;
    assert_eq!(payloads(&[first.clone(), rest.clone()].concat()), ["m0", "m1", "m2", "m3", "m4"]);
    // Each broker settles what the other one delivered.
    assert_eq!(there.acknowledge(&first).await, 1);
    assert_eq!(here.acknowledge(&rest[..1]).await, 1);
    assert_eq!(there.settle(&rest[1..2], retry(Some(0))).await, 1);
    assert_eq!(there.settle(&rest[2..], reject("broken")).await, 2);
    let again = there.receive(10).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m2"], 2));
    let by = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    assert_eq!(there.settle(&again, Verdict::Extend(proto::Extend { by })).await, 1);
    let parked = |offsets| proto::ReplayParkedRequest {
        topic: "jobs".to_owned(),
        subscription_id: "pool".to_owned(),
        offsets,
        ranges: Vec::new(),
    };
    let replayed = there.service().replay_parked(parked(vec![3])).await.unwrap().into_inner();
    assert_eq!((replayed.replayed, replayed.has_more), (1, false));
    let discard = proto::DiscardParkedRequest {
        topic: "jobs".to_owned(),
        subscription_id: "pool".to_owned(),
        ..Default::default()
    };
    assert_eq!(there.service().discard_parked(discard).await.unwrap().into_inner().discarded, 1);
    let replayed = here.receive(10).await;
    assert_eq!((payloads(&replayed), replayed[0].attempt), (vec!["m3"], 1));
    assert_eq!(there.acknowledge(&[again, replayed].concat()).await, 2);
    let policy = proto::DeliveryPolicy { max_deliveries: 7, ..at_once() };
    assert_eq!(there.update(policy, &[]).await.unwrap().policy.unwrap().max_deliveries, 7);
    let described = here.describe().await;
    assert_eq!((described.floor, described.policy.unwrap().max_deliveries), (5, 7));
}

#[tokio::test]
async fn the_owners_refusals_reach_the_worker_as_they_are() {
    let (_owner, _other, mut here, mut there) = with_owner(1).await;
    let work = here.receive(1).await;
    let long = there.try_settle(&work, reject(&"x".repeat(1_025))).await.unwrap_err();
    let by_owner = here.try_settle(&work, reject(&"x".repeat(1_025))).await.unwrap_err();
    assert_eq!((long.code(), long.message()), (by_owner.code(), by_owner.message()));
    let policy = proto::DeliveryPolicy {
        min_backoff: Some(prost_types::Duration { seconds: 90, nanos: 0 }),
        ..Default::default()
    };
    // Only together with what is stored is it wrong.
    let refusal = there.update(policy, &["min_backoff"]).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains("policy.max_backoff"), "{refusal}");
    assert!(!refusal.details().is_empty());
}

#[tokio::test]
async fn a_stream_at_another_broker_works_as_one_at_the_owner() {
    let (owner, _other, _here, there) = with_owner(3).await;
    let mut stream = there.stream().await;
    let work = stream.works(3).await;
    stream.caught_up().await;
    stream.settle(7, &work[2..], Verdict::Acknowledge(proto::Acknowledge {})).await;
    assert_eq!(stream.settled(7).await, 1);
    publish(&owner, 1).await;
    let more = stream.works(1).await;
    stream.ask(Ask::Stop(proto::StopDelivery {})).await;
    assert_eq!(stream.acknowledge(&more).await, 1);
    stream.close().await;
    // What it had goes back, as it has gone.
    let mut next = there.stream().await;
    let again = next.works(2).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m0", "m1"], 2));
    assert_eq!(next.acknowledge(&again).await, 2);
    next.ask(Ask::Settle(proto::SettleMessages::default())).await;
    info(&next.ended().await, Code::InvalidArgument, "INVALID_FIELD");
}

#[tokio::test]
async fn a_stream_whose_client_vanishes_gives_its_messages_back() {
    let (_owner, _other, mut here, there) = with_owner(2).await;
    let mut stream = there.stream().await;
    stream.works(2).await;
    drop((stream, there));
    assert_eq!(here.receive_all(2).await[0].attempt, 2);
}

#[tokio::test]
async fn workers_of_another_broker_go_on_when_the_owner_stops() {
    let (owner, _other, _here, mut there) = with_owner(4).await;
    let mut stream = there.stream().await;
    let work = stream.works(4).await;
    assert_eq!(stream.acknowledge(&work[..1]).await, 1);
    let stopped = owner.shut_down();
    info(&stream.ended().await, Code::Unavailable, "DRAINING");
    let began = Instant::now();
    let mut stream = there.stream().await;
    assert_eq!(payloads(&stream.works(3).await), ["m1", "m2", "m3"]);
    println!("the other broker owned the subscription after {:?}", began.elapsed());
    drop(stream);
    assert_eq!(there.receive_all(3).await.len(), 3);
    soon("the owner stops", stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_waits_at_another_broker_finds_the_next_owner() {
    let (owner, other, _here, mut there) = with_owner(0).await;
    let waiting = tokio::spawn(async move { there.receive(1).await });
    until("a call waits at the owner", async || is_known(&owner).await).await;
    let stopped = owner.shut_down();
    let mut late = TestWorker::at(&other.client, "jobs", "pool");
    assert!(late.receive_now(1).await.is_empty());
    publish(&other, 1).await;
    assert_eq!(payloads(&soon("a message", waiting).await.unwrap()), ["m0"]);
    soon("the owner stops", stopped).await.unwrap().unwrap();
}

/// Whether the database knows an owner.
async fn is_known(broker: &TestBroker) -> bool {
    let known = "select count(broker) from trunkline.subscription";
    broker.sql().await.query_one(known, &[]).await.unwrap().get::<_, i64>(0) == 1
}

#[tokio::test]
async fn an_owner_that_has_lost_its_lease_is_left() {
    let (owner, _other, mut here, mut there) = with_owner(3).await;
    assert_eq!(there.receive(1).await.len(), 1);
    owner.end_sessions("trunkline lease").await;
    // Both look for the lease now, and one finds it.
    let mut left = vec!["m0", "m1", "m2"];
    while !left.is_empty() {
        let work = match there.try_receive(3, Duration::from_secs(1)).await {
            Ok(work) => work,
            Err(status) if status.code() == Code::Unavailable => continue,
            Err(status) => panic!("{status}"),
        };
        if there.try_settle(&work, Verdict::Acknowledge(proto::Acknowledge {})).await.is_ok() {
            left.retain(|one| !work.iter().any(|work| work.payload == *one));
        }
    }
    assert!(here.receive_now(1).await.is_empty());
}

#[tokio::test]
async fn only_brokers_are_answered_on_the_port_for_brokers() {
    let (owner, _other, mut here, _there) = with_owner(1).await;
    here.receive(1).await;
    let find = "select host, port, certificate, secret from trunkline.broker";
    let row = owner.sql().await.query_one(find, &[]).await.unwrap();
    let (host, port): (String, i32) = (row.get(0), row.get(1));
    let (certificate, secret): (String, String) = (row.get(2), row.get(3));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(certificate))
        .domain_name("trunkline-broker");
    let address = Endpoint::from_shared(format!("https://{host}:{port}")).unwrap();
    let channel = address.tls_config(tls).unwrap().connect().await.unwrap();
    let receive = async |secret: Option<&str>| -> Result<(), Status> {
        let mut request = Request::new(proto::ReceiveRequest {
            topic: "jobs".to_owned(),
            subscription_id: "pool".to_owned(),
            ..Default::default()
        });
        if let Some(secret) = secret {
            request.metadata_mut().insert("trunkline-forward-secret", secret.parse().unwrap());
        }
        let mut service = SubscriptionServiceClient::<Channel>::new(channel.clone());
        service.receive(request).await.map(drop)
    };
    for wrong in [None, Some(""), Some("guess"), Some(&secret[1..])] {
        assert_eq!(receive(wrong).await.unwrap_err().code(), Code::Unauthenticated, "{wrong:?}");
    }
    receive(Some(&secret)).await.unwrap();
    // And nobody without encryption.
    let plain = Endpoint::from_shared(format!("http://{host}:{port}")).unwrap().connect().await;
    if let Ok(channel) = plain {
        let mut service = SubscriptionServiceClient::new(channel);
        service.receive(proto::ReceiveRequest::default()).await.unwrap_err();
    }
    // The log and the error texts never show the secret.
    assert!(!format!("{:?}", endpoint(&secret)).contains(&secret));
}

fn endpoint(secret: &str) -> trunkline::model::Endpoint {
    trunkline::model::Endpoint {
        broker: 1,
        host: "localhost".to_owned(),
        port: 1,
        certificate: String::new(),
        secret: secret.to_owned(),
    }
}

#[tokio::test]
async fn the_broker_that_forwards_a_call_checks_its_caller() {
    let owner = SecuredBroker::start().await;
    let other = owner.start_another().await;
    let root = owner.root().await;
    root.create_topic("jobs").await.unwrap();
    root.grant("admin", proto::Operation::Consume, "jobs").await;
    let create = proto::CreateSubscriptionRequest {
        topic: "jobs".to_owned(),
        subscription_id: "pool".to_owned(),
        ..Default::default()
    };
    root.subscriptions().create_subscription(create).await.unwrap();
    let ask = || proto::ReceiveRequest {
        topic: "jobs".to_owned(),
        subscription_id: "pool".to_owned(),
        ..Default::default()
    };
    // The first broker owns it.
    root.subscriptions().receive(ask()).await.unwrap();
    let there = other.root().await;
    until("the other broker knows the grant", async || {
        there.subscriptions().receive(ask()).await.is_ok()
    })
    .await;
    let refusal = other.stranger().await.subscriptions().receive(ask()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
    let guest = owner.principal("guest", []).await;
    drop(guest);
    let token = root.create_token("guest").await;
    let guest = other.with_token(&token).await;
    until("the other broker knows the guest", async || guest.who_am_i().await.is_ok()).await;
    let refusal = guest.subscriptions().receive(ask()).await.unwrap_err();
    assert!(matches!(refusal.code(), Code::PermissionDenied | Code::NotFound), "{refusal}");
    // A stream ends with its caller's token, also if another broker serves it.
    let token = root.create_token("admin").await;
    let admin = other.with_token(&token).await;
    until("the other broker knows the token", async || admin.who_am_i().await.is_ok()).await;
    let open = proto::OpenSubscription {
        topic: "jobs".to_owned(),
        subscription_id: "pool".to_owned(),
        ..Default::default()
    };
    let open = proto::SubscribeRequest { request: Some(Ask::Open(open)) };
    let (requests, sent) = tokio::sync::mpsc::channel(1);
    requests.send(open).await.unwrap();
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let mut events = admin.subscriptions().subscribe(sent).await.unwrap().into_inner();
    let first = soon("the first event", events.message()).await.unwrap().unwrap();
    assert!(matches!(first.event, Some(Event::Attached(_))), "{first:?}");
    root.revoke(crate::support::secured::id_of(&token)).await.unwrap();
    let end = loop {
        match soon("the stream ends", events.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a reason"),
            Err(status) => break status,
        }
    };
    info(&end, Code::Unauthenticated, "TOKEN_REVOKED");
}
