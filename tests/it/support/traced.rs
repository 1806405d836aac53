//! A broker whose traces a collector receives.

use std::sync::Arc;

use opentelemetry_proto::tonic::trace::v1::{Span, span::Link};
use trunkline::client::Client;

use super::{
    RawClient, TestDatabase, Trunkline,
    collector::{Collector, attribute},
    soon,
};

pub const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub const PARENT: &str = "00f067aa0ba902b7";

/// A broker that exports its traces, in a process of its own.
pub struct TracedBroker {
    pub database: Arc<TestDatabase>,
    pub collector: Collector,
    pub process: Trunkline,
    pub endpoint: String,
    pub client: Client,
}

impl TracedBroker {
    pub async fn start(flags: &[&str]) -> Self {
        let database = Arc::new(TestDatabase::create().await);
        let collector = Collector::start().await;
        let start = ["--listen", "127.0.0.1:0", "--database-url", &database.url];
        let (process, endpoint) =
            Trunkline::serve_traced(&collector, &[&start, flags].concat()).await;
        let client = Client::connect(&endpoint).await.unwrap();
        Self { database, collector, process, endpoint, client }
    }

    /// Makes a call whose client traces it, or says that it does not. Returns the trace.
    pub async fn call(&self, number: u8, flags: &str, method: &str, body: &[u8]) -> Vec<u8> {
        let client = RawClient::connect(&self.endpoint).await;
        let trace = format!("{}{number:02x}", &TRACE[..30]);
        let headers = [("traceparent", format!("00-{trace}-{PARENT}-{flags}"))];
        soon(method, client.call(method, &headers, &[body])).await;
        bytes(&trace)
    }
}

pub fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Whether a span links to another.
pub fn links_to(span: &Span, other: &Span) -> bool {
    let is_it = |link: &Link| (&link.trace_id, &link.span_id) == (&other.trace_id, &other.span_id);
    span.links.iter().any(is_it)
}

pub fn name_of(span: &Span, name: &str) -> String {
    attribute(&span.attributes, name).unwrap_or_else(|| panic!("{name}: {span:?}"))
}
