//! Publishes to the topic `orders`, with and without a sequence.

use tonic::Status;
use trunkline::proto;

use super::TestBroker;

pub fn request(payloads: &[&str]) -> proto::PublishRequest {
    proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: "producer".to_owned(),
        messages: payloads
            .iter()
            .map(|payload| proto::NewMessage {
                payload: payload.to_string().into(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

pub fn counted(sequence: i64, payloads: &[&str]) -> proto::PublishRequest {
    proto::PublishRequest { sequence: Some(sequence), ..request(payloads) }
}

pub fn streamed(request: proto::PublishRequest) -> proto::PublishStreamRequest {
    let proto::PublishRequest {
        topic,
        producer_id,
        messages,
        sequence,
        expected_head,
        producer_epoch,
    } = request;
    proto::PublishStreamRequest {
        topic,
        producer_id,
        messages,
        sequence,
        expected_head,
        producer_epoch,
    }
}

pub async fn publish(
    broker: &TestBroker,
    request: proto::PublishRequest,
) -> Result<(i64, bool), Status> {
    let response = broker.producers().publish(request).await?.into_inner();
    Ok((response.first_offset, response.duplicate))
}

pub async fn fence(broker: &TestBroker) -> proto::Producer {
    let request = proto::RegisterProducerRequest {
        topic: "orders".to_owned(),
        producer_id: "producer".to_owned(),
        fence: true,
    };
    let response = broker.producers().register_producer(request).await.unwrap();
    response.into_inner().producer.unwrap()
}

pub async fn stored(broker: &TestBroker) -> Vec<String> {
    let sql = broker.sql().await;
    let rows = sql
        .query(
            "select convert_from(payload, 'utf8') from trunkline.message order by \"offset\"",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
