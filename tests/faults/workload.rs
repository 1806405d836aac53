//! Clients that work while things break. Their actions follow from a seed, and are written to the
//! history.
//!
//! A client starts with one broker, and moves to the next one when that does not answer properly.

mod consumer;
mod flood;
mod library;
mod observer;
mod piped;
mod producer;
mod seeker;
mod sql;
mod trimmer;
mod worker;

use std::{
    error::Error as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use trunkline::proto::{
    consumer_service_client::ConsumerServiceClient, producer_service_client::ProducerServiceClient,
    subscription_service_client::SubscriptionServiceClient,
    topic_service_client::TopicServiceClient,
};

pub use consumer::ConsumerClient;
pub use flood::flood;
pub use library::LibraryProducer;
pub use observer::observe;
pub use piped::PipedProducer;
pub use producer::{Sequencing, UnaryProducer};
pub use seeker::seek_repeatedly;
pub use sql::{SqlProducer, Way};
pub use trimmer::trim_repeatedly;
pub use worker::WorkerClient;

use crate::{
    access::{Access, Caller},
    history::{History, Stage, What},
};

/// How long a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A stream that is silent for this long is left: it must send a heartbeat every second, even if
/// the database does not answer.
const SILENCE: Duration = Duration::from_secs(8);

/// How long a producer that was told to stop keeps retrying its last values.
const FINAL_RETRIES: Duration = Duration::from_secs(30);

/// What all clients of a run share.
pub struct World {
    pub history: Arc<History>,
    /// The ports of the brokers.
    pub ports: Vec<u16>,
    /// The URL of the database, which changes with a failover.
    pub database: watch::Sender<String>,
    /// The URL at which SQL clients publish, if it is not that of the database.
    pub sql_url: Option<String>,
    pub seed: u64,
    /// The factor by which producers pause longer.
    pub slowdown: u64,
    /// Whether a fault of the run may prevent heartbeats.
    pub may_be_silent: bool,
    /// Stops the clients that publish, seek or trim.
    pub stop_writing: CancellationToken,
    /// Stops the clients that consume or observe.
    pub stop_reading: CancellationToken,
    /// Problems of clients that the checks of the history do not find.
    pub alarms: Mutex<Vec<String>>,
    /// Whether a fault of the run may take tokens and grants from clients.
    pub may_be_denied: bool,
    /// How clients authenticate; `None` if brokers do not ask for it.
    pub access: Option<Arc<Access>>,
}

/// A connection to a broker, whose calls present a principal's token.
pub type Connection = InterceptedService<Channel, Caller>;

impl World {
    pub fn alarm(&self, what: String) {
        self.alarms.lock().unwrap().push(what);
    }

    /// Raises the alarm over a stream that was silent for too long after its last frame, unless a
    /// fault may be the reason.
    fn report_silence(&self, client: &str, op: u64, last: &str) {
        if !self.may_be_silent {
            self.alarm(format!("{client} received nothing for {SILENCE:?} after {last} ({op})"));
        }
    }

    /// The URL at which SQL clients publish.
    pub fn sql_url(&self) -> String {
        self.sql_url.clone().unwrap_or_else(|| self.database.borrow().clone())
    }

    /// A principal of the run.
    pub fn caller(&self, principal: &str) -> Caller {
        Caller::new(self.access.as_ref(), principal)
    }

    /// A client's random numbers, which follow from the seed.
    pub fn rng(&self, client: &str) -> Rng {
        Rng::with_seed(client.bytes().fold(self.seed, |seed, byte| {
            seed.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(byte))
        }))
    }
}

/// A client's connection to one of the brokers.
pub struct BrokerConnection {
    ports: Vec<u16>,
    current: usize,
    channel: Option<Channel>,
    caller: Caller,
}

impl BrokerConnection {
    /// Starts with a broker, as a principal.
    pub fn new(world: &World, first: usize, principal: &str) -> Self {
        let (ports, current) = (world.ports.clone(), first % world.ports.len());
        Self { ports, current, channel: None, caller: world.caller(principal) }
    }

    /// Connects to the current broker, or returns the open connection.
    pub async fn channel(&mut self) -> Result<Connection, Status> {
        if let Some(channel) = &self.channel {
            return Ok(InterceptedService::new(channel.clone(), self.caller.clone()));
        }
        let endpoint = Endpoint::from_shared(self.caller.endpoint(self.ports[self.current]));
        let endpoint = match self.caller.tls() {
            Some(tls) => endpoint.unwrap().tls_config(tls).unwrap(),
            None => endpoint.unwrap(),
        };
        let endpoint = endpoint
            .connect_timeout(Duration::from_secs(2))
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|error| Status::from_error(Box::new(error)))?;
        let channel = self.channel.insert(channel).clone();
        Ok(InterceptedService::new(channel, self.caller.clone()))
    }

    pub async fn producers(&mut self) -> Result<ProducerServiceClient<Connection>, Status> {
        Ok(ProducerServiceClient::new(self.channel().await?))
    }

    pub async fn consumers(&mut self) -> Result<ConsumerServiceClient<Connection>, Status> {
        Ok(ConsumerServiceClient::new(self.channel().await?))
    }

    pub async fn subscriptions(&mut self) -> Result<SubscriptionServiceClient<Connection>, Status> {
        Ok(SubscriptionServiceClient::new(self.channel().await?))
    }

    pub async fn topics(&mut self) -> Result<TopicServiceClient<Connection>, Status> {
        Ok(TopicServiceClient::new(self.channel().await?))
    }

    /// Pauses, and moves to the next broker if the current one is the reason for a refusal.
    pub async fn move_on(&mut self, refused: &What, rng: &mut Rng) {
        if let What::Refused { code, .. } = refused
            && ["TRANSPORT", "Unavailable", "DeadlineExceeded"].contains(&code.as_str())
        {
            self.channel = None;
            self.current = (self.current + 1) % self.ports.len();
        }
        pause(rng, 10, 150).await;
    }

    /// Closes the connection, and moves to a random broker.
    pub fn leave(&mut self, rng: &mut Rng) {
        self.channel = None;
        self.current = rng.usize(..self.ports.len());
    }
}

/// A request with a deadline of [`TIMEOUT`].
pub fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

/// The refusal that ends an operation, and whether the operation certainly had no effect.
pub fn refused(status: &Status) -> (Stage, What) {
    let info = status.get_details_error_info();
    let message = status.message().to_owned();
    let Some(info) = info else {
        // A status without a reason comes from the client's own library.
        let code = match status.source().is_some() || status.code() == Code::Cancelled {
            true => "TRANSPORT".to_owned(),
            false => format!("{:?}", status.code()),
        };
        return (Stage::Info, What::Refused { code, reason: String::new(), message });
    };
    let stage = stage_of(&info.reason);
    (stage, What::Refused { code: format!("{:?}", status.code()), reason: info.reason, message })
}

/// Whether an operation refused with this reason certainly had no effect.
fn stage_of(reason: &str) -> Stage {
    match reason {
        "OUTCOME_UNKNOWN" | "DEADLINE_EXCEEDED" => Stage::Info,
        _ => Stage::Fail,
    }
}

/// Pauses for a random number of milliseconds.
pub async fn pause(rng: &mut Rng, least: u64, most: u64) {
    tokio::time::sleep(Duration::from_millis(rng.u64(least..=most))).await;
}

/// The tasks of clients.
pub type Clients = JoinSet<()>;
