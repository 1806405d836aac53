//! Whether it is a broker that answers.

use std::time::Duration;

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::failure::Failure;
use crate::client::{Client, is_broken_connection};

const DEADLINE: Duration = Duration::from_secs(5);

/// Asks what answers at an endpoint whether it is a broker: else the first call would end with
/// whatever a stranger says to it, or not at all.
pub(super) async fn greet(client: &Client, endpoint: &str) -> Result<(), Failure> {
    let service = "trunkline.v1.TopicService".to_owned();
    let mut health = HealthClient::new(client.connection());
    let answer = tokio::time::timeout(DEADLINE, health.check(HealthCheckRequest { service })).await;
    let problem = match answer {
        Ok(Err(status)) => match status.code() {
            Code::NotFound | Code::Unimplemented => "what answers there is no Trunkline broker",
            _ if is_broken_connection(&status) => {
                "what listens there does not speak gRPC, or has gone"
            }
            // It is one that is not well, as the call itself will tell.
            _ => return Ok(()),
        },
        Ok(Ok(_)) => return Ok(()),
        Err(_) => "what listens there does not answer",
    };
    Err(Failure::unavailable(format!(
        "talk to {endpoint}: {problem}; --endpoint names another broker"
    )))
}
