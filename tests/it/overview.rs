//! `GetOverview`: what moves, who is behind, and what needs attention, for whom.

use std::sync::Arc;

use tonic::{Code, Status};
use trunkline::proto::{
    self, ConsumerOrder, GetOverviewRequest, GetOverviewResponse, Operation, TopicOrder,
    problem::Severity,
};

use crate::support::{TestBroker, TestDatabase, Trunkline, info, secured::SecuredBroker, until};

impl TestBroker {
    async fn overview(&self, request: GetOverviewRequest) -> Result<GetOverviewResponse, Status> {
        Ok(self.client.overview().get_overview(request).await?.into_inner())
    }
}

fn topics(overview: &GetOverviewResponse) -> Vec<&str> {
    overview.topics.iter().map(|it| it.topic.as_str()).collect()
}

fn consumers(overview: &GetOverviewResponse) -> Vec<String> {
    overview.consumers.iter().map(|it| format!("{}/{}", it.topic, it.consumer_id)).collect()
}

#[tokio::test]
async fn topics_and_consumers_are_shown_as_they_are() {
    let broker = TestBroker::with_five_messages().await;
    broker.pull("orders", "billing", 2).await.unwrap();
    let mut overview = GetOverviewResponse::default();
    until("the position is seen", async || {
        overview = broker.overview(GetOverviewRequest::default()).await.unwrap();
        overview.consumers.first().is_some_and(|it| it.position == 2)
    })
    .await;
    let topic = &overview.topics[0];
    assert_eq!((topic.topic.as_str(), topic.first_offset, topic.head), ("orders", 0, 5));
    assert_eq!(topic.bytes, broker.get_topic("orders").await.bytes);
    let (shown, exact) =
        (topic.last_publish_time.unwrap(), broker.get_topic("orders").await.last_publish_time);
    let exact = exact.unwrap();
    assert_eq!(shown.seconds, exact.seconds);
    assert!(shown.nanos.abs_diff(exact.nanos) < 10_000, "{shown:?} {exact:?}");

    let consumer = &overview.consumers[0];
    assert_eq!((consumer.lag, consumer.held, consumer.holder.as_str()), (3, false, ""));
    assert!(consumer.time_behind.is_some_and(|it| it.seconds >= 0 && it.seconds < 60));
    assert!(consumer.idle_time.is_some_and(|it| it.seconds < 60));
    assert_eq!((overview.topic_count, overview.consumer_count), (1, 1));
    assert_eq!((overview.consumers_behind, overview.incomplete), (1, false));
    assert_eq!(overview.problems, []);
    let state = overview.broker.unwrap();
    assert_eq!(state.version, env!("CARGO_PKG_VERSION"));
    assert!(state.uptime.is_some_and(|it| it.seconds < 60));
    assert!((state.streams, state.draining) == (0, false) && state.max_streams > 0);
}

#[tokio::test]
async fn what_moves_has_a_rate() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.overview(GetOverviewRequest::default()).await.unwrap();
    until("there are rates", async || {
        broker.try_publish("orders", "producer", ["a"]).await.unwrap();
        broker.pull("orders", "billing", 100).await.unwrap();
        let overview = broker.overview(GetOverviewRequest::default()).await.unwrap();
        let (topic, consumer) = (&overview.topics[0], &overview.consumers[0]);
        assert_eq!(overview.publish_rate, topic.publish_rate);
        assert_eq!(overview.consume_rate, consumer.consume_rate);
        topic.publish_rate > 0.0 && consumer.consume_rate > 0.0
    })
    .await;
}

#[tokio::test]
async fn lists_are_ordered_limited_and_searched_as_asked() {
    let broker = TestBroker::start().await;
    for (topic, payloads) in [("bills", 1), ("Orders", 3), ("old-orders", 2)] {
        broker.topic(topic).await;
        broker.consumer(topic, "a").await;
        for _ in 0..payloads {
            broker.publish(topic, ["message"]).await;
        }
    }
    broker.publish("bills", [&*"long".repeat(1_000)]).await;
    until("all is seen", async || {
        let overview = broker.overview(GetOverviewRequest::default()).await.unwrap();
        overview.consumers.iter().map(|it| it.lag).sum::<i64>() == 7
    })
    .await;
    let by = async |topic_order: TopicOrder, consumer_order: ConsumerOrder| {
        let (topic_order, consumer_order) = (topic_order.into(), consumer_order.into());
        let request = GetOverviewRequest { topic_order, consumer_order, ..Default::default() };
        broker.overview(request).await.unwrap()
    };
    for (order, expected) in [
        (TopicOrder::Name, ["Orders", "bills", "old-orders"]),
        (TopicOrder::Bytes, ["bills", "Orders", "old-orders"]),
        (TopicOrder::Head, ["Orders", "bills", "old-orders"]),
        (TopicOrder::LastPublishTime, ["bills", "old-orders", "Orders"]),
    ] {
        let overview = by(order, ConsumerOrder::Unspecified).await;
        assert_eq!(topics(&overview), expected, "{order:?}");
    }
    for (order, expected) in [
        (ConsumerOrder::Lag, ["Orders/a", "bills/a", "old-orders/a"]),
        (ConsumerOrder::Name, ["Orders/a", "bills/a", "old-orders/a"]),
        (ConsumerOrder::TimeBehind, ["bills/a", "Orders/a", "old-orders/a"]),
    ] {
        let overview = by(TopicOrder::Unspecified, order).await;
        assert_eq!(consumers(&overview), expected, "{order:?}");
    }

    let request = GetOverviewRequest {
        topic_contains: "ORDERS".to_owned(),
        topic_order: TopicOrder::Name.into(),
        max_topics: 1,
        max_consumers: 1,
        ..Default::default()
    };
    let overview = broker.overview(request).await.unwrap();
    assert_eq!(topics(&overview), ["Orders"]);
    assert_eq!(consumers(&overview), ["Orders/a"]);
    // The limits are for the lists alone.
    assert_eq!((overview.topic_count, overview.consumer_count), (2, 2));
    assert_eq!(overview.consumers_behind, 2);
}

#[tokio::test]
async fn bad_requests_name_the_field() {
    let broker = TestBroker::start().await;
    let request = GetOverviewRequest::default;
    for (request, field, problem) in [
        (GetOverviewRequest { max_topics: -1, ..request() }, "max_topics", "negative"),
        (GetOverviewRequest { max_consumers: -1, ..request() }, "max_consumers", "negative"),
        (GetOverviewRequest { topic_order: 99, ..request() }, "topic_order", "99"),
        (GetOverviewRequest { consumer_order: -1, ..request() }, "consumer_order", "-1"),
        (
            GetOverviewRequest { topic_contains: "a".repeat(256), ..request() },
            "topic_contains",
            "255",
        ),
    ] {
        let status = broker.overview(request).await.unwrap_err();
        let metadata = info(&status, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(metadata["field"], field, "{status:?}");
        assert!(status.message().contains(problem), "{status:?}");
    }
    let longest = GetOverviewRequest { topic_contains: "a".repeat(255), ..request() };
    broker.overview(longest).await.unwrap();
}

#[tokio::test]
async fn callers_see_what_they_may_know_of() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    for topic in ["orders", "bills", "hidden"] {
        root.create_topic(topic).await.unwrap();
        root.register_consumer(topic, "billing").await.unwrap();
    }
    let grants = [(Operation::Read, "orders"), (Operation::Publish, "bills")];
    let shop = broker.principal("shop", grants).await;
    let request = || GetOverviewRequest {
        topic_order: TopicOrder::Name.into(),
        consumer_order: ConsumerOrder::Name.into(),
        ..Default::default()
    };
    let mut seen = GetOverviewResponse::default();
    until("the topics are seen", async || {
        seen = shop.overview().get_overview(request()).await.unwrap().into_inner();
        seen.topics.len() == 2
    })
    .await;
    assert_eq!(topics(&seen), ["bills", "orders"]);
    // The right to publish shows no consumers.
    assert_eq!(consumers(&seen), ["orders/billing"]);
    assert_eq!((seen.topic_count, seen.consumer_count), (2, 1));

    let all = root.overview().get_overview(request()).await.unwrap().into_inner();
    assert_eq!(topics(&all), ["bills", "hidden", "orders"]);
    assert_eq!(all.consumer_count, 3);
    // A stuck consumer of a topic that the caller may not know of is none of its problems.
    let nobody = broker.principal("nobody", []).await;
    let seen = nobody.overview().get_overview(request()).await.unwrap().into_inner();
    assert_eq!((seen.topics.len(), seen.consumers.len(), seen.topic_count), (0, 0, 0));
    let sql = broker.sql().await;
    let till = broker.principal("till", [(Operation::Publish, "hidden")]).await;
    till.register_producer("hidden", "till", false).await.unwrap();
    till.publish("hidden", "till", "message").await.unwrap();
    let long_ago = "update trunkline.consumer_topic set updated_at = now() - interval '1 hour'";
    sql.execute(long_ago, &[]).await.unwrap();
    until("the problem is seen", async || {
        let all = root.overview().get_overview(request()).await.unwrap().into_inner();
        all.problems.iter().any(|it| it.topic == "hidden")
    })
    .await;
    for somebody in [&nobody, &shop] {
        let seen = somebody.overview().get_overview(request()).await.unwrap().into_inner();
        assert_eq!(seen.problems, []);
    }
    let stranger = broker.stranger().await.overview().get_overview(request()).await;
    assert_eq!(stranger.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_stuck_consumer_is_a_problem_with_an_example() {
    let broker = TestBroker::with_five_messages().await;
    let sql = broker.sql().await;
    let long_ago = "update trunkline.consumer_topic set updated_at = now() - interval '1 hour'";
    sql.execute(long_ago, &[]).await.unwrap();
    let mut problems = Vec::new();
    until("the problem is seen", async || {
        problems = broker.overview(GetOverviewRequest::default()).await.unwrap().problems;
        !problems.is_empty()
    })
    .await;
    let proto::Problem { severity, description, advice, topic, consumer_id } = &problems[0];
    assert_eq!(*severity, i32::from(Severity::Warning));
    assert_eq!((topic.as_str(), consumer_id.as_str()), ("orders", "billing"));
    assert!(
        description.starts_with("1 consumer has messages left, and has had no reader"),
        "{description}"
    );
    assert!(advice.starts_with("Start their readers"), "{advice}");
}

#[tokio::test]
async fn more_topics_than_the_broker_looks_at_are_told() {
    let database = Arc::new(TestDatabase::create().await);
    let flags = ["--listen", "127.0.0.1:0", "--metrics-max-series", "1", "--database-url"];
    let (_serving, endpoint) =
        Trunkline::serve(&[&flags[..], &[database.url.as_str()]].concat()).await;
    let broker = TestBroker::at(database.clone(), &endpoint).await;
    for topic in ["bills", "orders"] {
        broker.topic(topic).await;
    }
    until("the second topic is missed", async || {
        let overview = broker.overview(GetOverviewRequest::default()).await.unwrap();
        overview.incomplete && topics(&overview) == ["bills"]
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_away_is_said_to_be() {
    let broker = TestBroker::start().await;
    broker.database.close().await;
    until("the broker says so", async || {
        match broker.overview(GetOverviewRequest::default()).await {
            Ok(_) => false,
            Err(status) => {
                info(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");
                true
            }
        }
    })
    .await;
    broker.database.open().await;
    until("it answers again", async || {
        broker.overview(GetOverviewRequest::default()).await.is_ok()
    })
    .await;
}
