//! An OpenTelemetry collector in the test's process, and a program that sends it traces.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    resource::v1::Resource,
    trace::v1::Span,
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::{net::TcpListener, process::Command, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Request, Response, Status,
    transport::{Server, ServerTlsConfig},
};

use super::{Trunkline, authority::Identity, soon};

/// A collector.
pub struct Collector {
    pub endpoint: String,
    received: watch::Receiver<Vec<(Resource, Span)>>,
    authorizations: Arc<Mutex<BTreeSet<String>>>,
    _serving: AbortOnDropHandle<()>,
}

struct Receiver {
    spans: watch::Sender<Vec<(Resource, Span)>>,
    authorizations: Arc<Mutex<BTreeSet<String>>>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        self.authorizations.lock().unwrap().extend(authorization);
        self.spans.send_modify(|received| {
            for of_resource in request.into_inner().resource_spans {
                let resource = of_resource.resource.unwrap_or_default();
                for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    received.push((resource.clone(), span));
                }
            }
        });
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub async fn start() -> Self {
        Self::serve(Server::builder(), "http").await
    }

    /// Starts one that speaks TLS.
    pub async fn start_encrypted(identity: &Identity) -> Self {
        let identity = tonic::transport::Identity::from_pem(&identity.certificate, &identity.key);
        let tls = ServerTlsConfig::new().identity(identity);
        Self::serve(Server::builder().tls_config(tls).unwrap(), "https").await
    }

    async fn serve(mut server: Server, scheme: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (spans, received) = watch::channel(Vec::new());
        let authorizations = Arc::<Mutex<BTreeSet<String>>>::default();
        let receiver = Receiver { spans, authorizations: authorizations.clone() };
        let serving = server
            .add_service(TraceServiceServer::new(receiver))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let serving = tokio::spawn(async { serving.await.unwrap() });
        let serving = AbortOnDropHandle::new(serving);
        Self { endpoint, received, authorizations, _serving: serving }
    }

    /// What came as the header `authorization`, each once.
    pub fn authorizations(&self) -> Vec<String> {
        self.authorizations.lock().unwrap().iter().cloned().collect()
    }

    /// Waits for a span.
    pub async fn span(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        let mut received = self.received.clone();
        let find = |received: &Vec<(Resource, Span)>| received.iter().any(|(_, span)| is_it(span));
        let found = soon(what, received.wait_for(find)).await.unwrap();
        found.iter().find(|(_, span)| is_it(span)).unwrap().1.clone()
    }

    /// Waits for a span of a name in a trace.
    pub async fn named(&self, name: &str, trace: &[u8]) -> Span {
        self.span(name, |span| span.name == name && span.trace_id == trace).await
    }

    /// The spans that have come.
    pub fn spans(&self) -> Vec<Span> {
        self.received.borrow().iter().map(|(_, span)| span.clone()).collect()
    }

    /// What the spans that have come are of.
    pub fn resources(&self) -> Vec<Resource> {
        self.received.borrow().iter().map(|(resource, _)| resource.clone()).collect()
    }
}

/// An attribute of a span or a resource, as text.
pub fn attribute(
    attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue],
    name: &str,
) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// A program that traces, which is this one: OpenTelemetry has one provider for a whole process.
pub struct TracedProgram {
    provider: SdkTracerProvider,
    pub tracer: SdkTracer,
}

/// Held by the test whose program it is.
static PROGRAM: LazyLock<Arc<tokio::sync::Mutex<()>>> = LazyLock::new(Arc::default);

impl TracedProgram {
    /// Traces, and sends everything to a collector.
    pub async fn start(collector: &Collector) -> (Self, tokio::sync::OwnedMutexGuard<()>) {
        let alone = PROGRAM.clone().lock_owned().await;
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&collector.endpoint)
            .with_timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
        global::set_tracer_provider(provider.clone());
        let tracer = provider.tracer("the program");
        (Self { provider, tracer }, alone)
    }

    /// Sends the spans that have ended.
    pub async fn flush(&self) {
        let provider = self.provider.clone();
        tokio::task::spawn_blocking(move || provider.force_flush()).await.unwrap().unwrap();
    }
}

impl Trunkline {
    /// Starts a broker that exports its traces.
    pub async fn serve_traced(collector: &Collector, arguments: &[&str]) -> (Self, String) {
        let start = ["serve", "--log", "info", "--otlp-endpoint", &collector.endpoint];
        let command = Self::command(&[&start, arguments].concat());
        Self::serve_command(command).await
    }

    /// Starts a prepared broker; returns it with its endpoint once it is ready.
    pub async fn serve_command(command: Command) -> (Self, String) {
        Self::spawn_command(command).ready().await
    }
}
