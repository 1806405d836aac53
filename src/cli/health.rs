//! `trunkline health`: checks whether a broker is serving, for people and for containers.

use std::{io::Write as _, time::Duration};

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use serde_json::json;

use super::{
    endpoint::Endpoint,
    failure::Failure,
    greeting::greet,
    output::{OutputArgs, OutputFormat, print_json},
};
use crate::server::health::WAKE_UPS;

/// A broker that takes longer than this to answer is unhealthy.
const DEADLINE: Duration = Duration::from_secs(5);

pub(super) async fn check(endpoint: &Endpoint, output: OutputArgs) -> Result<(), Failure> {
    match tokio::time::timeout(DEADLINE, ask(endpoint)).await {
        Ok(health) => {
            let HealthStatus { broker, wake_ups } = health?;
            let mut out = std::io::stdout();
            let is_polling = broker == ServingStatus::Serving && wake_ups != ServingStatus::Serving;
            if output.format == OutputFormat::Json {
                let object = json!({ "status": broker.as_str_name(), "polling": is_polling });
                print_json(&mut out, &object)?;
            } else {
                writeln!(out, "{}", broker.as_str_name())?;
            }
            if is_polling && output.format == OutputFormat::Table {
                writeln!(
                    out,
                    "polling mode: messages stored by other brokers are found within a second"
                )?;
            }
            match broker {
                ServingStatus::Serving => Ok(()),
                _ => Err(Failure::refused("the broker is not serving; its log says why")),
            }
        }
        Err(_) => {
            let url = &endpoint.url;
            Err(Failure::unavailable(format!("no answer from {url} in {DEADLINE:?}")))
        }
    }
}

/// What a broker's health service answers.
struct HealthStatus {
    broker: ServingStatus,
    /// Whether other brokers' notifications arrive.
    wake_ups: ServingStatus,
}

async fn ask(endpoint: &Endpoint) -> Result<HealthStatus, Failure> {
    let client = endpoint.connect().await?;
    greet(&client, &endpoint.url).await?;
    let health = HealthClient::new(client.connection());
    let status = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        Ok::<_, Failure>(health.clone().check(request).await?.into_inner().status())
    };
    Ok(HealthStatus { broker: status("").await?, wake_ups: status(WAKE_UPS).await? })
}
