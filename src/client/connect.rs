//! Connections to brokers.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tonic::{
    Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use super::{
    builder::{ClientBuilder, Credentials},
    is_broken_connection,
};
use crate::proto::{
    consumer_service_client::ConsumerServiceClient, producer_service_client::ProducerServiceClient,
    topic_service_client::TopicServiceClient,
};

/// A connection that says who is calling.
pub type Connection = InterceptedService<Channel, Credentials>;

/// A connection to a broker; cheap to clone, and made anew by itself when it breaks.
///
/// It may know several brokers of one database: producers and consumers go on to the next one when
/// theirs is lost, and later calls follow them there.
#[derive(Clone, Debug)]
pub struct Client {
    brokers: Arc<Brokers>,
}

#[derive(Debug)]
struct Brokers {
    endpoints: Vec<Endpoint>,
    /// Counts on when a broker is lost; modulo the number of brokers, the one to talk to.
    current: AtomicUsize,
    /// The connection of calls, and the broker that it leads to.
    shared: Mutex<(usize, Connection)>,
    credentials: Credentials,
}

/// A connection of its own for a long stream.
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// Which of the brokers it leads to.
    pub(super) broker: usize,
}

/// Why a broker could not be connected to.
///
/// ```no_run
/// # async fn example() {
/// use trunkline::client::{Client, ConnectError};
///
/// match Client::connect("http://127.0.0.1:50051").await {
///     Ok(client) => println!("{client:?}"),
///     Err(ConnectError::Unreachable { endpoint, reason }) => println!("{endpoint}: {reason}"),
///     Err(error) => println!("{error}"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// An endpoint is no URL of the form `http://HOST:PORT` or `https://HOST:PORT`.
    #[error(
        "read the endpoint {endpoint:?}: it must have the form http://HOST:PORT or https://HOST:PORT"
    )]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// A certificate, a key or a token cannot be used.
    #[error("use the {what}: {reason}")]
    Credentials {
        /// Which of them.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// Nobody answers there.
    #[error("connect to {endpoint}: {reason}")]
    Unreachable {
        /// Where; of several endpoints all, with commas between them.
        endpoint: String,
        /// Why not; of several endpoints each one's own reason.
        reason: String,
    },
}

impl Client {
    /// Connects to a broker, `http://127.0.0.1:50051` for example, or to the first of several that
    /// answers, with commas between them.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), trunkline::client::ConnectError> {
    /// use trunkline::client::Client;
    ///
    /// let client = Client::connect("http://10.0.0.1:50051,http://10.0.0.2:50051").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says which endpoint is not well-formed, or why none was reached.
    pub async fn connect(endpoints: &str) -> Result<Self, ConnectError> {
        Self::builder(endpoints).connect().await
    }

    /// A connection with more than endpoints: a token, certificates.
    ///
    /// ```no_run
    /// # async fn example(token: String) -> Result<(), Box<dyn std::error::Error>> {
    /// use trunkline::client::Client;
    ///
    /// let client = Client::builder("https://broker.example:50051")
    ///     .token(token)
    ///     .ca_certificate(std::fs::read("ca.pem")?)
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(endpoints: &str) -> ClientBuilder {
        ClientBuilder::new(endpoints)
    }

    /// A client of some brokers: the first that answers is the one to talk to.
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

    /// Producers: register, describe, list, unregister, and publishing by hand.
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// use trunkline::proto::RegisterProducerRequest;
    ///
    /// let (topic, producer_id) = ("orders".to_owned(), "shop".to_owned());
    /// let request = RegisterProducerRequest { topic, producer_id, fence: false };
    /// client.producers().register_producer(request).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn producers(&self) -> ProducerServiceClient<Connection> {
        ProducerServiceClient::new(self.connection())
    }

    /// Consumers: register, describe, list, seek, unregister, and consuming by hand.
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

    /// The connection itself, for other services of the broker, such as its health.
    pub fn connection(&self) -> Connection {
        self.brokers.shared()
    }

    /// Another client of the same brokers, with a connection of its own.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Unreachable`] if none of them answers.
    pub async fn another(&self) -> Result<Self, ConnectError> {
        let brokers = &self.brokers;
        Self::to(brokers.endpoints.clone(), brokers.credentials.clone()).await
    }

    /// How long to wait before another try, where a broker asked for this long: another broker
    /// need not be waited for.
    pub(super) fn heeded(&self, asked: Duration) -> Duration {
        if self.brokers.endpoints.len() > 1 { Duration::ZERO } else { asked }
    }

    /// A connection of its own for a long stream: to the broker that answered last, or else to the
    /// next one that does.
    pub(super) async fn open(&self) -> Result<Opened, Status> {
        let first = self.brokers.current.load(Ordering::Relaxed);
        let opened = connect(&self.brokers.endpoints, first).await;
        let (broker, channel) = opened.map_err(|error| Status::unavailable(error.to_string()))?;
        self.brokers.current.fetch_max(broker, Ordering::Relaxed);
        let credentials = self.brokers.credentials.clone();
        Ok(Opened { connection: InterceptedService::new(channel, credentials), broker })
    }

    /// A broker was lost: the next try begins with the one behind it, unless somebody else has
    /// noticed before.
    pub(super) fn lost(&self, broker: usize) {
        let next = broker.wrapping_add(1);
        let current = &self.brokers.current;
        _ = current.compare_exchange(broker, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks a broker, and the next one if it is not there.
    pub(super) async fn ask<T, A>(&self, ask: impl Fn(Connection) -> A) -> Result<T, Status>
    where
        A: Future<Output = Result<T, Status>>,
    {
        for _ in 1..self.brokers.endpoints.len() {
            let broker = self.brokers.current.load(Ordering::Relaxed);
            match ask(self.connection()).await {
                Err(status) if is_broken_connection(&status) => self.lost(broker),
                answered => return answered,
            }
        }
        ask(self.connection()).await
    }
}

impl Brokers {
    fn shared(&self) -> Connection {
        let current = self.current.load(Ordering::Relaxed) % self.endpoints.len();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.0 != current {
            let channel = self.endpoints[current].connect_lazy();
            *shared = (current, InterceptedService::new(channel, self.credentials.clone()));
        }
        shared.1.clone()
    }
}

/// Tries each broker once, beginning with the given one; returns which it was.
async fn connect(endpoints: &[Endpoint], first: usize) -> Result<(usize, Channel), ConnectError> {
    let mut problems = Vec::new();
    for broker in first..first + endpoints.len() {
        let endpoint = &endpoints[broker % endpoints.len()];
        match endpoint.connect().await {
            Ok(channel) => return Ok((broker, channel)),
            Err(error) => {
                let endpoint = endpoint.uri().to_string().trim_end_matches('/').to_owned();
                problems.push((endpoint, root_cause(&error).to_string()));
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

/// The innermost error: the outer ones of a transport only say that there was one.
pub(super) fn root_cause<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a dyn std::error::Error {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error)
}
