//! Connections to brokers, and calls over them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tonic::{
    Code, Request, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use super::{
    credentials::Credentials,
    error::{ConnectError, is_broken_connection, root_cause},
};
use crate::proto::{
    access_service_client::AccessServiceClient, consumer_service_client::ConsumerServiceClient,
    overview_service_client::OverviewServiceClient, producer_service_client::ProducerServiceClient,
    subscription_service_client::SubscriptionServiceClient,
    topic_service_client::TopicServiceClient,
};

/// How long one of the library's own unary calls may take.
const UNARY_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection that sends the client's credentials with each call.
pub type Connection = InterceptedService<Channel, Credentials>;

/// A connection to a broker. It is cheap to clone, and reconnects by itself when it breaks.
///
/// It may know several brokers of one database: when a producer or consumer loses its broker, it
/// moves on to the next one, and later calls go there too.
#[derive(Clone, Debug)]
pub struct Client {
    brokers: Arc<Brokers>,
}

#[derive(Debug)]
struct Brokers {
    endpoints: Vec<Endpoint>,
    /// Grows by one each time a broker is lost; modulo the number of endpoints, it is the index of
    /// the broker in use.
    current: AtomicUsize,
    /// The connection of unary calls, and the index of its broker.
    shared: Mutex<(usize, Connection)>,
    credentials: Credentials,
}

/// A separate connection for a long-lived stream.
pub(super) struct StreamConnection {
    pub(super) connection: Connection,
    /// Which broker it leads to, as counted by `Brokers::current`.
    pub(super) broker: usize,
    /// How often the token had been replaced when the connection was opened.
    pub(super) replacements: u64,
}

/// A unary request with a deadline, so that the call ends even if nobody answers.
pub(super) fn unary<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(UNARY_TIMEOUT);
    request
}

impl Client {
    /// Connects to the first of some brokers that answers.
    pub(super) async fn to(
        endpoints: Vec<Endpoint>,
        credentials: Credentials,
    ) -> Result<Self, ConnectError> {
        let (broker, channel) = connect(&endpoints, 0).await?;
        let shared = (broker, InterceptedService::new(channel, credentials.clone()));
        let (current, shared) = (AtomicUsize::new(broker), Mutex::new(shared));
        Ok(Self { brokers: Arc::new(Brokers { endpoints, current, shared, credentials }) })
    }

    /// Topics: create, describe, list, change, trim, read, delete.
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// use trunkline::proto::GetTopicRequest;
    ///
    /// let request = GetTopicRequest { topic: "orders".to_owned() };
    /// let found = client.topics().get_topic(request).await?.into_inner().topic;
    /// println!("{} messages", found.map_or(0, |topic| topic.head - topic.first_offset));
    /// # Ok(())
    /// # }
    /// ```
    pub fn topics(&self) -> TopicServiceClient<Connection> {
        TopicServiceClient::new(self.connection())
    }

    /// What moves, who is behind, and what needs attention.
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// use trunkline::proto::GetOverviewRequest;
    ///
    /// let overview = client.overview().get_overview(GetOverviewRequest::default()).await?;
    /// for consumer in overview.into_inner().consumers {
    ///     println!("{}/{}: {} left", consumer.topic, consumer.consumer_id, consumer.lag);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn overview(&self) -> OverviewServiceClient<Connection> {
        OverviewServiceClient::new(self.connection())
    }

    /// Producers: register, describe, list, unregister, and publish without a
    /// [`Producer`](super::Producer).
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// use trunkline::proto::RegisterProducerRequest;
    ///
    /// let (topic, producer_id) = ("orders".to_owned(), "shop".to_owned());
    /// let request = RegisterProducerRequest { topic, producer_id, fence: false, ..Default::default() };
    /// client.producers().register_producer(request).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn producers(&self) -> ProducerServiceClient<Connection> {
        ProducerServiceClient::new(self.connection())
    }

    /// Consumers: register, describe, list, seek, unregister, and consume without a
    /// [`Consumer`](super::Consumer).
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// use trunkline::{client::Start, proto::SeekRequest};
    ///
    /// let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    /// let target = Some(Start::Earliest.into());
    /// client.consumers().seek(SeekRequest { topic, consumer_id, target }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn consumers(&self) -> ConsumerServiceClient<Connection> {
        ConsumerServiceClient::new(self.connection())
    }

    /// Subscriptions: create, describe, list, change, delete, see what is parked, and work without a
    /// [`Worker`](super::Worker).
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// use trunkline::proto::GetSubscriptionRequest;
    ///
    /// let (topic, subscription_id) = ("orders".to_owned(), "billing".to_owned());
    /// let request = GetSubscriptionRequest { topic, subscription_id };
    /// let found = client.subscriptions().get_subscription(request).await?.into_inner();
    /// println!("{} parked", found.subscription.map_or(0, |it| it.parked_messages));
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscriptions(&self) -> SubscriptionServiceClient<Connection> {
        SubscriptionServiceClient::new(self.connection())
    }

    /// Tokens, grants and owners of registrations; and who this client is.
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// use trunkline::proto::WhoAmIRequest;
    ///
    /// let me = client.access().who_am_i(WhoAmIRequest {}).await?.into_inner();
    /// println!("{} may do everything: {}", me.principal, me.administrator);
    /// # Ok(())
    /// # }
    /// ```
    pub fn access(&self) -> AccessServiceClient<Connection> {
        AccessServiceClient::new(self.connection())
    }

    /// The connection itself, for the broker's other services, such as its health.
    pub fn connection(&self) -> Connection {
        self.brokers.shared()
    }

    /// Another client of the same brokers, with a connection of its own.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Unreachable`] if no broker answers.
    pub async fn another(&self) -> Result<Self, ConnectError> {
        let brokers = &self.brokers;
        Self::to(brokers.endpoints.clone(), brokers.credentials.clone()).await
    }

    /// How long to pause where a broker asked for this delay: not at all if there are several
    /// brokers, as another one may be free.
    pub(super) fn pause_for(&self, requested: Duration) -> Duration {
        if self.brokers.endpoints.len() > 1 { Duration::ZERO } else { requested }
    }

    /// Opens a separate connection for a long-lived stream: to the broker in use, or else to the
    /// next one that answers.
    pub(super) async fn open(&self) -> Result<StreamConnection, Status> {
        let first = self.brokers.current.load(Ordering::Relaxed);
        let opened = connect(&self.brokers.endpoints, first).await;
        let (broker, channel) = opened.map_err(|error| Status::unavailable(error.to_string()))?;
        self.brokers.current.fetch_max(broker, Ordering::Relaxed);
        let credentials = self.brokers.credentials.clone();
        let replacements = credentials.replacements();
        let connection = InterceptedService::new(channel, credentials);
        Ok(StreamConnection { connection, broker, replacements })
    }

    /// Whether a call that was refused with this code may be repeated because its token's file
    /// holds another token now.
    pub(super) fn has_another_token(&self, code: Code, replacements: u64) -> bool {
        code == Code::Unauthenticated && self.brokers.credentials.replaced_since(replacements)
    }

    /// Records that a broker was lost: the next try begins with the one after it, unless somebody
    /// else has recorded it already.
    pub(super) fn record_lost(&self, broker: usize) {
        let next = broker.wrapping_add(1);
        let current = &self.brokers.current;
        _ = current.compare_exchange(broker, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Calls the broker in use, and each of the others once if the connection is broken; once more
    /// if the token was refused and its file holds another one now.
    pub(super) async fn call<T, A>(&self, call: impl Fn(Connection) -> A) -> Result<T, Status>
    where
        A: Future<Output = Result<T, Status>>,
    {
        let replacements = self.brokers.credentials.replacements();
        match self.call_brokers(&call).await {
            Err(status) if self.has_another_token(status.code(), replacements) => {
                self.call_brokers(&call).await
            }
            answer => answer,
        }
    }

    async fn call_brokers<T, A>(&self, call: &impl Fn(Connection) -> A) -> Result<T, Status>
    where
        A: Future<Output = Result<T, Status>>,
    {
        for _ in 1..self.brokers.endpoints.len() {
            let broker = self.brokers.current.load(Ordering::Relaxed);
            match call(self.connection()).await {
                Err(status) if is_broken_connection(&status) => self.record_lost(broker),
                answer => return answer,
            }
        }
        call(self.connection()).await
    }
}

impl Brokers {
    fn shared(&self) -> Connection {
        let current = self.current.load(Ordering::Relaxed) % self.endpoints.len();
        let mut shared = self.shared.lock();
        if shared.0 != current {
            let channel = self.endpoints[current].connect_lazy();
            *shared = (current, InterceptedService::new(channel, self.credentials.clone()));
        }
        shared.1.clone()
    }
}

/// Tries each broker once, beginning with `first`; returns the number of the one that answered.
async fn connect(endpoints: &[Endpoint], first: usize) -> Result<(usize, Channel), ConnectError> {
    let mut problems = Vec::new();
    for broker in first..first + endpoints.len() {
        let endpoint = &endpoints[broker % endpoints.len()];
        match endpoint.connect().await {
            Ok(channel) => return Ok((broker, channel)),
            Err(error) => {
                let endpoint = endpoint.uri().to_string().trim_end_matches('/').to_owned();
                problems.push((endpoint, explain_failure(root_cause(&error))));
            }
        }
    }
    if let [(endpoint, reason)] = problems.as_slice() {
        return Err(ConnectError::Unreachable {
            endpoint: endpoint.clone(),
            reason: reason.clone(),
        });
    }
    let reasons: Vec<String> =
        problems.iter().map(|(endpoint, reason)| format!("{endpoint}: {reason}")).collect();
    let (endpoints, _): (Vec<String>, Vec<String>) = problems.into_iter().unzip();
    Err(ConnectError::Unreachable { endpoint: endpoints.join(","), reason: reasons.join("; ") })
}

/// Why a connection failed, for people.
fn explain_failure(cause: &dyn std::error::Error) -> String {
    let reason = cause.to_string();
    // A library of TLS says no more about a server that answers without TLS.
    match reason.contains("InvalidContentType") {
        true => "that port does not use TLS: begin the endpoint with http://".to_owned(),
        false => reason,
    }
}
