//! Works on a subscription's messages, over one stream after the other.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Status;

use super::{
    handlers::Handlers,
    job::Job,
    notice::{Listener, WorkerNotice},
    session::Session,
    stopping::{StopStep, Stopping},
    stream::{Events, WorkerEvent, WorkerStream},
};
use crate::{
    client::{
        backoff::Backoff,
        connect::{Client, Connection, StreamConnection},
        error::{Error, is_transient, retry_delay},
    },
    proto::OpenSubscription,
};

/// How long a broker may take to end a stream that has nothing more to say.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// How a worker works.
#[derive(Clone, Debug)]
pub(in crate::client) struct Options {
    pub(in crate::client) client: Client,
    pub(in crate::client) open: OpenSubscription,
    /// How long a stream may be silent.
    pub(in crate::client) silence: Duration,
    /// How many handlers run at once.
    pub(in crate::client) concurrency: usize,
    /// How many messages the worker may have.
    pub(in crate::client) max_outstanding: usize,
    /// How long handlers may go on when the worker stops.
    pub(in crate::client) stop_timeout: Duration,
    pub(in crate::client) until_caught_up: bool,
    /// How many messages to work on.
    pub(in crate::client) max_messages: Option<u64>,
    pub(in crate::client) listener: Listener,
}

/// A worker that works.
pub(super) struct Run {
    options: Options,
    handlers: Handlers,
    stopping: Stopping,
    backoff: Backoff,
    /// How many messages are still to be worked on, if that is limited.
    left: Option<u64>,
    /// How many streams there were, which numbers the current one.
    streams: u64,
    /// How often the token had been replaced when the current one was opened.
    replacements: u64,
}

impl Run {
    pub(super) fn new(options: Options, handlers: Handlers, stopping: Stopping) -> Self {
        let left = options.max_messages;
        let backoff = Backoff::default();
        Self { options, handlers, stopping, backoff, left, streams: 0, replacements: 0 }
    }

    /// Works until there is nothing left to do, the worker is to stop, or an error is final.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        loop {
            let status = match self.work().await {
                Ok(()) => return self.finish().await,
                Err(status) => status,
            };
            let client = &self.options.client;
            let has_another_token = client.has_another_token(status.code(), self.replacements);
            let may_resume = is_transient(&status) || has_another_token;
            if !may_resume || self.stopping.has_begun() || self.left == Some(0) {
                self.finish().await?;
                return Err(status.into());
            }
            let requested = client.pause_for(retry_delay(&status));
            self.options.listener.notify(WorkerNotice::Broken(status.into()));
            let pause = sleep(self.backoff.next_after(requested));
            if self.unless_stopped(pause).await.is_none() {
                return self.finish().await;
            }
        }
    }

    /// Waits for the handlers of lost streams, whose verdicts nobody takes.
    async fn finish(&mut self) -> Result<(), Error> {
        self.stopping.begin();
        while !self.handlers.is_empty() {
            tokio::select! {
                _ = self.handlers.ended() => {}
                step = self.stopping.next_step() => match step {
                    StopStep::Begun => {}
                    StopStep::TimeIsOver => self.abort_handlers(),
                    StopStep::PatienceIsOver => break,
                },
            }
        }
        match self.stopping.aborted() {
            0 => Ok(()),
            aborted => Err(Error::Lost {
                reason: format!(
                    "{aborted} of the handlers did not end in time: their messages are delivered again"
                ),
            }),
        }
    }

    fn abort_handlers(&mut self) {
        self.stopping.record_aborted(self.handlers.len());
        self.handlers.abort();
    }

    /// Waits for something while handlers of lost streams go on; `None` if the worker is to stop before.
    async fn unless_stopped<T>(&mut self, waiting: impl Future<Output = T>) -> Option<T> {
        let mut waiting = std::pin::pin!(waiting);
        loop {
            tokio::select! {
                done = &mut waiting => return Some(done),
                _ = self.handlers.ended() => {}
                _ = self.stopping.next_step() => return None,
            }
        }
    }

    /// Opens a stream, and works over it until it ends or nothing is left to do.
    async fn work(&mut self) -> Result<(), Status> {
        let client = self.options.client.clone();
        let Some(opened) = self.unless_stopped(client.open()).await else { return Ok(()) };
        let StreamConnection { connection, broker, replacements } = opened?;
        self.replacements = replacements;
        let ended = self.work_over(connection).await;
        if ended.as_ref().is_err_and(is_transient) {
            client.record_lost(broker);
        }
        ended
    }

    async fn work_over(&mut self, connection: Connection) -> Result<(), Status> {
        let Options { open, silence, .. } = &self.options;
        let opening = WorkerStream::open(connection, open.clone(), *silence);
        let Some(opened) = self.unless_stopped(opening).await else { return Ok(()) };
        let WorkerStream { requests, mut events } = opened?;
        self.streams += 1;
        let mut session = Session::new(requests);
        let served = self.serve(&mut session, &mut events).await;
        // What has not begun is delivered again.
        self.left = self.left.map(|left| left + session.waiting() as u64);
        served?;
        let stream = WorkerStream { requests: session.requests, events };
        // Everything is answered.
        let _ = timeout(END_TIMEOUT, stream.finish()).await;
        Ok(())
    }

    /// Works until all is settled that is to be settled.
    async fn serve(&mut self, session: &mut Session, events: &mut Events) -> Result<(), Status> {
        loop {
            while self.handlers.len() < self.options.concurrency
                && let Some(job) = session.next_job()
            {
                self.handlers.start(self.streams, job);
            }
            if self.options.until_caught_up {
                session.stop_when_caught_up();
            }
            if session.is_over() {
                return Ok(());
            }
            let now = Instant::now();
            let extend_at = session.extend_at(now);
            let has_request = session.has_request(now);
            // There is no room after a seek, or a break, as long as handlers are busy with what was
            // delivered before.
            let has_room = session.waiting() + self.handlers.len() <= self.options.max_outstanding;
            tokio::select! {
                event = events.next_event(), if has_room => match event? {
                    Some(event) => self.record(event, session),
                    None => return Err(Status::unavailable("the broker closed the stream")),
                },
                (handled, verdict) = self.handlers.ended(), if !self.handlers.is_empty() => {
                    // What came over a lost stream is delivered again.
                    if handled.stream == self.streams {
                        session.conclude(handled.delivery, handled.offset, verdict);
                    }
                }
                () = session.requests.room(), if has_request => session.send(now),
                () = sleep_until(extend_at.unwrap_or(now)), if extend_at.is_some() => {}
                step = self.stopping.next_step() => match step {
                    StopStep::Begun => {
                        session.stop_delivery();
                        session.give_back_waiting();
                    }
                    StopStep::TimeIsOver => self.abort_handlers(),
                    StopStep::PatienceIsOver => {
                        return Err(Status::unavailable("the broker does not answer"));
                    }
                },
            }
        }
    }

    fn record(&mut self, event: WorkerEvent, session: &mut Session) {
        match event {
            WorkerEvent::Attached(attached) => {
                session.record_attached(&attached);
                self.options.listener.notify(WorkerNotice::Attached);
            }
            WorkerEvent::Jobs(jobs) => {
                self.backoff.reset();
                self.accept(jobs, session);
            }
            WorkerEvent::CaughtUp => session.record_caught_up(),
            WorkerEvent::Heartbeat(_) => self.backoff.reset(),
            WorkerEvent::Stalled(stalled) => {
                self.options.listener.notify(WorkerNotice::Stalled(stalled));
            }
            WorkerEvent::Settled(settled) => session.record_settled(&settled),
        }
    }

    fn accept(&mut self, jobs: Vec<Job>, session: &mut Session) {
        let limit = match self.left {
            _ if self.stopping.has_begun() || !session.takes_more() => 0,
            Some(left) => usize::try_from(left).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let accepted = session.accept(jobs, limit);
        if let Some(left) = &mut self.left {
            *left -= accepted as u64;
            if *left == 0 {
                session.stop_delivery();
            }
        }
    }
}
