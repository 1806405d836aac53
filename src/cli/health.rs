//! `trunkline health`: for people, and for a container's health check.

use std::{io::Write as _, time::Duration};

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{failure::Failure, greeting::greet};
use crate::{client::Client, server::health::WAKE_UPS};

/// A broker that takes longer to answer is not healthy.
const DEADLINE: Duration = Duration::from_secs(5);

pub(super) async fn check(endpoint: &str) -> Result<(), Failure> {
    match tokio::time::timeout(DEADLINE, ask(endpoint)).await {
        Ok(answer) => {
            let (serving, wake_ups) = answer?;
            let mut out = std::io::stdout();
            writeln!(out, "{}", serving.as_str_name())?;
            if serving == ServingStatus::Serving && wake_ups != ServingStatus::Serving {
                writeln!(out, "polling mode: what other brokers store is found within a second")?;
            }
            match serving {
                ServingStatus::Serving => Ok(()),
                _ => Err(Failure::refused("the broker does not serve; its log tells why")),
            }
        }
        Err(_) => Err(Failure::unavailable(format!("no answer from {endpoint} in {DEADLINE:?}"))),
    }
}

/// How the broker is, and how its wake-ups are.
async fn ask(endpoint: &str) -> Result<(ServingStatus, ServingStatus), Failure> {
    let client = Client::connect(endpoint).await?;
    greet(&client, endpoint).await?;
    let health = HealthClient::new(client.connection());
    let status = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        Ok::<_, Failure>(health.clone().check(request).await?.into_inner().status())
    };
    Ok((status("").await?, status(WAKE_UPS).await?))
}
