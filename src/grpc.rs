//! The broker's gRPC services: decode, call, encode.

mod answers;
mod arrivals;
mod backlog;
mod body;
mod call;
mod deadline;
mod explain;
mod intake;
mod limits;
mod peer;
mod status;
mod trunkline;

use std::sync::Arc;

use crate::{
    broker::Broker,
    proto::raw::{
        consumer_service_server::ConsumerServiceServer,
        producer_service_server::ProducerServiceServer, topic_service_server::TopicServiceServer,
    },
};

pub use backlog::Backlog;
pub use call::answer;
pub use intake::Intake;
pub use limits::{
    CONNECTION_WINDOW, MAX_CALL_BYTES, MAX_METADATA_BYTES, MAX_REQUEST_BYTES, STREAM_WINDOW,
};
pub use trunkline::{decode::decode_publish, frames::encode_batch};

use intake::Budgets;
use trunkline::{consumers::Consumers, producers::Producers, topics::Topics};

/// The services of a broker.
pub struct Services {
    broker: Arc<Broker>,
    budgets: Budgets,
}

impl Services {
    /// Serves a broker.
    pub fn new(broker: Arc<Broker>) -> Self {
        let budgets = Budgets::new(broker.publisher.budget().clone());
        Self { broker, budgets }
    }

    /// The service for topics.
    pub fn topics(&self) -> Intake<TopicServiceServer<Topics>> {
        let topics = TopicServiceServer::new(Topics(self.broker.clone()));
        self.limited(topics.max_decoding_message_size(MAX_CALL_BYTES))
    }

    /// The service for producers.
    pub fn producers(&self) -> Intake<ProducerServiceServer<Producers>> {
        let producers = ProducerServiceServer::new(Producers(self.broker.clone()));
        self.limited(producers.max_decoding_message_size(MAX_REQUEST_BYTES))
    }

    /// The service for consumers.
    pub fn consumers(&self) -> Intake<ConsumerServiceServer<Consumers>> {
        let consumers = ConsumerServiceServer::new(Consumers(self.broker.clone()));
        self.limited(consumers.max_decoding_message_size(MAX_CALL_BYTES))
    }

    /// Any other service, behind the same limits of what may arrive.
    pub fn limited<S>(&self, service: S) -> Intake<S> {
        Intake::new(service, self.budgets.clone())
    }
}
