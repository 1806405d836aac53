//! The gRPC health service: the broker is serving while its database answers.

use std::convert::Infallible;

use tokio::sync::watch;
use tonic::server::NamedService;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthService, HealthServer},
    server::HealthReporter,
};

use crate::grpc;

/// Reports the broker's health.
pub(super) struct Health(HealthReporter);

/// A service name for something that the broker can do without: while it is not serving, this broker
/// hears no notifications, and finds what other brokers store by polling.
pub(crate) const WAKE_UPS: &str = "wake-ups";

/// The server as a whole, which is the empty name, and each of its services.
fn names() -> [&'static str; 7] {
    fn name<S: NamedService>(_: fn(&grpc::Services) -> S) -> &'static str {
        S::NAME
    }
    [
        "",
        name(grpc::Services::topics),
        name(grpc::Services::producers),
        name(grpc::Services::consumers),
        name(grpc::Services::subscriptions),
        name(grpc::Services::access),
        name(grpc::Services::overview),
    ]
}

impl Health {
    /// Starts as serving, because a broker starts only once the database has answered.
    pub(super) async fn new() -> (Self, HealthServer<impl HealthService>) {
        let (reporter, service) = tonic_health::server::health_reporter();
        let health = Self(reporter);
        health.set(ServingStatus::Serving).await;
        (health, service)
    }

    /// Keeps reporting whether the database answers, and whether notifications are heard.
    pub(super) async fn follow(
        &self,
        mut database_up: watch::Receiver<bool>,
        mut hears_others: watch::Receiver<bool>,
    ) -> Infallible {
        let mut previous = None;
        loop {
            let now = (*database_up.borrow_and_update(), *hears_others.borrow_and_update());
            // Compared with the previous values, because only one of two concurrent changes ends the
            // wait below.
            if let Some((database_up, hears_others)) = previous.replace(now) {
                if database_up != now.0 {
                    tracing::info!(database_up = now.0, "database health changed");
                }
                if hears_others != now.1 {
                    tracing::info!(hears_others = now.1, "wake-up health changed");
                }
            }
            self.set(status(now.0)).await;
            self.0.set_service_status(WAKE_UPS, status(now.1)).await;
            tokio::select! {
                Ok(()) = database_up.changed() => {}
                Ok(()) = hears_others.changed() => {}
                // The broker has stopped.
                else => std::future::pending().await,
            }
        }
    }

    /// Reports that the broker is not serving any more.
    pub(super) async fn drain(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Ends the calls that watch the health. They have been sent the last status.
    pub(super) async fn end_watches(&self) {
        for name in names().into_iter().chain([WAKE_UPS]) {
            let mut reporter = self.0.clone();
            reporter.clear_service_status(name).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for name in names() {
            self.0.set_service_status(name, status).await;
        }
    }
}

fn status(serving: bool) -> ServingStatus {
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}
