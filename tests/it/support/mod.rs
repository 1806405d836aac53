//! What the tests share: brokers, databases, commands, streams, deadlines.

mod authority;
mod broker;
pub mod certificates;
mod cluster;
pub mod collector;
mod command;
mod deaf;
pub mod direct_tls;
mod files;
mod follower;
pub mod http;
#[path = "../../shared/http2.rs"]
pub mod http2;
pub mod library_consumer;
pub mod logs;
mod markdown;
pub mod one_writer;
pub mod orders;
#[path = "../../shared/pgbouncer.rs"]
mod pgbouncer;
mod pooler;
mod publish_stream;
mod raw;
mod raw_http2;
mod scripted;
pub mod secured;
pub mod sequenced;
mod shipper;
pub mod shop;
mod status;
mod stream;
pub mod tls_postgres;
pub mod traced;
pub mod worker;

use std::time::Duration;

pub use authority::{Authority, TlsFolder};
pub use broker::{PRODUCER, TestBroker, message};
pub use cluster::{LIMITS, TestDatabase, connect, start_server};
pub use command::{Finished, Trunkline};
pub use deaf::DeafProxy;
pub use files::files_below;
pub use markdown::{Block, Document, root};
pub use pooler::Pooler;
pub use publish_stream::PublishStream;
pub use raw::{RawClient, frames, read};
pub use raw_http2::RawHttp2;
pub use scripted::{ScriptedBroker, ScriptedConsume};
pub use shipper::Shipper;
pub use status::{assert_field, assert_refused, info, retry_delay};
pub use stream::{TestStream, payload};

/// How long a test waits for anything that must happen.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for a future until the deadline.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// Polls a condition until it holds, for what sends no signal, such as a view of the database.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    soon(what, async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if condition().await {
                return;
            }
        }
    })
    .await;
}
