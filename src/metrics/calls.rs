//! Calls: how long they take, how they end, and why they are refused.

use std::{sync::Arc, time::Instant};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
};

use super::{
    buckets::seconds,
    text::{Instruments, Metrics},
};

/// What is measured of calls.
pub struct CallMetrics {
    durations: Family<CallLabels, Histogram, fn() -> Histogram>,
    refusals: Family<RefusalLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    rpc_system_name: &'static str,
    rpc_method: &'static str,
    rpc_response_status_code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusalLabels {
    reason: String,
}

/// Measures one call. A call that is dropped before its end was cancelled by its client.
pub struct CallTimer {
    metrics: Arc<CallMetrics>,
    method: &'static str,
    code: &'static str,
    began: Instant,
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self { durations: Family::new_with_constructor(seconds), refusals: Family::default() }
    }
}

impl CallMetrics {
    /// Begins to measure a call of a method, which is `package.Service/Method`, or empty if there is no
    /// such method.
    pub fn begin(self: &Arc<Self>, method: &'static str) -> CallTimer {
        // As OpenTelemetry calls it.
        let method = if method.is_empty() { "_OTHER" } else { method };
        CallTimer { metrics: self.clone(), method, code: "CANCELLED", began: Instant::now() }
    }

    /// Counts a call, or a request of a stream, that was refused for a reason.
    pub fn count_refusal(&self, reason: &str) {
        self.refusals.get_or_create(&RefusalLabels { reason: reason.to_owned() }).inc();
    }
}

impl CallTimer {
    /// When the call began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Ends the measurement of a call that ended with a code.
    pub fn end(mut self, code: &'static str) {
        self.code = code;
    }

    /// Counts why the call was refused.
    pub fn count_refusal(&self, reason: &str) {
        self.metrics.count_refusal(reason);
    }
}

impl Drop for CallTimer {
    fn drop(&mut self) {
        let Self { metrics, method, code, began } = self;
        let labels = CallLabels {
            rpc_system_name: "grpc",
            rpc_method: method,
            rpc_response_status_code: code,
        };
        metrics.durations.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
    }
}

impl Instruments for CallMetrics {
    fn register(&self, metrics: &mut Metrics) {
        metrics.add(
            "rpc_server_call_duration_seconds",
            "Time from the headers of a call to the end of its answer",
            self.durations.clone(),
        );
        metrics.add(
            "trunkline_refusals",
            "Calls, and requests of streams, that were refused, by the reason in their error details",
            self.refusals.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_by_how_they_ended() {
        let calls = Arc::new(CallMetrics::default());
        calls.begin("a.B/C").end("OK");
        drop(calls.begin(""));
        calls.count_refusal("TOPIC_NOT_FOUND");
        let mut metrics = Metrics::default();
        metrics.register(&*calls);
        let text = metrics.text().unwrap();
        for expected in [
            "rpc_server_call_duration_seconds_count{rpc_system_name=\"grpc\",rpc_method=\"a.B/C\",rpc_response_status_code=\"OK\"} 1",
            "rpc_server_call_duration_seconds_count{rpc_system_name=\"grpc\",rpc_method=\"_OTHER\",rpc_response_status_code=\"CANCELLED\"} 1",
            "trunkline_refusals_total{reason=\"TOPIC_NOT_FOUND\"} 1",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
