//! A publish stream whose answers are awaited with a deadline.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use trunkline::proto::{
    PublishStreamRequest, PublishStreamResponse, publish_stream_response::Result as Answer,
};

use super::{TestBroker, soon};

pub struct PublishStream {
    pub requests: mpsc::Sender<PublishStreamRequest>,
    pub answers: Streaming<PublishStreamResponse>,
}

impl PublishStream {
    pub async fn open(broker: &TestBroker) -> Self {
        let (requests, outgoing) = mpsc::channel(256);
        let answers = broker.producers().publish_stream(ReceiverStream::new(outgoing)).await;
        Self { requests, answers: answers.unwrap().into_inner() }
    }

    pub async fn send(&self, request: PublishStreamRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub async fn answer(&mut self) -> Answer {
        let answer = soon("an answer", self.answers.message()).await.unwrap().unwrap();
        answer.result.unwrap()
    }

    pub async fn first_offset(&mut self) -> i64 {
        match self.answer().await {
            Answer::Receipt(receipt) => receipt.first_offset,
            other => panic!("{other:?}"),
        }
    }
}
