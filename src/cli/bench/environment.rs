//! What all kinds of runs use.

use std::sync::Arc;

use super::{
    super::failure::Failure,
    arguments::LoadArgs,
    live::LiveDisplay,
    meter::Meters,
    topics::{BenchTopics, RegisteredId},
};
use crate::{client::Client, proto::LogEdge};

pub(super) struct Environment<'a> {
    pub(super) client: &'a Client,
    pub(super) topics: &'a BenchTopics,
    pub(super) load: &'a LoadArgs,
    pub(super) meters: &'a Meters,
    pub(super) live: &'a Arc<LiveDisplay>,
}

impl Environment<'_> {
    /// Registers `count` producers, spread over the topics.
    pub(super) async fn producers(
        &self,
        name: &str,
        count: u32,
    ) -> Result<Vec<RegisteredId>, Failure> {
        self.topics.producers(self.client, name, count).await
    }

    /// Registers `count` consumers, spread over the topics.
    pub(super) async fn consumers(
        &self,
        start: LogEdge,
        count: u32,
    ) -> Result<Vec<RegisteredId>, Failure> {
        self.topics.consumers(self.client, start, count).await
    }
}
