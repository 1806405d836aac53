//! The broker's services on the wire: decode, call, encode.

mod batch;
mod call;
mod consumers;
mod deadline;
mod decode;
mod encode;
mod explain;
mod peer;
mod producers;
mod publish_stream;
mod status;
mod topics;

use std::sync::Arc;

use crate::{
    broker::Broker,
    proto::raw::{
        consumer_service_server::ConsumerServiceServer,
        producer_service_server::ProducerServiceServer, topic_service_server::TopicServiceServer,
    },
};

pub use batch::encode_batch;
pub use call::{MAX_METADATA_BYTES, answer};
pub use decode::decode_publish;

/// The largest request that is decoded, in bytes. It must exceed the largest message, and leaves
/// room for a batch of a thousand messages of several kilobytes.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// The services of a broker.
pub struct Services(Arc<Broker>);

impl Services {
    /// Puts a broker on the wire.
    pub fn new(broker: Arc<Broker>) -> Self {
        Self(broker)
    }

    /// Topics.
    pub fn topics(&self) -> TopicServiceServer<topics::Topics> {
        TopicServiceServer::new(topics::Topics(self.0.clone()))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Producers.
    pub fn producers(&self) -> ProducerServiceServer<producers::Producers> {
        ProducerServiceServer::new(producers::Producers(self.0.clone()))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Consumers.
    pub fn consumers(&self) -> ConsumerServiceServer<consumers::Consumers> {
        ConsumerServiceServer::new(consumers::Consumers(self.0.clone()))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}
