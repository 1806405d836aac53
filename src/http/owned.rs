//! What is left to do of the subscriptions that this broker owns, as metrics.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::RwLock;

use crate::{
    broker::{Broker, Owned},
    metrics::{Collection, Samples},
};

/// How long what is known of them is shown again: owners and the database are asked no more often.
const SHOWN_FOR: Duration = Duration::from_secs(1);

/// The subscriptions that metrics show.
#[derive(Clone)]
pub(super) struct OwnedMetrics {
    broker: Arc<Broker>,
    /// How many are shown at most, the first ones by topic and id.
    limit: usize,
    shown: Arc<RwLock<Shown>>,
}

#[derive(Default)]
struct Shown {
    read_at: Option<Instant>,
    owned: Vec<Owned>,
}

impl OwnedMetrics {
    pub(super) fn new(broker: Arc<Broker>, limit: usize) -> Self {
        Self { broker, limit, shown: Arc::default() }
    }

    /// Asks the owners how their subscriptions stand, unless that was done just now.
    pub(super) async fn refresh(&self) {
        let begun = Instant::now();
        let read_at = self.shown.read().read_at;
        if read_at.is_some_and(|read_at| begun - read_at < SHOWN_FOR) {
            return;
        }
        let owned = self.broker.subscriptions.owned(self.limit).await;
        *self.shown.write() = Shown { read_at: Some(begun), owned };
    }
}

impl Collection for OwnedMetrics {
    fn write(&self, samples: &mut Samples<'_>) -> fmt::Result {
        let shown = self.shown.read();
        let each = |value: fn(&Owned) -> Option<f64>| {
            shown.owned.iter().filter_map(move |it| {
                let labels =
                    [("topic", it.topic.as_str()), ("subscription", it.subscription.as_str())];
                Some((labels, value(it)?))
            })
        };
        samples.gauges(
            "trunkline_subscription_unacknowledged_messages",
            "Messages of the log that are not acknowledged and not parked, of each subscription that this \
             broker owns",
            each(|it| Some(it.backlog.unacknowledged as f64)),
        )?;
        samples.gauges(
            "trunkline_subscription_oldest_unacknowledged_age_seconds",
            "Age of the oldest of these messages; 0 if there are none",
            each(|it| Some(it.oldest_age?.as_secs_f64())),
        )?;
        samples.gauges(
            "trunkline_subscription_lost_messages",
            "Messages that were removed from the log before they were acknowledged, since the last seek",
            each(|it| Some(it.backlog.lost as f64)),
        )
    }
}
