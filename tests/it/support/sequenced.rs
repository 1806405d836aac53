//! Publishes to the topic `orders`, with and without sequences.

use tonic::Status;
use trunkline::proto;

use super::TestBroker;

/// Where a publish was stored, now or earlier.
#[derive(Debug, PartialEq)]
pub struct Receipt {
    pub first_offset: i64,
    pub duplicate: bool,
}

pub fn stored_at(first_offset: i64) -> Receipt {
    Receipt { first_offset, duplicate: false }
}

pub fn duplicate_of(first_offset: i64) -> Receipt {
    Receipt { first_offset, duplicate: true }
}

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

pub fn sequenced(sequence: i64, payloads: &[&str]) -> proto::PublishRequest {
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
) -> Result<Receipt, Status> {
    let proto::PublishResponse { first_offset, duplicate, .. } =
        broker.producers().publish(request).await?.into_inner();
    Ok(Receipt { first_offset, duplicate })
}

pub async fn fence(broker: &TestBroker) -> proto::Producer {
    let request = proto::RegisterProducerRequest {
        topic: "orders".to_owned(),
        producer_id: "producer".to_owned(),
        fence: true,
        ..Default::default()
    };
    let response = broker.producers().register_producer(request).await.unwrap();
    response.into_inner().producer.unwrap()
}

pub async fn stored_payloads(broker: &TestBroker) -> Vec<String> {
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
