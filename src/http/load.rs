//! How busy the broker is, as metrics.

use std::{fmt, sync::Arc, time::UNIX_EPOCH};

use super::port::{ConnectionCounts, PortCounts};
use crate::{
    broker::Broker,
    metrics::{Collection, Samples},
};

/// How busy the broker is.
pub(super) struct LoadMetrics {
    pub(super) broker: Arc<Broker>,
    pub(super) port: PortCounts,
    pub(super) max_series: usize,
    pub(super) shows_consumers: bool,
}

impl Collection for LoadMetrics {
    fn write(&self, samples: &mut Samples<'_>) -> fmt::Result {
        let load = self.broker.load();
        let ConnectionCounts { open, limit, refused_by_total, refused_by_address } =
            (self.port.connections)();
        let calls = (self.port.calls)();
        let cache = load.cache;
        let swept_at = load.swept_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        for (name, description, value) in [
            (
                "trunkline_database_up",
                "Whether the database answers, as of the last second",
                f64::from(load.database_up),
            ),
            (
                "trunkline_wake_ups_up",
                "Whether other brokers' notifications are received; otherwise polling finds what they \
                 store",
                f64::from(load.hears_others),
            ),
            ("trunkline_draining", "Whether the broker drains", f64::from(load.is_draining)),
            ("trunkline_connections", "Open connections of the gRPC port", open as f64),
            ("trunkline_connections_limit", "Connections that may be open", limit as f64),
            ("trunkline_calls_open", "Calls that are open, streams included", calls as f64),
            (
                "trunkline_streams",
                "Streams of consumers, those that wait for a lease included",
                load.streams.used as f64,
            ),
            (
                "trunkline_streams_limit",
                "Streams of consumers that there may be",
                load.streams.limit as f64,
            ),
            (
                "trunkline_publish_bytes_in_flight",
                "Bytes of publishes, from their arrival to their answer",
                load.publish_bytes.used as f64,
            ),
            (
                "trunkline_publish_bytes_in_flight_limit",
                "Bytes of publishes that may be in flight",
                load.publish_bytes.limit as f64,
            ),
            (
                "trunkline_publish_queue_requests",
                "Publishes that wait for a writer",
                load.queued_publishes.used as f64,
            ),
            (
                "trunkline_publish_queue_requests_limit",
                "Publishes that there is room for in the queues of all writers",
                load.queued_publishes.limit as f64,
            ),
            (
                "trunkline_batch_cache_bytes",
                "Bytes that the batch cache holds",
                cache.bytes.used as f64,
            ),
            (
                "trunkline_batch_cache_limit_bytes",
                "Bytes that the batch cache may hold",
                cache.bytes.limit as f64,
            ),
            (
                "trunkline_retention_last_sweep_timestamp_seconds",
                "When this broker last finished removing expired messages; 0 if it has not, as one \
                 broker at a time removes them",
                swept_at.map_or(0.0, |at| at.as_secs_f64()),
            ),
        ] {
            samples.gauge(name, description, value)?;
        }
        samples.counters(
            "trunkline_connections_refused",
            "Connections that were refused, by the limit that they exceeded",
            [
                ([("limit", "total")], refused_by_total),
                ([("limit", "address")], refused_by_address),
            ],
        )?;
        samples.counter(
            "trunkline_batch_cache_hits",
            "Reads that the batch cache answered",
            cache.hits,
        )?;
        samples.counter(
            "trunkline_batch_cache_misses",
            "Reads that the database had to answer",
            cache.misses,
        )?;
        samples.counter(
            "trunkline_truncations",
            "Logs that were found to have lost messages",
            load.truncations,
        )?;
        let most = if self.shows_consumers { self.max_series } else { 0 };
        let waiting = load.waiting.iter().take(most).map(|waiting| {
            let labels =
                [("topic", waiting.topic.as_str()), ("consumer", waiting.consumer.as_str())];
            (labels, waiting.streams as f64)
        });
        samples.gauges(
            "trunkline_consumer_waiters",
            "Streams and pulls of this broker that wait for the consumer's lease",
            waiting,
        )
    }
}
