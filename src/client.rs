//! The client's side: a connection to a broker, and streams that go on after a break.

mod subscription;

use std::time::Duration;

use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::health_client::HealthClient;

use crate::proto::{
    consumer_service_client::ConsumerServiceClient, producer_service_client::ProducerServiceClient,
    topic_service_client::TopicServiceClient,
};

pub use subscription::{Event, Options, Stop, Subscription};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a silent broker is asked whether it is there, also between calls.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// What a broker may send ahead of being read: several frames of 1 MiB.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// A connection to a broker; cheap to clone, and made anew by itself when it breaks.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

/// Why a broker could not be connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint is no URL of the form `http://HOST:PORT`.
    #[error("read the endpoint {endpoint:?}: it must have the form http://HOST:PORT")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// Nobody answers there.
    #[error("connect to {endpoint}: {reason}")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// Why not.
        reason: String,
    },
}

impl Client {
    /// Connects to a broker, `http://127.0.0.1:50051` for example.
    pub async fn connect(endpoint: &str) -> Result<Self, ConnectError> {
        let wrong = || ConnectError::Endpoint { endpoint: endpoint.to_owned() };
        let address = Endpoint::from_shared(endpoint.to_owned()).map_err(|_| wrong())?;
        if !matches!(address.uri().scheme_str(), Some("http")) || address.uri().port().is_none() {
            return Err(wrong());
        }
        let channel = address
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect()
            .await
            .map_err(|error| ConnectError::Unreachable {
                endpoint: endpoint.to_owned(),
                reason: root_cause(&error).to_string(),
            })?;
        Ok(Self { channel })
    }

    /// Topics.
    pub fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel.clone())
    }

    /// Producers.
    pub fn producers(&self) -> ProducerServiceClient<Channel> {
        ProducerServiceClient::new(self.channel.clone())
    }

    /// Consumers.
    pub fn consumers(&self) -> ConsumerServiceClient<Channel> {
        ConsumerServiceClient::new(self.channel.clone())
    }

    /// The broker's health.
    pub fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }
}

/// The reason of a status that a broker gave, `TOPIC_NOT_FOUND` for example.
pub fn reason(status: &Status) -> Option<String> {
    use tonic_types::StatusExt as _;
    status.get_details_error_info().map(|info| info.reason)
}

/// Whether a status tells of a broken connection: the transport's own errors are its source, and
/// what a broker says has none.
pub fn is_broken_connection(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// A status for people, without its code.
pub fn explain(status: &Status) -> String {
    match is_broken_connection(status) {
        true => "the connection to the broker is broken".to_owned(),
        false => status.message().to_owned(),
    }
}

/// The innermost error: the outer ones of a transport only say that there was one.
fn root_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a dyn std::error::Error {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error)
}
