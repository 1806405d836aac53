//! Finds out whether a server that closed a plaintext connection expects TLS.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::codegen::http::uri::Scheme;

use crate::client::complete;

const DEADLINE: Duration = Duration::from_secs(2);

/// How a client of HTTP/2 begins, and an empty frame of settings.
const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// How every alert of TLS begins. A server sends one to a client that does not speak TLS.
const ALERT: [u8; 2] = [0x15, 0x03];

/// Whether one of the endpoints without TLS, separated by commas, leads to a server that expects it.
pub(super) async fn is_expected_at_any(endpoints: &str) -> bool {
    for uri in endpoints.split(',').filter_map(|endpoint| complete(endpoint.trim(), Scheme::HTTP)) {
        let Some(authority) = uri.authority().filter(|_| uri.scheme() == Some(&Scheme::HTTP))
        else {
            continue;
        };
        if let Ok(Ok(true)) = timeout(DEADLINE, is_expected_at(authority.as_str())).await {
            return true;
        }
    }
    false
}

async fn is_expected_at(address: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(BEGINNING).await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    Ok(answer == ALERT)
}
