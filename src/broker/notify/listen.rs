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

/// How long notifications gather before they are sent together.
const GATHER: Duration = Duration::from_millis(3);

/// A connection that takes longer to send hangs, and receives nothing either.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends and receives notifications.
pub(crate) struct Notifier<D> {
    pub storage: Arc<Storage>,
    pub outbox: Outbox,
    /// Called with each notification of another broker.
    pub dispatch: D,
    /// Notified when notifications may have been missed.
    pub poll_now: Arc<Notify>,
    pub stopping: CancellationToken,
}

/// The session that sends, and what to notify when it hangs.
type Sender = Option<(NotificationSender, Arc<Notify>)>;

impl<D: Fn(Notification) + Send + Sync + 'static> Notifier<D> {
    /// Starts to send and to receive. The returned channel says whether other brokers are heard.
    /// Where notifications do not arrive it stays false, and polls find everything.
    pub(crate) fn start(self, tasks: &TaskTracker) -> watch::Receiver<bool> {
        let (sender, sending) = watch::channel(None);
        // The session is about to be opened: others are not heard only if that fails.
        let (hearing, hears_others) = watch::channel(self.storage.notifies());
        let broker = uuid::Uuid::new_v4().simple().to_string();
        let stopping = self.stopping.clone();
        let send = send(self.outbox.clone(), broker.clone(), sending);
        tasks.spawn(stopping.clone().run_until_cancelled_owned(send));
        if self.storage.notifies() {
            let receive = async move { self.receive(broker, sender, hearing).await };
            tasks.spawn(stopping.run_until_cancelled_owned(receive));
        } else {
            tracing::warn!(
                "polling mode: notifications do not arrive on this server; what other brokers store \
                 is found by polling, within a second"
            );
        }
        hears_others
    }

    async fn receive(
        self,
        broker: String,
        sender: watch::Sender<Sender>,
        hearing: watch::Sender<bool>,
    ) {
        let mut backoff = Backoff::new();
        loop {
            match self.storage.open_listen_session().await {
                Ok(session) => {
                    let opened = Instant::now();
                    let hangs = Arc::new(Notify::new());
                    sender.send_replace(Some((session.sender(), hangs.clone())));
                    set(&hearing, true);
                    // What was sent while nobody listened is in the tables.
                    self.poll_now.notify_one();
                    let problem = self.receive_until_lost(session, &broker, &hangs).await;
                    tracing::warn!(problem, "lost the listening connection");
                    backoff.settle(opened.elapsed());
                    sender.send_replace(None);
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

    /// Dispatches another broker's payload; ignores words that this broker does not know.
    fn dispatch_all(&self, payload: &str, broker: &str) {
        let mut words = payload.split(' ');
        if words.next() != Some(broker) {
            words.filter_map(Notification::parse).for_each(&self.dispatch);
        }
    }
}

async fn send(outbox: Outbox, broker: String, sender: watch::Receiver<Sender>) {
    loop {
        outbox.some().await;
        time::sleep(GATHER).await;
        let payloads = outbox.take(&broker);
        let Some((sender, hangs)) = sender.borrow().clone() else { continue };
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

/// Sets whether others are heard, if that is news.
fn set(hearing: &watch::Sender<bool>, hears: bool) {
    hearing.send_if_modified(|heard| std::mem::replace(heard, hears) != hears);
}
