//! Sends spans to a collector by OTLP over gRPC.

use std::{env, time::Duration};

use opentelemetry::{InstrumentationScope, KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter as OtlpExporter, WithExportConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::metrics::TraceMetrics;

/// How long the collector may take to accept spans.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last export may take, as a stop waits for it.
pub(super) const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// The URL of the collector is not one.
    #[error("{0:?} must be a URL such as http://127.0.0.1:4317")]
    Endpoint(String),
    /// The exporter cannot be set up as asked, or as its environment variables ask.
    #[error("{0}")]
    Exporter(#[from] ExporterBuildError),
}

/// Starts to export. Headers for the collector come from the variables of OpenTelemetry.
pub(super) fn start(
    export: &TraceExport,
    metrics: TraceMetrics,
) -> Result<(SdkTracerProvider, SdkTracer), Error> {
    let TraceExport { endpoint, authorities, .. } = export;
    let is_encrypted = check_endpoint(endpoint)?;
    let mut exporter =
        OtlpExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT);
    if is_encrypted {
        let tls = match authorities {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        exporter = exporter.with_tls_config(tls);
    }
    let exporter = CountedExporter { exporter: exporter.build()?, metrics };
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        // What is not to be traced gets no span in the first place.
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource())
        .build();
    let scope = InstrumentationScope::builder("trunkline").with_version(env!("CARGO_PKG_VERSION"));
    let tracer = provider.tracer_with_scope(scope.build());
    Ok((provider, tracer))
}

/// Checks the URL of a collector. Returns whether the connection is encrypted.
fn check_endpoint(endpoint: &str) -> Result<bool, Error> {
    let refused = || Error::Endpoint(endpoint.to_owned());
    let uri: tonic::codegen::http::Uri = endpoint.parse().map_err(|_| refused())?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some() => Ok(false),
        Some("https") if uri.host().is_some() => Ok(true),
        _ => Err(refused()),
    }
}

/// What the spans are of. OpenTelemetry's variables come before the defaults here.
fn resource() -> Resource {
    let attributes = env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_given = |name: &str| attributes.contains(&format!("{name}="));
    let mut resource = Resource::builder();
    if !is_given("service.name") && env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("trunkline");
    }
    if !is_given("service.version") {
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        resource = resource.with_attribute(version);
    }
    if !is_given("service.instance.id") {
        let id = uuid::Uuid::new_v4().to_string();
        resource = resource.with_attribute(KeyValue::new("service.instance.id", id));
    }
    resource.build()
}

/// An exporter that counts what it sends, and logs what it cannot send.
#[derive(Debug)]
struct CountedExporter {
    exporter: OtlpExporter,
    metrics: TraceMetrics,
}

impl SpanExporter for CountedExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        match &exported {
            Ok(()) => self.metrics.count_exported(spans),
            Err(error) => {
                self.metrics.count_failed(spans);
                tracing::warn!(%error, spans, "export spans");
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_with_a_host() {
        assert!(!check_endpoint("http://127.0.0.1:4317").unwrap());
        assert!(check_endpoint("https://collector.example:4317").unwrap());
        for wrong in ["", "localhost:4317", "127.0.0.1:4317", "grpc://a:1", "http://", "/x", "a b"]
        {
            let error = check_endpoint(wrong).unwrap_err().to_string();
            assert!(error.contains("must be a URL such as"), "{error}");
        }
    }
}
