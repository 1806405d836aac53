//! Publishes that are conditional on the head.

use std::sync::Arc;

use tokio::task::JoinSet;
use tonic::Code;
use trunkline::proto;

use crate::support::{
    TestBroker, assert_refused, info,
    sequenced::{duplicate_of, publish, request, stored_at, stored_payloads},
};

#[tokio::test]
async fn a_publish_that_expects_another_head_is_refused_and_stores_nothing() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let at = |expected_head, payload| proto::PublishRequest {
        expected_head: Some(expected_head),
        ..request(&[payload])
    };
    assert_eq!(publish(&broker, at(0, "a")).await.unwrap(), stored_at(0));
    let refused = publish(&broker, at(0, "b")).await;
    let metadata = assert_refused(refused, Code::Aborted, "HEAD_MOVED");
    assert_eq!((metadata["expected_head"].as_str(), metadata["head"].as_str()), ("0", "1"));
    let refused = publish(&broker, at(5, "b")).await;
    assert_refused(refused, Code::Aborted, "HEAD_MOVED");
    assert_eq!(publish(&broker, at(1, "b")).await.unwrap(), stored_at(1));
    assert_eq!(stored_payloads(&broker).await, ["a", "b"]);

    // A repetition succeeds, as the expected head was right when the message was stored.
    let both = proto::PublishRequest { sequence: Some(0), ..at(2, "c") };
    assert_eq!(publish(&broker, both.clone()).await.unwrap(), stored_at(2));
    assert_eq!(publish(&broker, both).await.unwrap(), duplicate_of(2));
}

#[tokio::test]
async fn if_several_publishes_expect_the_same_head_one_succeeds_across_brokers() {
    let broker = Arc::new(TestBroker::start().await);
    let other = Arc::new(broker.start_another().await);
    broker.topic("orders").await;
    for round in 0..10 {
        let mut racing = JoinSet::new();
        for racer in 0..10 {
            let broker = if racer % 2 == 0 { broker.clone() } else { other.clone() };
            racing.spawn(async move {
                let request =
                    proto::PublishRequest { expected_head: Some(round), ..request(&["x"]) };
                match publish(&broker, request).await {
                    Ok(receipt) => {
                        assert_eq!(receipt, stored_at(round));
                        true
                    }
                    Err(status) => {
                        assert_eq!(info(&status, Code::Aborted, "HEAD_MOVED")["topic"], "orders");
                        false
                    }
                }
            });
        }
        let won = racing.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1, "round {round}");
    }
    assert_eq!(broker.stored().await, 10);
}
