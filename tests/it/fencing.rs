//! Instances of a producer that a newer instance fences.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt as _, process::Command};
use tonic::Code;
use trunkline::proto::{self, publish_stream_response::Result as Answer};

use crate::support::{
    PublishStream, TestBroker, assert_refused,
    sequenced::{
        duplicate_of, fence, publish, request, sequenced, stored_at, stored_payloads, streamed,
    },
    soon, until,
};

#[tokio::test]
async fn a_fenced_instance_is_refused_by_every_broker() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    publish(&broker, sequenced(0, &["old"])).await.unwrap();

    let producer = fence(&other).await;
    assert_eq!((producer.epoch, producer.last_sequence), (1, Some(0)));
    assert_eq!(producer.next_sequence, 1);
    for broker in [&broker, &other] {
        let refused = publish(broker, sequenced(1, &["old"])).await;
        let metadata = assert_refused(refused, Code::FailedPrecondition, "PRODUCER_FENCED");
        assert_eq!((metadata["epoch"].as_str(), metadata["current_epoch"].as_str()), ("0", "1"));
        // With or without a sequence.
        let refused = publish(broker, request(&["old"])).await;
        assert_refused(refused, Code::FailedPrecondition, "PRODUCER_FENCED");
    }
    let new =
        |sequence| proto::PublishRequest { producer_epoch: 1, ..sequenced(sequence, &["new"]) };
    // The new instance continues the sequences of the old one.
    assert_eq!(publish(&broker, new(0)).await.unwrap(), duplicate_of(0));
    assert_eq!(publish(&broker, new(1)).await.unwrap(), stored_at(1));
    assert_eq!(stored_payloads(&broker).await, ["old", "new"]);

    // A first registration may fence, too, although there is no other instance.
    let request = proto::RegisterProducerRequest {
        topic: "orders".to_owned(),
        producer_id: "fresh".to_owned(),
        fence: true,
        ..Default::default()
    };
    let fresh = broker.producers().register_producer(request).await.unwrap().into_inner();
    assert_eq!(fresh.producer.unwrap().epoch, 0);
    let request = proto::RegisterProducerRequest {
        topic: "missing".to_owned(),
        producer_id: "fresh".to_owned(),
        fence: true,
        ..Default::default()
    };
    let refused = broker.producers().register_producer(request).await;
    assert_refused(refused, Code::NotFound, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn old_and_new_instances_in_one_flush_are_distinguished() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    fence(&broker).await;
    let mut stream = PublishStream::open(&broker).await;
    for round in 0..20 {
        stream.send(streamed(sequenced(round, &["old"]))).await;
        let new = proto::PublishRequest { producer_epoch: 1, ..sequenced(round, &["new"]) };
        stream.send(streamed(new)).await;
    }
    for round in 0..20 {
        let Answer::Refusal(refusal) = stream.answer().await else {
            panic!("the old instance is refused")
        };
        assert_eq!(refusal.reason, "PRODUCER_FENCED");
        let Answer::Receipt(receipt) = stream.answer().await else {
            panic!("the new instance is accepted")
        };
        assert_eq!(receipt.first_offset, round);
    }
}

#[tokio::test]
async fn the_command_fences_older_instances() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let register = ["producer", "register", "--topic", "orders", "producer", "--fence"];
    let registered = broker.run(&register).await;
    assert_eq!(registered.code(), 0, "{registered:?}");
    assert!(registered.stdout.contains("with epoch 1"), "{registered:?}");
    let produce = ["produce", "orders", "--producer", "producer"];
    // `produce` takes a new epoch, and is the only instance from then on.
    let mut old = Command::new(env!("CARGO_BIN_EXE_trunkline"));
    old.args(["--endpoint", &broker.endpoint]).args(produce).kill_on_drop(true);
    let mut old = old.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = old.stdin.take().unwrap();
    lines.write_all(b"a\n").await.unwrap();
    until("the line is stored", async || broker.stored().await == 1).await;
    let produced = broker.run_with_input(&produce, "b\n").await;
    assert_eq!(produced.code(), 0, "{produced:?}");
    lines.write_all(b"old\n").await.unwrap();
    let refused = soon("the older instance ends", old.wait_with_output()).await.unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!((refused.status.code(), stderr.lines().count()), (Some(3), 1), "{stderr}");
    assert!(stderr.contains("(PRODUCER_FENCED): another instance"), "{stderr}");
    assert!(stderr.contains("1 message acknowledged"), "{stderr}");
    let listed = broker.run(&["producer", "list", "--topic", "orders"]).await;
    assert!(listed.stdout.contains("producer  3      1"), "{listed:?}");
    assert_eq!(stored_payloads(&broker).await, ["a", "b"]);
}
