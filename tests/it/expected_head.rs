//! Publishes that expect a certain head.

use std::sync::Arc;

use tokio::task::JoinSet;
use tonic::Code;
use trunkline::proto;

use crate::support::{
    TestBroker, assert_refused, info,
    sequenced::{publish, request, stored},
};

#[tokio::test]
async fn a_publish_for_another_head_is_refused_and_stores_nothing() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let at = |expected_head, payload| proto::PublishRequest {
        expected_head: Some(expected_head),
        ..request(&[payload])
    };
    assert_eq!(publish(&broker, at(0, "a")).await.unwrap(), (0, false));
    let refused = publish(&broker, at(0, "b")).await;
    let metadata = assert_refused(refused, Code::Aborted, "HEAD_MOVED");
    assert_eq!((metadata["expected_head"].as_str(), metadata["head"].as_str()), ("0", "1"));
    let refused = publish(&broker, at(5, "b")).await;
    assert_refused(refused, Code::Aborted, "HEAD_MOVED");
    assert_eq!(publish(&broker, at(1, "b")).await.unwrap(), (1, false));
    assert_eq!(stored(&broker).await, ["a", "b"]);

    // A repeated one was right when it was stored.
    let both = proto::PublishRequest { sequence: Some(0), ..at(2, "c") };
    assert_eq!(publish(&broker, both.clone()).await.unwrap(), (2, false));
    assert_eq!(publish(&broker, both).await.unwrap(), (2, true));
}

#[tokio::test]
async fn of_many_that_expect_one_head_one_wins_on_whatever_broker() {
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
                    Ok((offset, _)) => {
                        assert_eq!(offset, round);
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
