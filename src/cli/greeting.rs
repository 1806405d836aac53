//! Checks that the server at an endpoint is a broker.

mod tls;

use std::time::Duration;

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::failure::Failure;
use crate::client::{Client, is_broken_connection};

const DEADLINE: Duration = Duration::from_secs(5);

/// Checks that the server at an endpoint is a broker. Without this, another server could answer the
/// first call with a meaningless error, or never.
pub(super) async fn greet(client: &Client, endpoint: &str) -> Result<(), Failure> {
    let service = "trunkline.v1.TopicService".to_owned();
    let mut health = HealthClient::new(client.connection());
    let answer = tokio::time::timeout(DEADLINE, health.check(HealthCheckRequest { service })).await;
    let problem = match answer {
        Ok(Err(status)) => match status.code() {
            _ if is_broken_connection(&status) && tls::is_expected_at_any(endpoint).await => {
                "that port expects TLS: begin the endpoint with https://"
            }
            Code::NotFound | Code::Unimplemented => "the server there is not a Trunkline broker",
            _ if is_broken_connection(&status) => {
                "the server there does not speak gRPC, or has closed the connection"
            }
            // A broker with a problem, which the call itself will report.
            _ => return Ok(()),
        },
        Ok(Ok(_)) => return Ok(()),
        Err(_) => "the server there does not answer",
    };
    Err(Failure::unavailable(format!(
        "talk to {endpoint}: {problem}; --endpoint selects another broker"
    )))
}
