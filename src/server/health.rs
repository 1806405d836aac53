//! Health that follows the database: serving only while it answers.

use std::convert::Infallible;

use tokio::sync::watch;
use tonic::server::NamedService;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthService, HealthServer},
    server::HealthReporter,
};

use crate::grpc;

pub(super) struct Health(HealthReporter);

/// A part of the server that it can do without, for a while or for good: not to be heard here means
/// that what other brokers store is found by polling.
pub(crate) const WAKE_UPS: &str = "wake-ups";

/// The server as a whole, and each of its services.
fn names() -> [&'static str; 4] {
    fn name<S: NamedService>(_: fn(&grpc::Services) -> S) -> &'static str {
        S::NAME
    }
    [
        "",
        name(grpc::Services::topics),
        name(grpc::Services::producers),
        name(grpc::Services::consumers),
    ]
}

impl Health {
    /// Health that says serving: a broker is only started once the database answered.
    pub(super) async fn new() -> (Self, HealthServer<impl HealthService>) {
        let (reporter, service) = tonic_health::server::health_reporter();
        let health = Self(reporter);
        health.say(ServingStatus::Serving).await;
        (health, service)
    }

    /// Says whether the database answers, and whether other brokers are heard.
    pub(super) async fn follow(
        &self,
        mut database_up: watch::Receiver<bool>,
        mut hears_others: watch::Receiver<bool>,
    ) -> Infallible {
        let mut told = None;
        loop {
            let now = (*database_up.borrow_and_update(), *hears_others.borrow_and_update());
            // Told by what differs: of two that change at once one alone ends the wait.
            if let Some((database_up, hears_others)) = told.replace(now) {
                if database_up != now.0 {
                    tracing::info!(database_up = now.0, "health changed");
                }
                if hears_others != now.1 {
                    tracing::info!(hears_others = now.1, "health changed");
                }
            }
            self.say(status(now.0)).await;
            self.0.set_service_status(WAKE_UPS, status(now.1)).await;
            tokio::select! {
                Ok(()) = database_up.changed() => {}
                Ok(()) = hears_others.changed() => {}
                // The broker has stopped.
                else => std::future::pending().await,
            }
        }
    }

    pub(super) async fn draining(&self) {
        self.say(ServingStatus::NotServing).await;
    }

    /// Ends the calls that watch the health; they have been told the last state.
    pub(super) async fn end_watches(&self) {
        for name in names().into_iter().chain([WAKE_UPS]) {
            let mut reporter = self.0.clone();
            reporter.clear_service_status(name).await;
        }
    }

    async fn say(&self, status: ServingStatus) {
        for name in names() {
            self.0.set_service_status(name, status).await;
        }
    }
}

fn status(well: bool) -> ServingStatus {
    if well { ServingStatus::Serving } else { ServingStatus::NotServing }
}
