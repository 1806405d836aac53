//! The broker's gRPC services: decode, call, encode.

mod accounts;
mod answers;
mod arrivals;
mod audited;
mod backlog;
mod body;
mod call;
mod call_task;
mod caller;
mod connection;
mod deadline;
mod explain;
mod forward;
mod intake;
mod limits;
mod measured;
mod open_calls;
mod peer;
mod served;
mod status;
mod stream_answer;
mod trunkline;

use std::{sync::Arc, time::Instant};

use crate::{
    access::Access,
    audit::Audit,
    broker::{Broker, Overview},
    metrics::CallMetrics,
    proto::raw::{
        access_service_server::AccessServiceServer, consumer_service_server::ConsumerServiceServer,
        overview_service_server::OverviewServiceServer,
        producer_service_server::ProducerServiceServer,
        subscription_service_server::SubscriptionServiceServer,
        topic_service_server::TopicServiceServer,
    },
    traces::Traces,
};

pub use audited::Denials;
pub use call::{Api, answer};
pub use call_task::serve_call;
pub use connection::Connection;
pub use forward::{ForwardIdentity, Forwarder};
pub use intake::Intake;
pub use limits::{
    CONNECTION_WINDOW, MAX_CALL_BYTES, MAX_METADATA_BYTES, MAX_REQUEST_BYTES, STREAM_WINDOW,
};
pub use served::served_calls;
#[cfg(fuzzing)]
pub use trunkline::fuzzing;
pub use trunkline::{decode::decode_publish, frames::encode_batch};

use accounts::Accounts;
use trunkline::{
    access::AccessAdmin, consumers::Consumers, overview::Overviews, producers::Producers,
    subscriptions::Workers, topics::Topics,
};

/// The services of a broker.
pub struct Services {
    broker: Arc<Broker>,
    access: Arc<Access>,
    audit: Arc<Audit>,
    overview: Arc<Overview>,
    accounts: Arc<Accounts>,
    metrics: Arc<CallMetrics>,
    forwarder: Arc<Forwarder>,
}

impl Services {
    /// Serves a broker to those whom `access` permits.
    pub fn new(broker: Arc<Broker>, access: Arc<Access>, overview: Arc<Overview>) -> Self {
        let publishes = broker.publisher.budget().clone();
        let accounts = Accounts::new(publishes, broker.quotas().streams, access.is_required());
        let audit = broker.audit();
        let (metrics, forwarder) = (Arc::default(), Arc::default());
        Self { broker, access, audit, overview, accounts: Arc::new(accounts), metrics, forwarder }
    }

    /// What is measured of calls.
    pub fn metrics(&self) -> Arc<CallMetrics> {
        self.metrics.clone()
    }

    /// How many calls are open.
    pub fn open_calls(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let accounts = self.accounts.clone();
        move || accounts.open_calls()
    }

    /// The service for topics.
    pub fn topics(&self) -> Intake<TopicServiceServer<Topics>> {
        let topics = Topics {
            broker: self.broker.clone(),
            access: self.access.clone(),
            audit: self.audit.clone(),
        };
        let topics = TopicServiceServer::new(topics);
        self.limited(topics.max_decoding_message_size(MAX_CALL_BYTES))
    }

    /// The service for producers.
    pub fn producers(&self) -> Intake<ProducerServiceServer<Producers>> {
        let producers = Producers {
            broker: self.broker.clone(),
            access: self.access.clone(),
            audit: self.audit.clone(),
            metrics: self.metrics.clone(),
        };
        let producers = ProducerServiceServer::new(producers);
        self.limited(producers.max_decoding_message_size(MAX_REQUEST_BYTES))
    }

    /// The service for consumers.
    pub fn consumers(&self) -> Intake<ConsumerServiceServer<Consumers>> {
        let consumers = ConsumerServiceServer::new(self.consumer_calls());
        self.limited(consumers.max_decoding_message_size(MAX_CALL_BYTES))
    }

    /// The service for subscriptions.
    pub fn subscriptions(&self) -> Intake<SubscriptionServiceServer<Workers>> {
        let (consumers, forwarder) = (self.consumer_calls(), self.forwarder.clone());
        let workers = SubscriptionServiceServer::new(Workers { consumers, forwarder });
        self.limited(workers.max_decoding_message_size(MAX_CALL_BYTES))
    }

    /// What other brokers may ask of this one. The broker that forwards a call has checked, counted and
    /// traced it.
    pub fn forwarded(&self, identity: &ForwardIdentity) -> Api {
        let broker = self.broker.clone();
        let access = Arc::new(Access::off(broker.storage()));
        let publishes = broker.publisher.budget().clone();
        // Apart from those of clients.
        let accounts = Arc::new(Accounts::new(publishes, broker.quotas().streams, false));
        Api {
            routes: forward::routes(broker, identity, accounts, access.clone()),
            access,
            audit: self.audit.clone(),
            metrics: Arc::default(),
            traces: Traces::default(),
        }
    }

    fn consumer_calls(&self) -> Consumers {
        Consumers {
            broker: self.broker.clone(),
            access: self.access.clone(),
            audit: self.audit.clone(),
        }
    }

    /// The service for tokens, grants and owners.
    pub fn access(&self) -> Intake<AccessServiceServer<AccessAdmin>> {
        let access = AccessAdmin {
            broker: self.broker.clone(),
            access: self.access.clone(),
            audit: self.audit.clone(),
        };
        let access = AccessServiceServer::new(access);
        self.limited(access.max_decoding_message_size(MAX_CALL_BYTES))
    }

    /// The service for overviews.
    pub fn overview(&self) -> Intake<OverviewServiceServer<Overviews>> {
        let overviews = Overviews {
            broker: self.broker.clone(),
            access: self.access.clone(),
            overview: self.overview.clone(),
            started: Instant::now(),
        };
        let overviews = OverviewServiceServer::new(overviews);
        self.limited(overviews.max_decoding_message_size(MAX_CALL_BYTES))
    }

    /// Any other service, behind the same limits of what may arrive.
    pub fn limited<S>(&self, service: S) -> Intake<S> {
        Intake::new(service, self.accounts.clone(), self.access.clone())
    }
}
