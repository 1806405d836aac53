//! `trunkline health`: for people, and for a container's health check.

use std::{io::Write as _, time::Duration};

use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use super::failure::Failure;
use crate::client::Client;

/// A broker that takes longer to answer is not healthy.
const DEADLINE: Duration = Duration::from_secs(5);

pub(super) async fn check(endpoint: &str) -> Result<(), Failure> {
    match tokio::time::timeout(DEADLINE, ask(endpoint)).await {
        Ok(answer) => {
            let serving = answer?;
            writeln!(std::io::stdout(), "{}", serving.as_str_name())?;
            match serving {
                ServingStatus::Serving => Ok(()),
                _ => Err(Failure::refused("the broker does not serve; its log tells why")),
            }
        }
        Err(_) => Err(Failure::unavailable(format!("no answer from {endpoint} in {DEADLINE:?}"))),
    }
}

async fn ask(endpoint: &str) -> Result<ServingStatus, Failure> {
    let client = Client::connect(endpoint).await?;
    let answer = client.health().check(HealthCheckRequest::default()).await?;
    Ok(answer.into_inner().status())
}
