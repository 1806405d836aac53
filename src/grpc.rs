//! The broker's gRPC services: decode, call, encode.

mod call;
mod deadline;
mod explain;
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

pub use call::answer;
pub use limits::{MAX_METADATA_BYTES, MAX_REQUEST_BYTES};
#[cfg(fuzzing)]
pub use trunkline::fuzzing;
pub use trunkline::{decode::decode_publish, frames::encode_batch};

use trunkline::{consumers::Consumers, producers::Producers, topics::Topics};

/// The services of a broker.
pub struct Services(Arc<Broker>);

impl Services {
    /// Serves a broker.
    pub fn new(broker: Arc<Broker>) -> Self {
        Self(broker)
    }

    /// The service for topics.
    pub fn topics(&self) -> TopicServiceServer<Topics> {
        TopicServiceServer::new(Topics(self.0.clone())).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// The service for producers.
    pub fn producers(&self) -> ProducerServiceServer<Producers> {
        ProducerServiceServer::new(Producers(self.0.clone()))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// The service for consumers.
    pub fn consumers(&self) -> ConsumerServiceServer<Consumers> {
        ConsumerServiceServer::new(Consumers(self.0.clone()))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}
