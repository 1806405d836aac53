//! Another broker, and the connections to it.

use std::{sync::Arc, time::Duration};

use tokio::sync::Mutex;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{self, Certificate, Channel, ClientTlsConfig, Endpoint as Address},
};

use super::{identity::CERTIFICATE_NAME, secret::Show};
use crate::{
    grpc::limits::{CONNECTION_WINDOW, STREAM_WINDOW},
    model::Endpoint,
    proto::raw::subscription_service_client::SubscriptionServiceClient,
};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the other broker is asked whether it is there while calls are open, and how long it may take to
/// say so.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How many calls a connection has at most: half of what a broker accepts.
const MAX_CALLS: usize = 1_024;

/// The largest answer: a message of the greatest size, or a batch of 2 MiB, with what frames it.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Another broker.
pub(in crate::grpc) struct Peer {
    endpoint: Arc<Endpoint>,
    connections: Mutex<Vec<Connection>>,
}

/// A connection, and a count of the calls on it.
struct Connection {
    channel: Channel,
    calls: Arc<()>,
}

/// Makes a call at another broker.
pub(in crate::grpc) struct Client {
    pub(in crate::grpc) service: SubscriptionServiceClient<InterceptedService<Channel, Show>>,
    pub(in crate::grpc) peer: Arc<Peer>,
    /// Counts the call.
    _call: Arc<()>,
}

impl Peer {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Arc<Self> {
        Arc::new(Self { endpoint, connections: Mutex::default() })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A client for one call. Connects if there is no connection with room.
    pub(super) async fn client(self: &Arc<Self>) -> Result<Client, transport::Error> {
        let mut connections = self.connections.lock().await;
        let free = connections.iter().find(|it| Arc::strong_count(&it.calls) <= MAX_CALLS);
        let (channel, calls) = match free {
            Some(Connection { channel, calls }) => (channel.clone(), calls.clone()),
            None => {
                let (channel, calls) = (connect(&self.endpoint).await?, Arc::default());
                connections
                    .push(Connection { channel: channel.clone(), calls: Arc::clone(&calls) });
                (channel, calls)
            }
        };
        drop(connections);
        let service =
            SubscriptionServiceClient::with_interceptor(channel, Show::of(&self.endpoint));
        let service = service.max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Client { service, peer: self.clone(), _call: calls })
    }
}

async fn connect(endpoint: &Endpoint) -> Result<Channel, transport::Error> {
    let Endpoint { host, port, certificate, .. } = endpoint;
    let uri = match host.contains(':') {
        true => format!("https://[{host}]:{port}"),
        false => format!("https://{host}:{port}"),
    };
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(certificate))
        .domain_name(CERTIFICATE_NAME);
    Address::from_shared(uri)?
        .tls_config(tls)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect()
        .await
}
