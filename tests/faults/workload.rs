//! Clients that work while things break: what each does follows from a seed, and all of it is
//! written to the history.
//!
//! A client names the broker that it works with; when that one does not answer as it should, the
//! client goes to the next one, as programs do.

mod consumer;
mod flood;
mod library;
mod observer;
mod piped;
mod producer;
mod seeker;
mod trimmer;

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
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use trunkline::proto::{
    consumer_service_client::ConsumerServiceClient, producer_service_client::ProducerServiceClient,
    topic_service_client::TopicServiceClient,
};

pub use consumer::ConsumerClient;
pub use flood::flood;
pub use library::LibraryProducer;
pub use observer::observe;
pub use piped::PipedProducer;
pub use producer::{Counting, UnaryProducer};
pub use seeker::seek_about;
pub use trimmer::trim_behind;

use crate::history::{History, Stage, What};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a producer that was told to stop goes on trying to have its last values stored.
const LAST_TRIES: Duration = Duration::from_secs(30);

/// What all clients of a run share.
pub struct World {
    pub history: Arc<History>,
    /// Where the brokers are to be reached.
    pub ports: Vec<u16>,
    /// Where the tables are to be read; it changes when a server fails over.
    pub database: watch::Sender<String>,
    pub seed: u64,
    /// How much longer producers rest than they need to.
    pub leisure: u64,
    /// Whether a fault of the run keeps a broker from beating.
    pub may_be_silent: bool,
    /// Tells whoever makes messages, or moves or removes something, to come to an end.
    pub enough: CancellationToken,
    /// Tells whoever reads to come to an end.
    pub read: CancellationToken,
    /// What must not happen to a client, other than what a check of the history finds.
    pub alarms: Mutex<Vec<String>>,
}

impl World {
    pub fn alarm(&self, what: String) {
        self.alarms.lock().unwrap().push(what);
    }

    /// Chances of a client's own: the same in every run with the seed.
    pub fn chances(&self, client: &str) -> Rng {
        Rng::with_seed(client.bytes().fold(self.seed, |seed, byte| {
            seed.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(byte))
        }))
    }
}

/// A client's way to the brokers.
pub struct Way {
    ports: Vec<u16>,
    place: usize,
    channel: Option<Channel>,
}

impl Way {
    /// One that begins with a broker.
    pub fn new(world: &World, first: usize) -> Self {
        Self { ports: world.ports.clone(), place: first % world.ports.len(), channel: None }
    }

    /// A connection to the present broker.
    pub async fn channel(&mut self) -> Result<Channel, Status> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let endpoint =
            Endpoint::from_shared(format!("http://127.0.0.1:{}", self.ports[self.place]));
        let endpoint = endpoint
            .unwrap()
            .connect_timeout(Duration::from_secs(2))
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|error| Status::from_error(Box::new(error)))?;
        Ok(self.channel.insert(channel).clone())
    }

    pub async fn producers(&mut self) -> Result<ProducerServiceClient<Channel>, Status> {
        Ok(ProducerServiceClient::new(self.channel().await?))
    }

    pub async fn consumers(&mut self) -> Result<ConsumerServiceClient<Channel>, Status> {
        Ok(ConsumerServiceClient::new(self.channel().await?))
    }

    pub async fn topics(&mut self) -> Result<TopicServiceClient<Channel>, Status> {
        Ok(TopicServiceClient::new(self.channel().await?))
    }

    /// Goes to the next broker after a moment, if the present one is the reason.
    pub async fn move_on(&mut self, refused: &What, chances: &mut Rng) {
        if let What::Refused { code, .. } = refused
            && ["TRANSPORT", "Unavailable", "DeadlineExceeded"].contains(&code.as_str())
        {
            self.channel = None;
            self.place = (self.place + 1) % self.ports.len();
        }
        rest(chances, 10, 150).await;
    }

    /// Drops the connection, and goes to a broker by chance.
    pub fn leave(&mut self, chances: &mut Rng) {
        self.channel = None;
        self.place = chances.usize(..self.ports.len());
    }
}

/// A request that the broker need not answer after [`PATIENCE`].
pub fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

/// What an operation ended with, and whether it certainly had no effect.
pub fn refused(status: &Status) -> (Stage, What) {
    let info = status.get_details_error_info();
    let message = status.message().to_owned();
    let Some(info) = info else {
        // Only the client's own library says something without a reason.
        let code = match status.source().is_some() || status.code() == Code::Cancelled {
            true => "TRANSPORT".to_owned(),
            false => format!("{:?}", status.code()),
        };
        return (Stage::Info, What::Refused { code, reason: String::new(), message });
    };
    let stage = stage_of(&info.reason);
    (stage, What::Refused { code: format!("{:?}", status.code()), reason: info.reason, message })
}

/// Whether an operation that was refused for a reason certainly had no effect.
fn stage_of(reason: &str) -> Stage {
    match reason {
        "OUTCOME_UNKNOWN" | "DEADLINE_EXCEEDED" => Stage::Info,
        _ => Stage::Fail,
    }
}

/// Does nothing for some milliseconds.
pub async fn rest(chances: &mut Rng, least: u64, most: u64) {
    tokio::time::sleep(Duration::from_millis(chances.u64(least..=most))).await;
}

/// Tasks of clients.
pub type Clients = JoinSet<()>;
