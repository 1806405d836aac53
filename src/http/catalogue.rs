//! Topics, consumers and the outbox, as metrics.
//!
//! All brokers of a database show the same values of what is in there.

use std::{fmt, sync::Arc};

use super::shown::Shown;
use crate::{
    broker::{Broker, Overview, Snapshot},
    metrics::{Collection, Samples},
};

/// What there is in the database.
pub(super) struct CatalogueMetrics {
    pub(super) shown: Shown,
    pub(super) overview: Arc<Overview>,
    pub(super) shows_consumers: bool,
}

/// What goes through this broker, by topic.
pub(super) struct TrafficMetrics {
    pub(super) broker: Arc<Broker>,
    pub(super) overview: Arc<Overview>,
}

impl Collection for CatalogueMetrics {
    fn write(&self, samples: &mut Samples<'_>) -> fmt::Result {
        // Also while the database is away, so that this age grows.
        samples.gauge(
            "trunkline_catalogue_age_seconds",
            "Time since topics and consumers were last read from the database",
            self.overview.read_at().elapsed().as_secs_f64(),
        )?;
        let Some(snapshot) = self.shown.read().clone() else { return Ok(()) };
        let Snapshot { size, topics, consumers, outbox, .. } = &*snapshot;
        let limit = self.overview.limit();
        // That consumers have no series may have been asked for.
        let of_consumers = if self.shows_consumers { size.consumers } else { 0 };
        let dropped = |total: u64| total.saturating_sub(limit as u64) as f64;
        samples.gauge("trunkline_topics", "Topics of the database", size.topics as f64)?;
        samples.gauge("trunkline_consumers", "Consumers of the database", size.consumers as f64)?;
        samples.gauges(
            "trunkline_metrics_series_dropped",
            "Topics and consumers that have no series, because there are more than \
             --metrics-max-series",
            [
                ([("family", "topics")], dropped(size.topics)),
                ([("family", "consumers")], dropped(of_consumers)),
            ],
        )?;

        if let Some(outbox) = outbox {
            samples.gauge(
                "trunkline_outbox_messages",
                "Messages of SQL publishers that wait to be moved into the log; no more than 100,000 \
                 are counted",
                outbox.messages as f64,
            )?;
            samples.gauge(
                "trunkline_outbox_oldest_message_age_seconds",
                "Time since the oldest message that waits was published; 0 if none waits",
                outbox.age.as_secs_f64(),
            )?;
        }

        let topic = |value: fn(&_) -> f64| {
            topics.iter().map(move |it| ([("topic", it.name.as_str())], value(it)))
        };
        samples.gauges(
            "trunkline_topic_head",
            "Offset that the topic's next message gets",
            topic(|it| it.head.0 as f64),
        )?;
        samples.gauges(
            "trunkline_topic_log_start",
            "Offset of the topic's first message",
            topic(|it| it.start.0 as f64),
        )?;
        samples.gauges(
            "trunkline_topic_stored_bytes",
            "Bytes of the topic's messages",
            topic(|it| it.bytes as f64),
        )?;
        let published = topics
            .iter()
            .filter_map(|it| Some(([("topic", it.name.as_str())], it.last_published?)));
        samples.gauges(
            "trunkline_topic_last_published_timestamp_seconds",
            "When the topic's last message was published, by the database's clock",
            published,
        )?;

        if !self.shows_consumers {
            return Ok(());
        }
        let consumer = |value: fn(&_) -> f64| {
            consumers.iter().map(move |it| {
                ([("topic", it.topic.as_str()), ("consumer", it.id.as_str())], value(it))
            })
        };
        samples.gauges(
            "trunkline_consumer_position",
            "Offset that the consumer gets next",
            consumer(|it| it.position.0 as f64),
        )?;
        samples.gauges(
            "trunkline_consumer_lag_messages",
            "Messages that the consumer has not had yet",
            consumer(|it| it.lag as f64),
        )?;
        samples.gauges(
            "trunkline_consumer_missing_messages",
            "Messages between the head and the consumer's position beyond it, which the log has lost",
            consumer(|it| it.missing as f64),
        )?;
        samples.gauges(
            "trunkline_consumer_lag_seconds",
            "Age of the next message that the consumer gets; 0 if it has caught up",
            consumer(|it| it.behind.as_secs_f64()),
        )?;
        samples.gauges(
            "trunkline_consumer_position_age_seconds",
            "Time since the consumer's position last moved",
            consumer(|it| it.unchanged_for.as_secs_f64()),
        )?;
        samples.gauges(
            "trunkline_consumer_lease_held",
            "Whether a stream has the consumer's lease",
            consumer(|it| f64::from(it.is_held)),
        )?;
        let holders = consumers.iter().filter_map(|it| {
            let holder = it.holder.as_deref()?;
            let labels =
                [("topic", it.topic.as_str()), ("consumer", it.id.as_str()), ("holder", holder)];
            Some((labels, 1.0))
        });
        samples.gauges(
            "trunkline_consumer_lease_holder_info",
            "Who has the consumer's lease",
            holders,
        )
    }
}

impl Collection for TrafficMetrics {
    fn write(&self, samples: &mut Samples<'_>) -> fmt::Result {
        // However old it is, as the counters go on while the database is away.
        let Some(snapshot) = self.overview.latest() else { return Ok(()) };
        let traffic = &self.broker.metrics().traffic;
        let found: Vec<_> = snapshot
            .topics
            .iter()
            .map(|topic| {
                ([("topic", topic.name.as_str())], traffic.find(topic.id).unwrap_or_default())
            })
            .collect();
        let mut counters = |name, description, value: fn(&_) -> u64| {
            samples.counters(
                name,
                description,
                found.iter().map(|(labels, it)| (*labels, value(it))),
            )
        };
        counters(
            "trunkline_topic_published_messages",
            "Messages that this broker stored",
            |it: &crate::metrics::TopicTraffic| it.published_messages,
        )?;
        counters(
            "trunkline_topic_published_bytes",
            "Bytes of the payloads, keys and headers that this broker stored",
            |it| it.published_bytes,
        )?;
        counters(
            "trunkline_topic_consumed_messages",
            "Messages that this broker handed out to streams, pulls and reads",
            |it| it.consumed_messages,
        )?;
        counters(
            "trunkline_topic_consumed_bytes",
            "Bytes of the messages that this broker handed out, about as they are encoded",
            |it| it.consumed_bytes,
        )
    }
}
