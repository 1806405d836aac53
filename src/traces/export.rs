//! Sends spans to a collector by OTLP over gRPC.
//!
//! Spans wait in a queue that is bounded. When it is full, because the collector is slow or away, spans are
//! dropped and counted: nothing that is traced waits for the collector.

use std::{env, mem, sync::Arc, time::Duration};

use opentelemetry::{Context, InstrumentationScope, Key, KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as OtlpExporter, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
    },
};
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{
    codegen::http::Uri,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{metrics::TraceMetrics, traces::publishing::MAX_LINKS};

/// How many spans may wait to be sent. Further ones are dropped.
const QUEUE_LENGTH: usize = 2_048;

/// How many spans are sent at a time. The largest have 128 links, so that a request stays well below the
/// 4 MiB that a collector accepts.
const MOST_AT_A_TIME: usize = 256;

/// How long spans gather before they are sent.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the collector may take to accept spans, connecting included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the last exports may take, as a stop waits for them.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection whose collector does not answer a ping is opened anew.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where traces go, and what is traced.
#[derive(Clone, Debug)]
pub struct TraceExport {
    /// The collector's URL: `http://` or `https://`, a host and a port.
    pub endpoint: String,
    /// Certificates of the authorities to trust, in PEM, instead of the system's.
    pub authorities: Option<Vec<u8>>,
    /// The share of calls to trace of those whose clients do not say whether to: 0 to 1.
    pub sampling: f64,
}

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL of the collector is not one. It is not repeated, as somebody may put a secret there.
    #[error(
        "it must be a URL with a host and a port, such as http://127.0.0.1:4317; a token goes into \
         OTEL_EXPORTER_OTLP_HEADERS"
    )]
    Endpoint,
    /// Authorities are given for a connection that is not encrypted.
    #[error("it must begin with https://, as authorities are given for it (--otlp-ca)")]
    NotEncrypted,
    /// The certificates of the authorities cannot be used.
    #[error("use the authorities: {0}")]
    Authorities(#[from] tonic::transport::Error),
    /// OpenTelemetry's variables ask for what is not possible.
    #[error("{0}")]
    Exporter(#[from] ExporterBuildError),
}

/// The task that exports. It ends when it is told to, or when nobody can end a span any more.
pub(super) struct Export {
    stopping: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// The spans that have ended.
#[derive(Debug)]
struct Queue {
    spans: mpsc::Sender<SpanData>,
    metrics: Arc<TraceMetrics>,
}

/// Takes spans from the queue, and sends them.
struct Sender {
    exporter: OtlpExporter,
    spans: mpsc::Receiver<SpanData>,
    metrics: Arc<TraceMetrics>,
    /// How many of the dropped spans are logged.
    logged: u64,
}

/// Starts to export.
pub(super) fn start(
    to: &TraceExport,
    metrics: Arc<TraceMetrics>,
) -> Result<(SdkTracer, Export), Error> {
    let resource = resource();
    // Headers for the collector come from OpenTelemetry's variables.
    let mut exporter = OtlpExporter::builder().with_tonic().with_channel(channel(to)?).build()?;
    exporter.set_resource(&resource);
    let (spans, queued) = mpsc::channel(QUEUE_LENGTH);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Queue { spans, metrics: metrics.clone() })
        // What is not to be traced gets no span in the first place.
        .with_sampler(Sampler::AlwaysOn)
        // Those of OpenTelemetry, whatever its variables say: spans are made to fit them.
        .with_max_attributes_per_span(128)
        .with_max_links_per_span(MAX_LINKS)
        .with_resource(resource)
        .build();
    let scope = InstrumentationScope::builder("trunkline").with_version(env!("CARGO_PKG_VERSION"));
    let tracer = provider.tracer_with_scope(scope.build());
    let stopping = CancellationToken::new();
    let sender = Sender { exporter, spans: queued, metrics, logged: 0 };
    let task = tokio::spawn(sender.run(stopping.clone()));
    Ok((tracer, Export { stopping, task: Mutex::new(Some(task)) }))
}

/// A connection to the collector, which is opened when there is something to send.
fn channel(to: &TraceExport) -> Result<Channel, Error> {
    let TraceExport { endpoint: url, authorities, .. } = to;
    let is_encrypted = check_url(url)?;
    let endpoint = Endpoint::from_shared(url.clone()).map_err(|_| Error::Endpoint)?;
    let endpoint = endpoint
        .connect_timeout(EXPORT_TIMEOUT)
        .timeout(EXPORT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let endpoint = match (is_encrypted, authorities) {
        (false, None) => endpoint,
        (false, Some(_)) => return Err(Error::NotEncrypted),
        (true, None) => endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?,
        (true, Some(pem)) => {
            let authority = Certificate::from_pem(pem);
            endpoint.tls_config(ClientTlsConfig::new().ca_certificate(authority))?
        }
    };
    Ok(endpoint.connect_lazy())
}

/// Checks the URL of a collector. Returns whether the connection is encrypted.
fn check_url(url: &str) -> Result<bool, Error> {
    let uri: Uri = url.parse().map_err(|_| Error::Endpoint)?;
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    let names_a_host = has_host && uri.port_u16().is_some_and(|port| port > 0) && !has_user;
    let is_bare = uri.path_and_query().is_none_or(|rest| rest.as_str() == "/");
    match uri.scheme_str() {
        Some("http") if names_a_host && is_bare => Ok(false),
        Some("https") if names_a_host && is_bare => Ok(true),
        _ => Err(Error::Endpoint),
    }
}

/// What the spans are of. OpenTelemetry's variables come before the defaults here.
fn resource() -> Resource {
    let given = Resource::builder().build();
    let lacks = |name: &'static str| {
        let value = given.get(&Key::new(name));
        // The SDK has a placeholder for the name of a service.
        value.is_none_or(|value| value.as_str().starts_with("unknown_service"))
    };
    let name = env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let defaults = [
        ("service.name", "trunkline".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", uuid::Uuid::new_v4().to_string()),
    ];
    let defaults = defaults.into_iter().filter(|(name, _)| lacks(name));
    let defaults = defaults.map(|(name, value)| KeyValue::new(name, value));
    let resource = Resource::builder().with_attributes(defaults);
    // It comes before a name among the attributes.
    let name = name.map(|name| KeyValue::new("service.name", name));
    resource.with_attributes(name).build()
}

impl Export {
    /// Sends what has ended, and stops.
    pub(super) async fn finish(&self) {
        self.stopping.cancel();
        let Some(mut task) = self.task.lock().take() else { return };
        if timeout(LAST_EXPORT_TIMEOUT, &mut task).await.is_err() {
            task.abort();
            tracing::warn!(limit = ?LAST_EXPORT_TIMEOUT, "leave spans behind");
        }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.metrics.count_dropped();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Sender {
    async fn run(mut self, stopping: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let gathering = stopping.run_until_cancelled(self.gather(&mut batch));
            match gathering.await {
                Some(true) => self.send(mem::take(&mut batch)).await,
                Some(false) => return,
                None => break,
            }
        }
        // What ends from now on is dropped.
        self.spans.close();
        while !batch.is_empty() || self.spans.recv_many(&mut batch, MOST_AT_A_TIME).await > 0 {
            self.send(mem::take(&mut batch)).await;
        }
    }

    /// Waits for spans, and for a while for more of them. Returns false if there will be none.
    async fn gather(&mut self, batch: &mut Vec<SpanData>) -> bool {
        if self.spans.recv_many(batch, MOST_AT_A_TIME).await == 0 {
            return false;
        }
        let more = async {
            while batch.len() < MOST_AT_A_TIME
                && self.spans.recv_many(batch, MOST_AT_A_TIME - batch.len()).await > 0
            {}
        };
        // What was received stays in the batch.
        let _ = timeout(INTERVAL, more).await;
        true
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len();
        match timeout(EXPORT_TIMEOUT, self.exporter.export(batch)).await {
            Ok(Ok(())) => self.metrics.count_exported(spans),
            Ok(Err(error)) => self.fail(spans, &error.to_string()),
            Err(_) => self.fail(spans, &format!("no answer in {EXPORT_TIMEOUT:?}")),
        }
        let dropped = self.metrics.dropped();
        if dropped > self.logged {
            tracing::warn!(spans = dropped - self.logged, "drop spans");
            self.logged = dropped;
        }
    }

    fn fail(&self, spans: usize, error: &str) {
        self.metrics.count_failed(spans);
        tracing::warn!(error, spans, "export spans");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_by_a_url_with_a_host_and_a_port() {
        assert!(!check_url("http://127.0.0.1:4317").unwrap());
        assert!(check_url("https://collector.example:4317/").unwrap());
        for wrong in [
            "",
            "localhost:4317",
            "127.0.0.1:4317",
            "grpc://a:1",
            "http://",
            "http://a",
            "http://a:1/path",
            "http://a:1/?b",
            "http://a:0",
            "http://user:secret@a:1",
            "/x",
            "a b",
        ] {
            let error = check_url(wrong).unwrap_err().to_string();
            assert!(error.contains("must be a URL with a host and a port"), "{error}");
        }
    }
}
