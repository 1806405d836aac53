//! Who calls, and what they may do: tokens, grants, owners, and how soon changes take effect.

use tonic::{Code, Status};
use trunkline::proto::{
    self, Operation, assign_owner_request::Registration, publish_stream_response::Result as Answer,
};

use crate::support::{
    DEADLINE, TestBroker, assert_field, assert_refused, info,
    secured::{As, SecuredBroker, end_of, id_of},
    soon, until,
};

/// A broker with the topic `orders`, the producer `web` and the consumer `billing`, which belong to
/// the principals `shop` and `office`.
struct Shop {
    broker: SecuredBroker,
    root: As,
    shop: As,
    office: As,
}

impl Shop {
    async fn open() -> Self {
        let broker = SecuredBroker::start().await;
        let root = broker.root().await;
        let shop = broker.principal("shop", [(Operation::Publish, "orders")]).await;
        let office = broker.principal("office", [(Operation::Consume, "orders")]).await;
        root.create_topic("orders").await.unwrap();
        shop.register_producer("orders", "web", false).await.unwrap();
        office.register_consumer("orders", "billing").await.unwrap();
        Self { broker, root, shop, office }
    }
}

async fn token_id(of: &As) -> String {
    of.who_am_i().await.unwrap().token_id
}

#[tokio::test]
async fn a_token_proves_who_calls() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    let known = root.who_am_i().await.unwrap();
    assert_eq!((known.principal.as_str(), known.administrator), ("admin", true));
    assert_eq!(known.token_id, id_of(&broker.root));
    assert!(known.authenticated && known.expire_time.is_none());
    assert_eq!(known.grants.len(), 1);

    let shop = broker.principal("shop", [(Operation::Publish, "orders.*")]).await;
    let known = shop.who_am_i().await.unwrap();
    assert_eq!((known.principal.as_str(), known.administrator), ("shop", false));
    let grant = &known.grants[0];
    assert_eq!((grant.operation(), grant.topics.as_str()), (Operation::Publish, "orders.*"));
    assert_eq!(grant.created_by, "admin");
}

#[tokio::test]
async fn a_call_without_a_valid_token_is_refused_and_the_reason_says_why() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    let refused = async |who: As, reason: &str| {
        let status = who.who_am_i().await.unwrap_err();
        info(&status, Code::Unauthenticated, reason);
        status
    };
    refused(broker.stranger().await, "TOKEN_MISSING").await;
    let secret = &broker.root[17..];
    for malformed in ["", "tlk_", &broker.root[..59], &broker.root.replace("tlk_", "tlx_")] {
        let status = refused(broker.with_token(malformed).await, "TOKEN_MALFORMED").await;
        assert!(!format!("{status:?}").contains(secret));
    }
    // The id of a token with another secret, and an id that does not exist.
    let other = root.create_token("shop").await;
    for unknown in [
        format!("{}{}", &broker.root[..17], &other[17..]),
        format!("tlk_aaaaaaaaaaaa_{secret}"),
    ] {
        let status = refused(broker.with_token(&unknown).await, "TOKEN_UNKNOWN").await;
        assert!(!format!("{status:?}").contains(secret));
    }
    root.revoke(id_of(&other)).await.unwrap();
    refused(broker.with_token(&other).await, "TOKEN_REVOKED").await;

    let request = proto::CreateTokenRequest {
        principal: "shop".to_owned(),
        valid_for: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    };
    let short = root.access().create_token(request).await.unwrap().into_inner();
    let short = broker.with_token(&short.secret).await;
    until("the token expires", async || short.who_am_i().await.is_err()).await;
    refused(short, "TOKEN_EXPIRED").await;
}

#[tokio::test]
async fn the_health_is_open_to_everyone() {
    let broker = SecuredBroker::start().await;
    let channel = tonic::transport::Endpoint::from_shared(broker.endpoint.clone()).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn principals_publish_and_consume_what_they_are_granted() {
    let Shop { shop, office, .. } = Shop::open().await;
    assert_eq!(shop.publish("orders", "web", "a").await.unwrap(), 0);
    let mut stream = office.consume("orders", "billing").await;
    let frame = soon("messages", stream.message()).await.unwrap();
    assert!(frame.is_some());
    let metadata =
        assert_refused(shop.register_consumer("orders", "x").await, Code::PermissionDenied, "NOT_GRANTED");
    assert_eq!((metadata["operation"].as_str(), metadata["topic"].as_str()), ("consume", "orders"));
    let refused = office.publish("orders", "web", "b").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_GRANTED");
    let refused = office.create_topic("orders").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_GRANTED");
    let refused = office.create_topic("anything").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_GRANTED");
}

/// Everything that a client can tell refusals apart by.
fn appearance(status: &Status, topic: &str) -> (Code, String, Vec<u8>) {
    let replace = |text: &str| text.replace(topic, "******");
    let details = status.details().to_vec();
    let details = String::from_utf8_lossy(&details).replace(topic, "******").into_bytes();
    (status.code(), replace(status.message()), details)
}

#[tokio::test]
async fn a_topic_without_any_right_looks_like_one_that_does_not_exist() {
    let Shop { root, shop, .. } = Shop::open().await;
    root.create_topic("hidden").await.unwrap();
    let producer = async |topic: &str| shop.register_producer(topic, "x", false).await.unwrap_err();
    let consume = async |topic: &str| shop.try_consume(topic, "billing").await.unwrap_err();
    let publish = async |topic: &str| shop.publish(topic, "web", "a").await.unwrap_err();
    let get = async |topic: &str| shop.get_topic(topic).await.unwrap_err();
    for (hidden, absent) in [
        (get("hidden").await, get("absent").await),
        (publish("hidden").await, publish("absent").await),
        (producer("hidden").await, producer("absent").await),
        (consume("hidden").await, consume("absent").await),
    ] {
        info(&hidden, Code::NotFound, "TOPIC_NOT_FOUND");
        assert_eq!(appearance(&hidden, "hidden"), appearance(&absent, "absent"));
    }
    // What the caller knows of it is just what a caller with rights is told of a missing one.
    let truly_absent = root.get_topic("absent").await.unwrap_err();
    assert_eq!(
        appearance(&get("hidden").await, "hidden"),
        appearance(&truly_absent, "absent")
    );
}

#[tokio::test]
async fn a_list_of_topics_shows_full_pages_of_those_that_the_caller_knows() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    for topic in ["a", "b1", "b2", "b3", "c", "d"] {
        root.create_topic(topic).await.unwrap();
    }
    let who = broker.principal("shop", [(Operation::Read, "b*"), (Operation::Publish, "d")]).await;
    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = proto::ListTopicsRequest { page_size: 3, page_token };
        let page = who.topics().list_topics(request).await.unwrap().into_inner();
        pages.push(page.topics.into_iter().map(|topic| topic.name).collect::<Vec<_>>());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [vec!["b1", "b2", "b3"], vec!["d"]]);
    let none = broker.principal("none", []).await;
    let request = proto::ListTopicsRequest::default();
    assert!(none.topics().list_topics(request).await.unwrap().into_inner().topics.is_empty());
}

#[tokio::test]
async fn a_registration_belongs_to_the_principal_that_made_it() {
    let Shop { broker, root, shop, office } = Shop::open().await;
    let rival = broker
        .principal("rival", [(Operation::Publish, "orders"), (Operation::Consume, "orders")])
        .await;
    for fence in [false, true] {
        let refused = rival.register_producer("orders", "web", fence).await;
        let metadata = assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
        assert_eq!(metadata["producer_id"], "web");
    }
    let refused = rival.publish("orders", "web", "a").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
    let refused = rival.try_consume("orders", "billing").await;
    let metadata = assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
    assert_eq!(metadata["consumer_id"], "billing");
    // The owner's own.
    let again = shop.register_producer("orders", "web", false).await;
    assert_refused(again, Code::AlreadyExists, "PRODUCER_EXISTS");
    let fenced = shop.register_producer("orders", "web", true).await.unwrap();
    assert_eq!((fenced.owner.as_str(), fenced.epoch), ("shop", 1));
    // What is not registered is refused as ever.
    let refused = rival.publish("orders", "nope", "a").await;
    assert_refused(refused, Code::PermissionDenied, "PRODUCER_NOT_REGISTERED");
    let mut refused = rival.try_consume("orders", "nope").await.unwrap();
    info(&end_of(&mut refused).await, Code::NotFound, "CONSUMER_NOT_FOUND");

    // An administrator of the topic gives it to somebody else.
    shop.publish("orders", "web", "a").await.unwrap();
    root.assign("orders", Registration::ProducerId("web".to_owned()), "rival").await.unwrap();
    let refused = shop.publish("orders", "web", "b").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
    let epoch = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: "web".to_owned(),
        producer_epoch: 1,
        messages: vec![crate::support::message("b")],
        ..Default::default()
    };
    rival.producers().publish(epoch).await.unwrap();
    let refused = office.assign("orders", Registration::ProducerId("web".to_owned()), "x").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_GRANTED");
    for (topic, id, reason) in
        [("orders", "nope", "PRODUCER_NOT_FOUND"), ("nope", "web", "TOPIC_NOT_FOUND")]
    {
        let refused = root.assign(topic, Registration::ProducerId(id.to_owned()), "x").await;
        assert_refused(refused, Code::NotFound, reason);
    }
}

#[tokio::test]
async fn a_registration_made_without_authentication_belongs_to_nobody() {
    let open = TestBroker::start().await;
    open.topic("orders").await;
    open.consumer("orders", "billing").await;
    let root = trunkline::server::bootstrap(&open.database.url).await.unwrap();
    let broker = SecuredBroker::start_on(open.database.clone(), root).await;
    let shop = broker.principal("shop", [(Operation::Publish, "*")]).await;
    let refused = shop.publish("orders", "producer", "a").await;
    let status = refused.unwrap_err();
    info(&status, Code::PermissionDenied, "NO_OWNER");
    assert!(status.message().contains("trunkline producer assign"), "{status:?}");
    let refused = shop.register_producer("orders", "producer", true).await;
    assert_refused(refused, Code::PermissionDenied, "NO_OWNER");
    let id = || Registration::ProducerId("producer".to_owned());
    broker.root().await.assign("orders", id(), "shop").await.unwrap();
    assert_eq!(shop.publish("orders", "producer", "a").await.unwrap(), 0);
    // A broker that does not authenticate lets everyone go on.
    assert_eq!(open.publish("orders", ["b"]).await, 1);
}

#[tokio::test]
async fn only_ones_own_producers_are_shown_to_those_who_only_publish() {
    let Shop { broker, root, shop, office } = Shop::open().await;
    let rival = broker.principal("rival", [(Operation::Publish, "orders")]).await;
    rival.register_producer("orders", "app", false).await.unwrap();
    let list = async |who: &As| {
        let request =
            proto::ListProducersRequest { topic: "orders".to_owned(), ..Default::default() };
        let producers = who.producers().list_producers(request).await.unwrap().into_inner();
        producers.producers.into_iter().map(|it| (it.producer_id, it.owner)).collect::<Vec<_>>()
    };
    let (app, web) = (("app".into(), "rival".into()), ("web".into(), "shop".into()));
    assert_eq!(list(&rival).await, [app.clone()]);
    assert_eq!(list(&shop).await, [web.clone()]);
    assert_eq!(list(&office).await, [app.clone(), web.clone()]);
    assert_eq!(list(&root).await, [app, web]);
    let get = |id: &str| proto::GetProducerRequest {
        topic: "orders".to_owned(),
        producer_id: id.to_owned(),
    };
    rival.producers().get_producer(get("app")).await.unwrap();
    let hidden = rival.producers().get_producer(get("web")).await.unwrap_err();
    let absent = rival.producers().get_producer(get("xxx")).await.unwrap_err();
    info(&hidden, Code::NotFound, "PRODUCER_NOT_FOUND");
    assert_eq!(appearance(&hidden, "web"), appearance(&absent, "xxx"));
    office.producers().get_producer(get("web")).await.unwrap();
}

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
    let Shop { root, shop, office, .. } = Shop::open().await;
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
    until("the other broker knows the token", async || office_there.who_am_i().await.is_ok())
        .await;
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
    let Shop { root, office, .. } = Shop::open().await;
    let id = token_id(&office).await;
    let request = proto::PullRequest {
        topic: "orders".to_owned(),
        consumer_id: "billing".to_owned(),
        wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    let mut consumers = office.consumers();
    let pull = tokio::spawn(async move { consumers.pull(request).await });
    until("the pull holds the lease", async || {
        // It is acquired only while nobody else has it.
        root.revoke(&id).await.is_ok()
    })
    .await;
    let refused = soon("the pull ends", pull).await.unwrap();
    assert_refused(refused, Code::Unauthenticated, "TOKEN_REVOKED");
}

#[tokio::test]
async fn a_request_without_the_right_is_refused_and_its_publish_stream_goes_on() {
    let Shop { root, shop, .. } = Shop::open().await;
    root.create_topic("hidden").await.unwrap();
    let mut stream = shop.publish_stream("orders", "web").await;
    for (topic, id, reason) in [
        ("hidden", "web", "TOPIC_NOT_FOUND"),
        ("orders", "nope", "PRODUCER_NOT_REGISTERED"),
    ] {
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
async fn an_id_that_is_registered_anew_belongs_to_its_new_owner() {
    let Shop { broker, shop, .. } = Shop::open().await;
    let rival = broker.principal("rival", [(Operation::Publish, "orders")]).await;
    shop.publish("orders", "web", "a").await.unwrap();
    let unregister = proto::UnregisterProducerRequest {
        topic: "orders".to_owned(),
        producer_id: "web".to_owned(),
    };
    let refused = rival.producers().unregister_producer(unregister.clone()).await;
    assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
    shop.producers().unregister_producer(unregister).await.unwrap();
    assert_eq!(rival.register_producer("orders", "web", false).await.unwrap().owner, "rival");
    let refused = shop.publish("orders", "web", "b").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
    rival.publish("orders", "web", "b").await.unwrap();
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

#[tokio::test]
async fn principals_see_and_revoke_their_own_tokens_only() {
    let Shop { root, shop, office, .. } = Shop::open().await;
    let list = async |who: &As, principal: &str| {
        let principal = principal.to_owned();
        let request = proto::ListTokensRequest { principal, ..Default::default() };
        let tokens = who.access().list_tokens(request).await.unwrap().into_inner().tokens;
        tokens.into_iter().map(|token| token.principal).collect::<Vec<_>>()
    };
    assert_eq!(list(&shop, "").await, ["shop"]);
    assert_eq!(list(&shop, "office").await, Vec::<String>::new());
    assert_eq!(list(&root, "office").await, ["office"]);
    assert_eq!(list(&root, "").await.len(), 3);
    let id = token_id(&office).await;
    assert_refused(shop.revoke(&id).await, Code::NotFound, "TOKEN_NOT_FOUND");
    assert_refused(root.revoke("aaaaaaaaaaaa").await, Code::NotFound, "TOKEN_NOT_FOUND");
    assert_field(root.revoke("a").await, "token_id", None);
    let revoked = office.revoke(&id).await.unwrap();
    assert!(revoked.revoke_time.is_some());
    let request = proto::CreateTokenRequest { principal: "shop".to_owned(), ..Default::default() };
    let refused = shop.access().create_token(request).await;
    assert_refused(refused, Code::PermissionDenied, "NOT_GRANTED");
    let request = proto::ListGrantsRequest::default();
    let grants = shop.access().list_grants(request).await.unwrap().into_inner().grants;
    assert!(grants.iter().all(|grant| grant.principal == "shop") && grants.len() == 1);
}

#[tokio::test]
async fn a_rotated_token_overlaps_with_its_replacement() {
    let Shop { broker, root, .. } = Shop::open().await;
    let hour = 3_600;
    let request = proto::CreateTokenRequest {
        principal: "shop".to_owned(),
        description: "the web shop".to_owned(),
        valid_for: Some(prost_types::Duration { seconds: hour, nanos: 0 }),
    };
    let old = root.access().create_token(request).await.unwrap().into_inner();
    let old_expires = old.token.unwrap().expire_time.unwrap();
    let shop = broker.with_token(&old.secret).await;
    let rotate = |seconds: Option<i64>| proto::RotateTokenRequest {
        token_id: id_of(&old.secret).to_owned(),
        valid_for: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        overlap: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
    };
    // The principal's own new token expires no later than the old one would have.
    let rotated = shop.access().rotate_token(rotate(Some(10 * hour))).await.unwrap().into_inner();
    let new = rotated.token.unwrap();
    assert_eq!((new.principal.as_str(), new.description.as_str()), ("shop", "the web shop"));
    assert_eq!(new.expire_time.unwrap(), old_expires);
    assert!(rotated.replaced.unwrap().expire_time.unwrap().seconds < old_expires.seconds - 60);
    shop.who_am_i().await.unwrap();
    broker.with_token(&rotated.secret).await.who_am_i().await.unwrap();
    // An administrator's is valid for as long as was asked for at first.
    let request = proto::RotateTokenRequest {
        token_id: id_of(&rotated.secret).to_owned(),
        valid_for: None,
        overlap: Some(prost_types::Duration { seconds: 0, nanos: 0 }),
    };
    let again = root.access().rotate_token(request).await.unwrap().into_inner();
    assert!(again.token.unwrap().expire_time.unwrap().seconds > old_expires.seconds + 8 * hour);
    // Without an overlap, the old one has expired.
    let status = broker.with_token(&rotated.secret).await.who_am_i().await.unwrap_err();
    info(&status, Code::Unauthenticated, "TOKEN_EXPIRED");
}

#[tokio::test]
async fn the_last_administrators_grant_stays() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    let last = root.try_withdraw("admin", Operation::Admin, "*").await;
    assert_refused(last, Code::FailedPrecondition, "LAST_ADMINISTRATOR");
    let ann = broker.principal("ann", [(Operation::Admin, "*")]).await;
    root.try_withdraw("admin", Operation::Admin, "*").await.unwrap();
    assert!(!root.who_am_i().await.unwrap().administrator);
    let last = ann.try_withdraw("ann", Operation::Admin, "*").await;
    assert_refused(last, Code::FailedPrecondition, "LAST_ADMINISTRATOR");
    // Twice, as the first may have had an administrator without a token.
    let again = trunkline::server::bootstrap(&broker.database.url).await.unwrap_err();
    assert!(again.to_string().contains("there is one with a valid token already"), "{again}");
}

#[tokio::test]
async fn tokens_and_grants_are_limited() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    let sql = broker.sql().await;
    sql.batch_execute(
        "insert into trunkline.access_token (id, principal, hash)
         select 'token' || n, 'shop', decode(lpad(to_hex(n), 64, '0'), 'hex')
         from generate_series(1, 64) n;
         insert into trunkline.access_grant (principal, operation, topics)
         select 'shop', 'read', 'topic' || n from generate_series(1, 1000) n",
    )
    .await
    .unwrap();
    let create = |principal: &str| proto::CreateTokenRequest {
        principal: principal.to_owned(),
        ..Default::default()
    };
    let refused = root.access().create_token(create("shop")).await;
    let metadata = assert_refused(refused, Code::ResourceExhausted, "TOO_MANY_TOKENS");
    assert_eq!((metadata["limit"].as_str(), metadata["principal"].as_str()), ("64", "shop"));
    let grant = |principal: &str, topics: &str| proto::AddGrantRequest {
        principal: principal.to_owned(),
        operation: Operation::Read.into(),
        topics: topics.to_owned(),
    };
    let refused = root.access().add_grant(grant("shop", "more")).await;
    let metadata = assert_refused(refused, Code::ResourceExhausted, "TOO_MANY_GRANTS");
    assert_eq!(metadata["limit"], "1000");
    // One that exists is no new one.
    root.access().add_grant(grant("shop", "topic7")).await.unwrap();
    // Tokens that are no longer valid do not count.
    sql.batch_execute("update trunkline.access_token set revoked_at = now() where id = 'token1'")
        .await
        .unwrap();
    root.access().create_token(create("shop")).await.unwrap();
    sql.batch_execute(
        "insert into trunkline.access_token (id, principal, hash)
         select 'many' || n, 'p' || n, decode(lpad(to_hex(n), 60, '0') || 'ffff', 'hex')
         from generate_series(1, 10000 - 65) n",
    )
    .await
    .unwrap();
    let refused = root.access().create_token(create("ann")).await;
    let metadata = assert_refused(refused, Code::ResourceExhausted, "TOO_MANY_TOKENS");
    assert_eq!((metadata["limit"].as_str(), metadata.get("principal")), ("10000", None));
}

#[tokio::test]
async fn grants_are_listed_page_by_page_in_order() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    for (principal, operation, topics) in [
        ("b", Operation::Read, "x*"),
        ("a/1", Operation::Publish, "*"),
        ("a/1", Operation::Consume, "y"),
        ("a/1", Operation::Consume, "x"),
    ] {
        root.grant(principal, operation, topics).await;
    }
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            proto::ListGrantsRequest { page_size: 2, page_token, ..Default::default() };
        let page = root.access().list_grants(request).await.unwrap().into_inner();
        let grants = page.grants.into_iter();
        found.extend(grants.map(|grant| (grant.principal.clone(), grant.operation(), grant.topics)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected = [
        ("a/1", Operation::Consume, "x"),
        ("a/1", Operation::Consume, "y"),
        ("a/1", Operation::Publish, "*"),
        ("admin", Operation::Admin, "*"),
        ("b", Operation::Read, "x*"),
    ];
    let expected = expected.map(|(who, what, topics)| (who.to_owned(), what, topics.to_owned()));
    assert_eq!(found, expected);
    let request = proto::ListGrantsRequest { page_token: "x".to_owned(), ..Default::default() };
    assert_field(root.access().list_grants(request).await, "page_token", None);
}

#[tokio::test]
async fn requests_about_access_are_checked() {
    let broker = SecuredBroker::start().await;
    let mut access = broker.root().await.access();
    let grant = |principal: &str, operation: i32, topics: &str| proto::AddGrantRequest {
        principal: principal.to_owned(),
        operation,
        topics: topics.to_owned(),
    };
    let read = Operation::Read as i32;
    for (request, field, limit) in [
        (grant("", read, "*"), "principal", None),
        (grant(&"x".repeat(129), read, "*"), "principal", Some(128)),
        (grant("a", 0, "*"), "operation", None),
        (grant("a", 99, "*"), "operation", None),
        (grant("a", read, "a b"), "topics", None),
        (grant("a", read, ""), "topics", None),
    ] {
        assert_field(access.add_grant(request).await, field, limit);
    }
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let token = |description: &str, valid_for| proto::CreateTokenRequest {
        principal: "a".to_owned(),
        description: description.to_owned(),
        valid_for,
    };
    assert_field(access.create_token(token(&"x".repeat(257), None)).await, "description", Some(256));
    assert_field(access.create_token(token("a\0", None)).await, "description", None);
    for bad in [0, -1, 3_650 * 24 * 3_600 + 1] {
        let refused = access.create_token(token("", seconds(bad))).await;
        let metadata = assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(metadata["field"], "valid_for");
    }
    let rotate = proto::RotateTokenRequest {
        token_id: "aaaaaaaaaaaa".to_owned(),
        valid_for: None,
        overlap: seconds(30 * 24 * 3_600 + 1),
    };
    let metadata =
        assert_refused(access.rotate_token(rotate).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(metadata["field"], "overlap");
    let assign = proto::AssignOwnerRequest {
        topic: "orders".to_owned(),
        registration: None,
        principal: "a".to_owned(),
    };
    assert_field(access.assign_owner(assign).await, "registration", None);
}

#[tokio::test]
async fn the_use_of_a_token_is_recorded() {
    let Shop { root, shop, .. } = Shop::open().await;
    let id = token_id(&shop).await;
    until("the use is recorded", async || {
        let request = proto::ListTokensRequest::default();
        let tokens = root.access().list_tokens(request).await.unwrap().into_inner().tokens;
        let token = tokens.into_iter().find(|token| token.token_id == id).unwrap();
        token.last_use_time.is_some()
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_does_not_authenticate_lets_everyone_prepare_access() {
    let broker = TestBroker::start().await;
    let channel = tonic::transport::Endpoint::from_shared(broker.endpoint.clone()).unwrap();
    let channel = channel.connect_timeout(DEADLINE).connect().await.unwrap();
    let mut access = proto::access_service_client::AccessServiceClient::new(channel);
    // The header is ignored.
    let mut request = tonic::Request::new(proto::WhoAmIRequest {});
    request.metadata_mut().insert("authorization", "Bearer nonsense".parse().unwrap());
    let known = access.who_am_i(request).await.unwrap().into_inner();
    assert!(known.administrator && !known.authenticated && known.principal.is_empty());
    let request = proto::CreateTokenRequest { principal: "shop".to_owned(), ..Default::default() };
    let token = access.create_token(request).await.unwrap().into_inner();
    assert_eq!(token.token.unwrap().created_by, "");
    let request = proto::AddGrantRequest {
        principal: "shop".to_owned(),
        operation: Operation::Admin.into(),
        topics: "*".to_owned(),
    };
    access.add_grant(request).await.unwrap();
    // It protects no administrator.
    let request = proto::RemoveGrantRequest {
        principal: "shop".to_owned(),
        operation: Operation::Admin.into(),
        topics: "*".to_owned(),
    };
    access.remove_grant(request).await.unwrap();
    let secured = SecuredBroker::start_on(broker.database.clone(), token.secret.clone()).await;
    let shop = secured.with_token(&token.secret).await;
    assert_eq!(shop.who_am_i().await.unwrap().principal, "shop");
}
