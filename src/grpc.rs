//! The broker's gRPC services: decode, call, encode.

mod call;
mod caller;
mod deadline;
mod explain;
mod limits;
mod peer;
mod status;
mod trunkline;

use std::sync::Arc;

use crate::{
    access::Access,
    broker::Broker,
    proto::raw::{
        access_service_server::AccessServiceServer, consumer_service_server::ConsumerServiceServer,
        producer_service_server::ProducerServiceServer, topic_service_server::TopicServiceServer,
    },
};

pub use call::{Api, answer};
pub use limits::{MAX_METADATA_BYTES, MAX_REQUEST_BYTES};
pub use trunkline::{decode::decode_publish, frames::encode_batch};

use trunkline::{access::AccessAdmin, consumers::Consumers, producers::Producers, topics::Topics};

/// The services of a broker.
pub struct Services {
    broker: Arc<Broker>,
    access: Arc<Access>,
}

impl Services {
    /// Serves a broker to those whom `access` permits.
    pub fn new(broker: Arc<Broker>, access: Arc<Access>) -> Self {
        Self { broker, access }
    }

    /// The service for topics.
    pub fn topics(&self) -> TopicServiceServer<Topics> {
        TopicServiceServer::new(Topics { broker: self.broker.clone(), access: self.access.clone() })
            .max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// The service for producers.
    pub fn producers(&self) -> ProducerServiceServer<Producers> {
        ProducerServiceServer::new(Producers {
            broker: self.broker.clone(),
            access: self.access.clone(),
        })
        .max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// The service for consumers.
    pub fn consumers(&self) -> ConsumerServiceServer<Consumers> {
        ConsumerServiceServer::new(Consumers {
            broker: self.broker.clone(),
            access: self.access.clone(),
        })
        .max_decoding_message_size(MAX_REQUEST_BYTES)
    }
    /// The service for tokens, grants and owners.
    pub fn access(&self) -> AccessServiceServer<AccessAdmin> {
        let service = AccessAdmin { broker: self.broker.clone(), access: self.access.clone() };
        AccessServiceServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}
