//! Wake-ups between brokers: hints that a head moved or a lease came free.
//!
//! NOTIFY takes a lock of the whole cluster until its transaction is over, so it stays out of
//! publishing: a broker sends what has gathered in a few milliseconds, in a transaction of its
//! own. A wake-up may get lost; the polls then find what it would have told, within a second.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{
        backoff::Backoff,
        lease::registry::Leases,
        log::topics::TopicLogs,
        notify::outbox::{LeaseScope, Notification, Outbox},
    },
    storage::{NotificationSender, Received, Storage},
};

/// What gathers for so long is sent as one.
const GATHER: Duration = Duration::from_millis(3);

/// A connection that takes longer to send hangs, and hears nothing either.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts to listen and to send; what it returns tells whether this broker hears the others. Where
/// notifications do not arrive, it never does, and the polls find everything.
pub(crate) fn start(
    storage: Arc<Storage>,
    logs: Arc<TopicLogs>,
    leases: Arc<Leases>,
    poll_now: Arc<Notify>,
    hints: Outbox,
    tasks: &TaskTracker,
    stopping: CancellationToken,
) -> watch::Receiver<bool> {
    let (senders, sending) = watch::channel(None);
    // The session that listens is about to be opened: only if that fails is it true that others are
    // not heard.
    let (hearing, hears) = watch::channel(storage.notifies());
    let broker = uuid::Uuid::new_v4().simple().to_string();
    let sending = send(hints, broker.clone(), sending);
    tasks.spawn(stopping.clone().run_until_cancelled_owned(sending));
    if storage.notifies() {
        let hearing = receive(storage, broker, logs, leases, poll_now, senders, hearing);
        tasks.spawn(stopping.run_until_cancelled_owned(hearing));
    } else {
        tracing::warn!(
            "polling mode: notifications do not arrive on this server; what other brokers store \
             is found by polling, within a second"
        );
    }
    hears
}

/// What sends over a session, and has it closed when it hangs.
type Sending = Option<(NotificationSender, Arc<Notify>)>;

async fn send(hints: Outbox, broker: String, sending: watch::Receiver<Sending>) {
    loop {
        hints.some().await;
        time::sleep(GATHER).await;
        let texts = hints.take(&broker);
        let Some((sender, hangs)) = sending.borrow().clone() else { continue };
        for text in texts {
            match time::timeout(SEND_TIMEOUT, sender.send(&text)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "send a wake-up");
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

async fn receive(
    storage: Arc<Storage>,
    broker: String,
    logs: Arc<TopicLogs>,
    leases: Arc<Leases>,
    poll_now: Arc<Notify>,
    senders: watch::Sender<Sending>,
    hearing: watch::Sender<bool>,
) {
    let mut backoff = Backoff::new();
    loop {
        match storage.open_listen_session().await {
            Ok(mut session) => {
                let opened = Instant::now();
                let hangs = Arc::new(Notify::new());
                let mut moved = pin!(storage.wait_for_other_primary(session.server()));
                senders.send_replace(Some((session.sender(), hangs.clone())));
                tell(&hearing, true);
                // What was sent while nobody listened is in the tables.
                poll_now.notify_one();
                loop {
                    let heard = tokio::select! {
                        heard = session.receive() => heard,
                        () = &mut moved => {
                            Received::Closed("another server has taken its server's place".to_owned())
                        }
                        () = hangs.notified() => {
                            Received::Closed(format!("nothing can be sent in {SEND_TIMEOUT:?}"))
                        }
                    };
                    match heard {
                        Received::Notification(text) => wake(&text, &broker, &logs, &leases),
                        Received::Closed(problem) => {
                            tracing::warn!(problem, "lost the listening connection");
                            break;
                        }
                    }
                }
                backoff.settle(opened.elapsed());
                senders.send_replace(None);
                tell(&hearing, false);
            }
            Err(error) => {
                tell(&hearing, false);
                tracing::warn!(%error, "listen for wake-ups");
            }
        }
        backoff.pause().await;
    }
}

/// Tells whether others are heard, if that is news.
fn tell(hearing: &watch::Sender<bool>, hears: bool) {
    hearing.send_if_modified(|heard| std::mem::replace(heard, hears) != hears);
}

/// Acts on another broker's text; passes over words it does not know.
fn wake(text: &str, broker: &str, logs: &TopicLogs, leases: &Leases) {
    let mut words = text.split(' ');
    if words.next() == Some(broker) {
        return;
    }
    for hint in words.filter_map(Notification::parse) {
        match hint {
            Notification::Head(topic, head) => logs.head_moved(topic, head),
            Notification::Freed(topic, consumer) => leases.freed_elsewhere(topic, consumer),
            Notification::Changed(whose) => {
                leases.look_at(whose);
                // A topic's leases all change at once only when it is deleted.
                if let LeaseScope::Topic(topic) = whose {
                    logs.topic_deleted(topic);
                }
            }
        }
    }
}
