//! Who calls, and what they may do.

use tonic::Code;
use trunkline::proto::{self, Operation};

use crate::support::{
    DEADLINE, TestBroker, assert_refused, info,
    secured::{As, SecuredBroker, id_of},
    shop::{Shop, appearance},
    soon, until,
};

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
    for unknown in
        [format!("{}{}", &broker.root[..17], &other[17..]), format!("tlk_aaaaaaaaaaaa_{secret}")]
    {
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
    let Shop { broker: _broker, shop, office, .. } = Shop::open().await;
    assert_eq!(shop.publish("orders", "web", "a").await.unwrap(), 0);
    let mut stream = office.consume("orders", "billing").await;
    let frame = soon("messages", stream.message()).await.unwrap();
    assert!(frame.is_some());
    let metadata = assert_refused(
        shop.register_consumer("orders", "x").await,
        Code::PermissionDenied,
        "NOT_GRANTED",
    );
    assert_eq!((metadata["operation"].as_str(), metadata["topic"].as_str()), ("consume", "orders"));
    let refused = office.publish("orders", "web", "b").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_GRANTED");
    let refused = office.create_topic("orders").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_GRANTED");
    let refused = office.create_topic("anything").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_GRANTED");
}

#[tokio::test]
async fn a_topic_without_any_right_looks_like_one_that_does_not_exist() {
    let Shop { broker: _broker, root, shop, .. } = Shop::open().await;
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
    assert_eq!(appearance(&get("hidden").await, "hidden"), appearance(&truly_absent, "absent"));
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
async fn the_use_of_a_token_is_recorded() {
    let Shop { broker: _broker, root, shop, .. } = Shop::open().await;
    let id = shop.token_id().await;
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
