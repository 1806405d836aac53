//! Wake-ups between brokers: hints that a head moved or a lease came free.
//!
//! NOTIFY takes a lock of the whole cluster until its transaction is over, so it stays out of
//! publishing: a broker sends what has gathered in a few milliseconds, in a transaction of its
//! own. A wake-up may get lost; the polls then find what it would have told, within a second.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{feed::Feeds, lease::Leases, pace::Backoff};
use crate::{
    model::{ConsumerId, Offset, TopicId, TopicName},
    storage::{Heard, Storage, WakeUpSender},
};

/// What gathers for so long is sent as one.
const GATHER: Duration = Duration::from_millis(3);

/// PostgreSQL takes less than 8,000 bytes.
const MAX_TEXT: usize = 7_000;

/// Wake-ups to be sent; cheap to clone. What waits is bounded by the topics published to and the
/// leases given back, and is dropped when nobody can be told.
#[derive(Clone, Default)]
pub(super) struct WakeUps(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    heads: Mutex<HashMap<TopicId, Offset>>,
    freed: Mutex<Vec<(TopicName, ConsumerId)>>,
    some: Notify,
}

impl WakeUps {
    /// A topic's head moved.
    pub(super) fn head_moved(&self, topic: TopicId, head: Offset) {
        lock(&self.0.heads).insert(topic, head);
        self.0.some.notify_one();
    }

    /// A lease was given back.
    pub(super) fn lease_freed(&self, topic: TopicName, consumer: ConsumerId) {
        lock(&self.0.freed).push((topic, consumer));
        self.0.some.notify_one();
    }

    /// All that waits, as texts that each fit in one notification.
    fn take(&self, broker: &str) -> Vec<String> {
        let heads = std::mem::take(&mut *lock(&self.0.heads));
        let freed = std::mem::take(&mut *lock(&self.0.freed));
        let words = heads
            .into_iter()
            .map(|(topic, head)| format!(" h{}={head}", topic.0))
            .chain(freed.into_iter().map(|(topic, consumer)| format!(" f{topic}/{consumer}")));
        let mut texts: Vec<String> = Vec::new();
        for word in words {
            match texts.last_mut() {
                Some(text) if text.len() + word.len() <= MAX_TEXT => text.push_str(&word),
                _ => texts.push(format!("{broker}{word}")),
            }
        }
        texts
    }
}

/// Starts to listen and to send.
pub(super) fn start(
    storage: Arc<Storage>,
    feeds: Arc<Feeds>,
    leases: Arc<Leases>,
    poll_now: Arc<Notify>,
    tasks: &TaskTracker,
    stopping: CancellationToken,
) -> WakeUps {
    let wake_ups = WakeUps::default();
    let (senders, sender) = watch::channel(None);
    let broker = uuid::Uuid::new_v4().simple().to_string();
    let sending = send(wake_ups.clone(), broker.clone(), sender);
    tasks.spawn(stopping.clone().run_until_cancelled_owned(sending));
    let hearing = hear(storage, broker, feeds, leases, poll_now, senders);
    tasks.spawn(stopping.run_until_cancelled_owned(hearing));
    wake_ups
}

async fn send(wake_ups: WakeUps, broker: String, sender: watch::Receiver<Option<WakeUpSender>>) {
    loop {
        wake_ups.0.some.notified().await;
        time::sleep(GATHER).await;
        let texts = wake_ups.take(&broker);
        let Some(sender) = sender.borrow().clone() else { continue };
        for text in texts {
            if let Err(error) = sender.send(&text).await {
                tracing::debug!(%error, "send a wake-up");
                break;
            }
        }
    }
}

async fn hear(
    storage: Arc<Storage>,
    broker: String,
    feeds: Arc<Feeds>,
    leases: Arc<Leases>,
    poll_now: Arc<Notify>,
    senders: watch::Sender<Option<WakeUpSender>>,
) {
    let mut backoff = Backoff::new();
    loop {
        match storage.open_listen_session().await {
            Ok(mut session) => {
                senders.send_replace(Some(session.sender()));
                // What was sent while nobody listened is in the tables.
                poll_now.notify_one();
                backoff = Backoff::new();
                loop {
                    match session.hear().await {
                        Heard::WakeUp(text) => wake(&text, &broker, &feeds, &leases),
                        Heard::Closed(problem) => {
                            tracing::warn!(problem, "lost the listening connection");
                            break;
                        }
                    }
                }
                senders.send_replace(None);
            }
            Err(error) => tracing::warn!(%error, "listen for wake-ups"),
        }
        backoff.pause().await;
    }
}

/// Acts on another broker's text; passes over words it does not know.
fn wake(text: &str, broker: &str, feeds: &Feeds, leases: &Leases) {
    let mut words = text.split(' ');
    if words.next() == Some(broker) {
        return;
    }
    for word in words {
        if let Some((topic, head)) = parse_head(word) {
            feeds.head_moved(topic, head);
        } else if let Some((topic, consumer)) = parse_freed(word) {
            leases.freed_elsewhere(topic, consumer);
        }
    }
}

fn parse_head(word: &str) -> Option<(TopicId, Offset)> {
    let (topic, head) = word.strip_prefix('h')?.split_once('=')?;
    Some((TopicId(topic.parse().ok()?), Offset(head.parse().ok()?)))
}

fn parse_freed(word: &str) -> Option<(TopicName, ConsumerId)> {
    let (topic, consumer) = word.strip_prefix('f')?.split_once('/')?;
    Some((TopicName::parse(topic).ok()?, ConsumerId::parse(consumer).ok()?))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gathers_is_sent_as_few_texts_that_say_all() {
        let wake_ups = WakeUps::default();
        for topic in 0..2_000 {
            wake_ups.head_moved(TopicId(topic), Offset(1));
            wake_ups.head_moved(TopicId(topic), Offset(i64::from(topic)));
        }
        let names = (TopicName::stored("orders"), ConsumerId::stored("billing"));
        wake_ups.lease_freed(names.0.clone(), names.1.clone());

        let texts = wake_ups.take("me");
        assert!(texts.iter().all(|text| text.len() < 8_000 && text.starts_with("me ")));
        let words: Vec<&str> =
            texts.iter().flat_map(|text| text.split(' ').filter(|word| *word != "me")).collect();
        let heads: HashMap<_, _> = words.iter().filter_map(|word| parse_head(word)).collect();
        assert_eq!(heads.len(), 2_000);
        assert_eq!(heads[&TopicId(7)], Offset(7));
        assert_eq!(words.iter().find_map(|word| parse_freed(word)), Some(names));
        assert!(wake_ups.take("me").is_empty());
    }

    #[test]
    fn words_of_a_newer_broker_are_passed_over() {
        for word in ["", "h", "hx=1", "h1", "f", "fa", "fa/", "z9"] {
            assert!(parse_head(word).is_none() && parse_freed(word).is_none(), "{word}");
        }
    }
}
