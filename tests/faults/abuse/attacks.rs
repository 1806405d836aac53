//! What hostile clients do. Each attack lasts until it is told to stop, and reconnects whenever the
//! broker ends its connections.

use std::time::Duration;

use futures_util::future::BoxFuture;
use prost::Message as _;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_util::sync::CancellationToken;
use trunkline::proto;

use super::{
    http2::{CONTINUATION, DATA, HEADERS, PING, SETTINGS, WINDOW_UPDATE, header_block, prefix},
    wire::Wire,
};

const PUBLISH: &str = "trunkline.v1.ProducerService/Publish";
const CONSUME: &str = "trunkline.v1.ConsumerService/Consume";
const READ: &str = "trunkline.v1.TopicService/ReadMessages";
const LIST_TOPICS: &str = "trunkline.v1.TopicService/ListTopics";

/// How many connections an attack uses, unless it is about their number.
const CONNECTIONS: usize = 8;

/// How many calls or frames go into one write.
const AT_ONCE: usize = 64;

/// Whom to attack, and with what.
#[derive(Clone)]
pub struct Target {
    pub port: u16,
    /// The header of a valid token of a principal that may use one topic.
    pub authorization: String,
    pub topic: String,
    pub stop: CancellationToken,
}

pub type Attack = fn(Target) -> BoxFuture<'static, ()>;

pub const ATTACKS: &[(&str, Attack)] = &[
    ("frames that are too large", |target| Box::pin(too_large_frames(target))),
    ("messages of 4 GiB", |target| Box::pin(messages_of_4_gib(target))),
    ("a flood of PING", |target| Box::pin(pings(target))),
    ("a flood of SETTINGS", |target| Box::pin(settings(target))),
    ("a flood of empty DATA frames", |target| Box::pin(empty_data(target))),
    ("a flood of WINDOW_UPDATE", |target| Box::pin(window_updates(target))),
    ("a flood of cancelled calls", |target| Box::pin(resets(target))),
    ("headers that never end", |target| Box::pin(endless_headers(target))),
    ("headers that come byte by byte", |target| Box::pin(slow_headers(target))),
    ("answers that are never read", |target| Box::pin(zero_windows(target))),
    ("streams that are never read", |target| Box::pin(endless_streams(target))),
    ("connections that say nothing", |target| Box::pin(silent_connections(target))),
    ("calls without a token", |target| Box::pin(no_token(target))),
    ("calls with an unknown token", |target| Box::pin(unknown_token(target))),
    ("compressed requests", |target| Box::pin(compressed(target))),
    ("requests that are half sent", |target| Box::pin(half_sent(target))),
    ("calls whose request never comes", |target| Box::pin(no_request(target))),
    ("requests of many empty messages", |target| Box::pin(empty_messages(target))),
];

/// Runs something on several connections until the attack stops. It ends when its connection does,
/// and begins again.
async fn on_connections<F, Fut>(
    target: Target,
    connections: usize,
    settings: &'static [(u16, u32)],
    act: F,
) where
    F: Fn(Wire, Target) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let mut attackers = JoinSet::new();
    for _ in 0..connections {
        let (target, act) = (target.clone(), act.clone());
        attackers.spawn(async move {
            let stop = target.stop.clone();
            let attacking = async {
                loop {
                    match Wire::connect(target.port, settings).await {
                        Some(wire) => act(wire, target.clone()).await,
                        None => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
            };
            stop.run_until_cancelled(attacking).await;
        });
    }
    while attackers.join_next().await.is_some() {}
}

/// Sends the same again and again, as fast as the broker takes it.
async fn flood(mut wire: Wire, mut queue: impl FnMut(&mut Wire)) {
    loop {
        for _ in 0..AT_ONCE {
            queue(&mut wire);
        }
        if !wire.flush().await {
            return;
        }
    }
}

async fn too_large_frames(target: Target) {
    on_connections(target, CONNECTIONS, &[], |wire, _| {
        flood(wire, |wire| wire.frame_head(0xff_ffff, DATA, 0, 1))
    })
    .await;
}

async fn messages_of_4_gib(target: Target) {
    on_connections(target, CONNECTIONS, &[], |mut wire, target| async move {
        let headers = [("authorization", target.authorization.as_str())];
        for _ in 0..AT_ONCE {
            let stream = wire.begin(PUBLISH, &headers);
            wire.frame(DATA, 0, stream, &prefix(0, u32::MAX));
            wire.frame(DATA, 0, stream, &[0; 16_384]);
            if !wire.flush().await {
                return;
            }
        }
        // Stays, for the broker to end it.
        while wire.flush().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn pings(target: Target) {
    on_connections(target, CONNECTIONS, &[], |wire, _| {
        flood(wire, |wire| wire.frame(PING, 0, 0, &[7; 8]))
    })
    .await;
}

async fn settings(target: Target) {
    on_connections(target, CONNECTIONS, &[], |wire, _| {
        flood(wire, |wire| wire.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]))
    })
    .await;
}

async fn empty_data(target: Target) {
    on_connections(target, CONNECTIONS, &[], |mut wire, target| {
        let headers = [("authorization", target.authorization.as_str())];
        let stream = wire.begin(PUBLISH, &headers);
        flood(wire, move |wire| wire.frame(DATA, 0, stream, &[]))
    })
    .await;
}

async fn window_updates(target: Target) {
    on_connections(target, CONNECTIONS, &[], |wire, _| {
        flood(wire, |wire| wire.frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))
    })
    .await;
}

async fn resets(target: Target) {
    on_connections(target, CONNECTIONS, &[], |wire, target| {
        flood(wire, move |wire| {
            let headers = [("authorization", target.authorization.as_str())];
            wire.cancelled_call(PUBLISH, &headers);
        })
    })
    .await;
}

async fn endless_headers(target: Target) {
    on_connections(target, CONNECTIONS, &[], |mut wire, _| {
        let block = header_block(PUBLISH, &[]);
        let stream = wire.new_stream();
        wire.frame(HEADERS, 0, stream, &block);
        let mut number = 0_u32;
        flood(wire, move |wire| {
            number += 1;
            let mut more = vec![0, 10];
            more.extend(format!("x-{number:08}").bytes());
            more.push(100);
            more.extend([b'v'; 100]);
            wire.frame(CONTINUATION, 0, stream, &more);
        })
    })
    .await;
}

async fn slow_headers(target: Target) {
    on_connections(target, 200, &[], |mut wire, target| async move {
        let headers = [("authorization", target.authorization.as_str())];
        let block = header_block(PUBLISH, &headers);
        let stream = wire.new_stream();
        wire.frame(HEADERS, 0, stream, &[]);
        for byte in block {
            wire.frame(CONTINUATION, 0, stream, &[byte]);
            if !wire.flush().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

async fn zero_windows(target: Target) {
    // SETTINGS_INITIAL_WINDOW_SIZE is 0.
    on_connections(target, CONNECTIONS, &[(4, 0)], |mut wire, target| async move {
        let headers = [("authorization", target.authorization.as_str())];
        let request = proto::ReadMessagesRequest {
            topic: target.topic.clone(),
            max_messages: 10_000,
            ..Default::default()
        };
        let request = request.encode_to_vec();
        loop {
            for _ in 0..AT_ONCE {
                wire.call(READ, &headers, &request);
            }
            if !wire.flush().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn endless_streams(target: Target) {
    on_connections(target, CONNECTIONS, &[(4, 0)], |mut wire, target| async move {
        let headers = [("authorization", target.authorization.as_str())];
        let request = proto::ConsumeRequest {
            topic: target.topic.clone(),
            consumer_id: "hostile".to_owned(),
            ..Default::default()
        };
        let request = request.encode_to_vec();
        loop {
            wire.call(CONSUME, &headers, &request);
            if !wire.flush().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Opens as many connections as this process may, up to 10,000.
async fn silent_connections(target: Target) {
    let stop = target.stop.clone();
    let mut open = Vec::new();
    let opening = async {
        loop {
            match TcpStream::connect(("127.0.0.1", target.port)).await {
                Ok(connection) if open.len() < 10_000 => open.push(connection),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    stop.run_until_cancelled(opening).await;
}

async fn no_token(target: Target) {
    on_connections(target, CONNECTIONS, &[], |wire, _| {
        flood(wire, |wire| {
            wire.call(LIST_TOPICS, &[], &[]);
        })
    })
    .await;
}

async fn unknown_token(target: Target) {
    on_connections(target, CONNECTIONS, &[], |wire, _| {
        let token = format!("Bearer tlk_abcdefghijkl_{}", "A".repeat(43));
        flood(wire, move |wire| {
            wire.call(LIST_TOPICS, &[("authorization", &token)], &[]);
        })
    })
    .await;
}

async fn compressed(target: Target) {
    on_connections(target, CONNECTIONS, &[], |wire, target| {
        flood(wire, move |wire| {
            let headers =
                [("authorization", target.authorization.as_str()), ("grpc-encoding", "gzip")];
            let stream = wire.begin(PUBLISH, &headers);
            let mut data = prefix(1, 1_024).to_vec();
            data.extend([0x1f; 1_024]);
            wire.frame(DATA, 1, stream, &data);
        })
    })
    .await;
}

async fn half_sent(target: Target) {
    on_connections(target, 4 * CONNECTIONS, &[], |mut wire, target| async move {
        let headers = [("authorization", target.authorization.as_str())];
        for _ in 0..12 {
            let stream = wire.begin(PUBLISH, &headers);
            wire.frame(DATA, 0, stream, &prefix(0, 15 * 1024 * 1024));
            for _ in 0..64 {
                wire.frame(DATA, 0, stream, &[0; 16_000]);
            }
            if !wire.flush().await {
                return;
            }
        }
        while wire.flush().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn no_request(target: Target) {
    on_connections(target, CONNECTIONS, &[], |mut wire, target| async move {
        let headers = [("authorization", target.authorization.as_str())];
        for number in 0..2_000 {
            let (method, headers) = match number % 2 {
                0 => (PUBLISH, &headers[..]),
                _ => (LIST_TOPICS, &[][..]),
            };
            wire.begin(method, headers);
        }
        while wire.flush().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn empty_messages(target: Target) {
    on_connections(target, CONNECTIONS, &[], |mut wire, target| async move {
        let headers = [("authorization", target.authorization.as_str())];
        // The field `messages`, whose entries are empty.
        let request = [0x1a, 0].repeat(400_000);
        loop {
            wire.call(PUBLISH, &headers, &request);
            if !wire.flush().await {
                return;
            }
        }
    })
    .await;
}
