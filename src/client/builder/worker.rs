//! How a worker is opened.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    client::{
        connect::Client,
        error::{Error, is_transient},
        start::Start,
        worker::{Listener, Options, Worker, WorkerNotice, WorkerStream},
    },
    proto::{DeliveryPolicy, OpenSubscription},
};

/// How often an idle stream sends a heartbeat by default.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How many handlers run at once by default.
const CONCURRENCY: usize = 16;

/// How long handlers may go on by default when the worker stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The limits of a broker.
const MAX_OUTSTANDING_MESSAGES: usize = 100_000;
const MAX_OUTSTANDING_BYTES: usize = 256 * 1024 * 1024;
const HEARTBEATS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// The options of a [`Worker`]; from [`Client::worker`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct WorkerBuilder {
    client: Client,
    open: OpenSubscription,
    concurrency: usize,
    max_outstanding_messages: Option<usize>,
    max_outstanding_bytes: Option<usize>,
    heartbeat: Duration,
    stop_timeout: Duration,
    until_caught_up: bool,
    max_messages: Option<u64>,
    create: Option<(Start, DeliveryPolicy)>,
    listener: Listener,
}

impl Client {
    /// A worker of a subscription, to be opened with [`WorkerBuilder::open`].
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// use trunkline::client::Job;
    ///
    /// let worker = client.worker("orders", "billing").open().await?;
    /// worker.run(|job: Job| async move { println!("{:?}", job.payload) }).await
    /// # }
    /// ```
    pub fn worker(&self, topic: &str, subscription_id: &str) -> WorkerBuilder {
        let open = OpenSubscription {
            topic: topic.to_owned(),
            subscription_id: subscription_id.to_owned(),
            ..Default::default()
        };
        WorkerBuilder {
            client: self.clone(),
            open,
            concurrency: CONCURRENCY,
            max_outstanding_messages: None,
            max_outstanding_bytes: None,
            heartbeat: HEARTBEAT,
            stop_timeout: STOP_TIMEOUT,
            until_caught_up: false,
            max_messages: None,
            create: None,
            listener: Listener::default(),
        }
    }
}

impl WorkerBuilder {
    /// Creates the subscription if it does not exist: at this start, and with this policy. By default, a
    /// subscription that does not exist is refused.
    pub fn create(mut self, start: Start, policy: DeliveryPolicy) -> Self {
        self.create = Some((start, policy));
        self
    }

    /// How many handlers run at once; 16 by default.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers;
        self
    }

    /// How many messages the worker may have at a time, with and without a handler: at most 100,000; by
    /// default twice as many as handlers run at once. What it has, no other worker gets.
    pub fn max_outstanding_messages(mut self, messages: usize) -> Self {
        self.max_outstanding_messages = Some(messages);
        self
    }

    /// How many bytes of messages, as they are encoded, the worker may have at a time: at most 256 MiB;
    /// 64 MiB by default. A larger message is delivered when the worker has none.
    pub fn max_outstanding_bytes(mut self, bytes: usize) -> Self {
        self.max_outstanding_bytes = Some(bytes);
        self
    }

    /// How often an idle stream sends a heartbeat, 100 ms to 60 s; 10 s by default. A stream that is
    /// silent for three intervals is opened again.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// How long handlers may go on when the worker stops; 30 s by default. They are aborted then, and
    /// their messages are delivered again. [`Duration::MAX`] lets them go on for ever.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = timeout;
        self
    }

    /// Ends the worker when nothing is left to deliver and all that it has is settled. Messages that wait
    /// for a retry, or that other workers have, are not waited for.
    pub fn until_caught_up(mut self) -> Self {
        self.until_caught_up = true;
        self
    }

    /// Ends the worker when it has handled this many messages.
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.max_messages = Some(messages);
        self
    }

    /// Calls a function when the stream is open, lost or stalled. It must not block.
    pub fn on_notice(mut self, listen: impl Fn(WorkerNotice) + Send + Sync + 'static) -> Self {
        self.listener = Listener::new(listen);
        self
    }

    /// Checks the options, and creates the subscription if that is asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if an option is out of its range; [`Error::Refused`] or [`Error::Lost`] if the
    /// subscription is to be created and cannot be. If the topic or the subscription does not exist, the
    /// worker ends with an error instead.
    pub async fn open(self) -> Result<Worker, Error> {
        Ok(Worker::new(self.into_options().await?))
    }

    /// Opens a stream by itself. Of the options, those of messages, bytes and heartbeats apply, and
    /// [`Self::create`].
    ///
    /// # Errors
    ///
    /// Those of [`Self::open`]; also [`Error::Lost`] if no broker is reached, and [`Error::Refused`] if
    /// the broker refuses.
    pub async fn open_stream(self) -> Result<WorkerStream, Error> {
        let Options { client, open, silence, .. } = self.into_options().await?;
        let opened = client.open().await?;
        let broker = opened.broker;
        let stream = WorkerStream::open(opened.connection, open, silence).await;
        if stream.as_ref().is_err_and(is_transient) {
            // The next one goes to another broker.
            client.record_lost(broker);
        }
        Ok(stream?)
    }

    async fn into_options(self) -> Result<Options, Error> {
        let Self { client, mut open, concurrency, create, heartbeat, .. } = self;
        let twice = concurrency.saturating_mul(2).min(MAX_OUTSTANDING_MESSAGES);
        let max_outstanding = self.max_outstanding_messages.unwrap_or(twice);
        check("subscription_id", !open.subscription_id.is_empty(), "is empty")?;
        check("concurrency", concurrency > 0, "must be at least 1")?;
        check("max_messages", self.max_messages != Some(0), "must be at least 1")?;
        let is_in_range = (1..=MAX_OUTSTANDING_MESSAGES).contains(&max_outstanding);
        check("max_outstanding_messages", is_in_range, "must be 1 to 100,000")?;
        let bytes = self.max_outstanding_bytes;
        let is_in_range = bytes.is_none_or(|bytes| (1..=MAX_OUTSTANDING_BYTES).contains(&bytes));
        check("max_outstanding_bytes", is_in_range, "must be 1 byte to 256 MiB")?;
        check("heartbeat_interval", HEARTBEATS.contains(&heartbeat), "must be 100 ms to 60 s")?;
        open.max_outstanding_messages = max_outstanding as i32;
        open.max_outstanding_bytes = bytes.unwrap_or(0) as i64;
        open.heartbeat_interval = heartbeat.try_into().ok();
        if let Some((start, policy)) = create {
            client.ensure_subscription(&open.topic, &open.subscription_id, start, policy).await?;
        }
        Ok(Options {
            client,
            open,
            silence: 3 * heartbeat,
            concurrency,
            max_outstanding,
            stop_timeout: self.stop_timeout,
            until_caught_up: self.until_caught_up,
            max_messages: self.max_messages,
            listener: self.listener,
        })
    }
}

fn check(field: &'static str, is_fine: bool, problem: &str) -> Result<(), Error> {
    match is_fine {
        true => Ok(()),
        false => Err(Error::Invalid { field, problem: problem.to_owned() }),
    }
}
