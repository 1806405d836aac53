//! Sends this broker's notifications, and receives those of others.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{
        backoff::Backoff,
        notify::outbox::{Notification, Outbox},
    },
    storage::{ListenSession, NotificationSender, Received, Storage},
};

/// How long to gather notifications before sending them together.
const GATHER: Duration = Duration::from_millis(3);

/// A connection that takes longer to send hangs, and will receive nothing either.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends and receives notifications.
pub(crate) struct Notifier<D> {
    pub storage: Arc<Storage>,
    pub outbox: Outbox,
    /// Called with each notification from another broker.
    pub dispatch: D,
    /// Notified when notifications may have been missed.
    pub poll_now: Arc<Notify>,
    pub stopping: CancellationToken,
}

/// The open session, for sending.
#[derive(Clone)]
struct OpenSession {
    sender: NotificationSender,
    /// Notified when sending takes too long.
    hangs: Arc<Notify>,
}

impl<D: Fn(Notification) + Send + Sync + 'static> Notifier<D> {
    /// Starts sending and receiving. The returned channel says whether other brokers' notifications
    /// are received. It stays false on servers that do not deliver notifications; there, polling
    /// finds everything.
    pub(crate) fn start(self, tasks: &TaskTracker) -> watch::Receiver<bool> {
        let (session, open_session) = watch::channel(None);
        // True until opening the session fails, so that a start does not look like a failure.
        let (hearing, hears_others) = watch::channel(self.storage.notifies());
        let broker = uuid::Uuid::new_v4().simple().to_string();
        let stopping = self.stopping.clone();
        let send = send(self.outbox.clone(), broker.clone(), open_session);
        tasks.spawn(stopping.clone().run_until_cancelled_owned(send));
        if self.storage.notifies() {
            let receive = async move { self.receive(broker, session, hearing).await };
            tasks.spawn(stopping.run_until_cancelled_owned(receive));
        } else {
            let hint = "notifications do not arrive on this server; what other brokers store is found \
                        by polling, within a second";
            tracing::warn!(hint, "polling mode");
        }
        hears_others
    }

    async fn receive(
        self,
        broker: String,
        open_session: watch::Sender<Option<OpenSession>>,
        hearing: watch::Sender<bool>,
    ) {
        let mut backoff = Backoff::new();
        loop {
            match self.storage.open_listen_session().await {
                Ok(session) => {
                    let opened = Instant::now();
                    let (sender, hangs) = (session.sender(), Arc::new(Notify::new()));
                    let hung = hangs.clone();
                    open_session.send_replace(Some(OpenSession { sender, hangs }));
                    set(&hearing, true);
                    // Notifications were missed while no session listened; the poll makes up for
                    // them.
                    self.poll_now.notify_one();
                    let error = self.receive_until_lost(session, &broker, &hung).await;
                    tracing::warn!(error, "lost the listening connection");
                    backoff.settle(opened.elapsed());
                    open_session.send_replace(None);
                    set(&hearing, false);
                }
                Err(error) => {
                    set(&hearing, false);
                    tracing::warn!(%error, "listen for notifications");
                }
            }
            backoff.pause().await;
        }
    }

    /// Receives until the session is lost; returns why.
    async fn receive_until_lost(
        &self,
        mut session: ListenSession,
        broker: &str,
        hangs: &Notify,
    ) -> String {
        let mut moved = pin!(self.storage.wait_for_other_primary(session.server()));
        loop {
            let received = tokio::select! {
                received = session.receive() => received,
                () = &mut moved => return "another server is the primary now".to_owned(),
                () = hangs.notified() => return format!("nothing can be sent in {SEND_TIMEOUT:?}"),
            };
            match received {
                Received::Notification(payload) => self.dispatch_all(&payload, broker),
                Received::Closed(problem) => return problem,
            }
        }
    }

    /// Dispatches another broker's payload. Ignores words that this broker does not know.
    fn dispatch_all(&self, payload: &str, broker: &str) {
        let mut words = payload.split(' ');
        if words.next() != Some(broker) {
            words.filter_map(Notification::parse).for_each(&self.dispatch);
        }
    }
}

async fn send(outbox: Outbox, broker: String, session: watch::Receiver<Option<OpenSession>>) {
    loop {
        outbox.wait().await;
        time::sleep(GATHER).await;
        let payloads = outbox.take(&broker);
        let Some(OpenSession { sender, hangs }) = session.borrow().clone() else { continue };
        for payload in payloads {
            match time::timeout(SEND_TIMEOUT, sender.send(&payload)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "send a notification");
                    break;
                }
                Err(_) => {
                    hangs.notify_one();
                    break;
                }
            }
        }
    }
}

/// Sets whether other brokers are heard; wakes nobody if nothing changed.
fn set(hearing: &watch::Sender<bool>, hears: bool) {
    hearing.send_if_modified(|heard| std::mem::replace(heard, hears) != hears);
}
