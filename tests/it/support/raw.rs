//! Calls without a gRPC library: this side checks, truncates and answers nothing by itself.

use std::net::Ipv4Addr;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::soon;

/// A connection to a broker.
pub struct RawClient {
    requests: SendRequest<Bytes>,
    driver: AbortOnDropHandle<()>,
}

/// An answer as it arrived.
pub struct Answer {
    pub http_status: u16,
    /// The gRPC status; none if HTTP refused the call by itself.
    pub status: Option<Status>,
    pub messages: Vec<Bytes>,
}

impl RawClient {
    pub async fn connect(endpoint: &str) -> Self {
        let address = endpoint.strip_prefix("http://").unwrap();
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    /// Connects from an address of this machine.
    pub async fn connect_from(from: Ipv4Addr, endpoint: &str) -> Self {
        let address = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        Self::over(socket.connect(address).await.unwrap()).await
    }

    /// Connects as a client that lets no part of an answer arrive.
    pub async fn connect_with_shut_windows(endpoint: &str) -> Self {
        let address = endpoint.strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let mut http2 = h2::client::Builder::new();
        Self::over_with(http2.initial_window_size(0), stream).await
    }

    async fn over(stream: TcpStream) -> Self {
        Self::over_with(&h2::client::Builder::new(), stream).await
    }

    async fn over_with(http2: &h2::client::Builder, stream: TcpStream) -> Self {
        let (requests, connection) = http2.handshake(stream).await.unwrap();
        let driver = tokio::spawn(async {
            // Calls report its end.
            let _ = connection.await;
        });
        Self { requests, driver: AbortOnDropHandle::new(driver) }
    }

    /// Whether the connection is still open.
    pub fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }

    /// Starts a call, and sends only its headers.
    pub async fn begin(
        &self,
        method: &str,
        headers: &[(&'static str, String)],
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post(format!("http://broker/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut requests = soon("room for a call", self.requests.clone().ready()).await.unwrap();
        requests.send_request(request.body(()).unwrap(), false).unwrap()
    }

    /// Makes a call with encoded messages.
    pub async fn call(
        &self,
        method: &str,
        headers: &[(&'static str, String)],
        messages: &[&[u8]],
    ) -> Answer {
        let (response, mut body) = self.begin(method, headers).await;
        // Fails if the call was answered already.
        let _ = body.send_data(frames(messages), true);
        read(soon("an answer", response).await.unwrap()).await
    }
}

pub async fn read(response: Response<h2::RecvStream>) -> Answer {
    let http_status = response.status().as_u16();
    let (parts, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(data) = soon("the rest of the answer", body.data()).await {
        let Ok(data) = data else { break };
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    let trailers: Option<HeaderMap> = body.trailers().await.ok().flatten();
    let status = Status::from_header_map(&parts.headers);
    let status = status.or_else(|| Status::from_header_map(&trailers?));
    Answer { http_status, status, messages: messages(bytes.freeze()) }
}

/// Messages with gRPC's framing.
pub fn frames(messages: &[&[u8]]) -> Bytes {
    let mut framed = BytesMut::new();
    for message in messages {
        framed.put_u8(0);
        framed.put_u32(message.len() as u32);
        framed.extend_from_slice(message);
    }
    framed.freeze()
}

fn messages(mut bytes: Bytes) -> Vec<Bytes> {
    let mut found = Vec::new();
    while bytes.len() >= 5 {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        let _ = bytes.split_to(5);
        found.push(bytes.split_to(length));
    }
    found
}
