//! Another broker, and the connections to it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};
use tonic::{
    service::interceptor::InterceptedService,
    transport::{self, Certificate, Channel, ClientTlsConfig, Endpoint as Address},
};

use super::{identity::CERTIFICATE_NAME, secret::Show};
use crate::{model::Endpoint, proto::raw::subscription_service_client::SubscriptionServiceClient};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the other broker is asked whether it is there while calls are open, and how long it may take to
/// say so.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long nobody tries again to connect.
const FAILURE_HOLDS: Duration = Duration::from_millis(500);

/// How much of a stream, and of all streams of a connection, may arrive before it is read: all streams of a
/// connection together fill it, so that one whose client does not read holds up no other.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = MAX_CALLS as u32 * STREAM_WINDOW;

/// How many calls a connection has at most: half of what a broker accepts.
const MAX_CALLS: usize = 1_024;

/// The largest answer: a message of the greatest size, or a batch of 2 MiB, with what frames it.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Another broker.
pub(in crate::grpc) struct Peer {
    endpoint: Arc<Endpoint>,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    open: Vec<Connection>,
    /// When connecting last failed, and why.
    failed: Option<(Instant, Arc<transport::Error>)>,
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

    /// Uses no connection any more that is open now: one has failed.
    pub(super) fn leave_connections(&self) {
        // Whoever holds the lock connects anew.
        if let Ok(mut connections) = self.connections.try_lock() {
            connections.open.clear();
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A client for one call. Connects if there is no connection with room.
    pub(super) async fn client(self: &Arc<Self>) -> Result<Client, Arc<transport::Error>> {
        let mut connections = self.connections.lock().await;
        let free = connections.open.iter().find(|it| Arc::strong_count(&it.calls) <= MAX_CALLS);
        let (channel, calls) = match free {
            Some(Connection { channel, calls }) => (channel.clone(), calls.clone()),
            None => {
                // Many calls wait for one try, and share its failure.
                if let Some((at, error)) = &connections.failed
                    && at.elapsed() < FAILURE_HOLDS
                {
                    return Err(error.clone());
                }
                let channel = match connect(&self.endpoint).await {
                    Ok(channel) => channel,
                    Err(error) => {
                        let error = Arc::new(error);
                        connections.failed = Some((Instant::now(), error.clone()));
                        return Err(error);
                    }
                };
                let calls = Arc::default();
                connections.failed = None;
                let connection = Connection { channel: channel.clone(), calls: Arc::clone(&calls) };
                connections.open.push(connection);
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
