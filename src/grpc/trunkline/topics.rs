//! `TopicService`: topics, and reads without a consumer.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use tracing::info;

use crate::{
    access::Access,
    broker::Broker,
    grpc::{
        caller, peer,
        status::refuse,
        trunkline::{decode, encode, page_token},
    },
    model::{Limit, TopicName},
    proto::{self, Bounded, raw::topic_service_server::TopicService},
};

/// Names the list in page tokens.
const LIST: &str = "topics";

/// `TopicService` over a broker.
pub struct Topics {
    pub(crate) broker: Arc<Broker>,
    pub(crate) access: Arc<Access>,
}

#[tonic::async_trait]
impl TopicService for Topics {
    async fn create_topic(
        &self,
        request: Request<Bounded<proto::CreateTopicRequest>>,
    ) -> Result<Response<proto::CreateTopicResponse>, Status> {
        let client = peer::of(&request);
        let caller = caller::of(&self.access, &request)?;
        let request = decode::bounded(request.into_inner(), "labels", "entries").map_err(refuse)?;
        let proto::CreateTopicRequest { topic, description, labels, retention } = request;
        let name = decode::topic_name(&topic).map_err(refuse)?;
        let description = decode::description(description).map_err(refuse)?;
        let labels = decode::labels(labels).map_err(refuse)?;
        let retention = decode::retention(retention).map_err(refuse)?;
        self.access.permit_topic(&caller, &name).map_err(refuse)?;
        let creator = self.access.claimant(&caller, Limit::Topics);
        let topic = self
            .broker
            .topics
            .create(name, &description, &labels, &retention, creator.as_ref())
            .await
            .map_err(refuse)?;
        info!(topic = %topic.name, client, "created a topic");
        Ok(Response::new(proto::CreateTopicResponse { topic: Some(encode::topic(topic)) }))
    }

    async fn get_topic(
        &self,
        request: Request<proto::GetTopicRequest>,
    ) -> Result<Response<proto::GetTopicResponse>, Status> {
        let name = decode::topic_name(&request.get_ref().topic).map_err(refuse)?;
        self.permit(&request, &name)?;
        let topic = self.broker.topics.get(&name).await.map_err(refuse)?;
        Ok(Response::new(proto::GetTopicResponse { topic: Some(encode::topic(topic)) }))
    }

    async fn list_topics(
        &self,
        request: Request<proto::ListTopicsRequest>,
    ) -> Result<Response<proto::ListTopicsResponse>, Status> {
        let proto::ListTopicsRequest { page_size, page_token } = request.get_ref();
        let page = page_token::decode(LIST, *page_size, page_token).map_err(refuse)?;
        let filter = self.access.known_topics(&caller::of(&self.access, &request)?);
        let page = self.broker.topics.list(&page, filter.as_ref()).await.map_err(refuse)?;
        let next_page_token = page_token::encode(LIST, &page);
        let topics = page.entries.into_iter().map(encode::topic).collect();
        Ok(Response::new(proto::ListTopicsResponse { topics, next_page_token }))
    }

    async fn update_topic(
        &self,
        request: Request<Bounded<proto::UpdateTopicRequest>>,
    ) -> Result<Response<proto::UpdateTopicResponse>, Status> {
        let client = peer::of(&request);
        let caller = caller::of(&self.access, &request)?;
        let request = decode::bounded(request.into_inner(), "labels", "entries").map_err(refuse)?;
        let name = decode::topic_name(&request.topic).map_err(refuse)?;
        let changes = decode::topic_changes(request).map_err(refuse)?;
        self.access.permit_topic(&caller, &name).map_err(refuse)?;
        let topic = self.broker.topics.update(name, &changes).await.map_err(refuse)?;
        info!(topic = %topic.name, client, "changed a topic");
        Ok(Response::new(proto::UpdateTopicResponse { topic: Some(encode::topic(topic)) }))
    }

    async fn delete_topic(
        &self,
        request: Request<proto::DeleteTopicRequest>,
    ) -> Result<Response<proto::DeleteTopicResponse>, Status> {
        let name = decode::topic_name(&request.get_ref().topic).map_err(refuse)?;
        self.permit(&request, &name)?;
        self.broker.topics.delete(name.clone()).await.map_err(refuse)?;
        self.access.topic_deleted(&name);
        info!(topic = %name, client = peer::of(&request), "deleted a topic");
        Ok(Response::new(proto::DeleteTopicResponse {}))
    }

    async fn trim_topic(
        &self,
        request: Request<proto::TrimTopicRequest>,
    ) -> Result<Response<proto::TrimTopicResponse>, Status> {
        let client = peer::of(&request);
        let caller = caller::of(&self.access, &request)?;
        let proto::TrimTopicRequest { topic, before } = request.into_inner();
        let name = decode::topic_name(&topic).map_err(refuse)?;
        let to = decode::trim_to(before).map_err(refuse)?;
        self.access.permit_topic(&caller, &name).map_err(refuse)?;
        let first_offset = self.broker.topics.trim(name.clone(), to).await.map_err(refuse)?.0;
        info!(topic = %name, first_offset, client, "trimmed a topic");
        Ok(Response::new(proto::TrimTopicResponse { first_offset }))
    }

    async fn read_messages(
        &self,
        request: Request<proto::ReadMessagesRequest>,
    ) -> Result<Response<proto::ReadMessagesResponse>, Status> {
        let caller = caller::of(&self.access, &request)?;
        let proto::ReadMessagesRequest { topic, max_messages, start } = request.into_inner();
        let name = decode::topic_name(&topic).map_err(refuse)?;
        let max_messages = decode::page_of_messages(max_messages).map_err(refuse)?;
        let start = decode::read_start(start).map_err(refuse)?;
        self.access.permit_topic(&caller, &name).map_err(refuse)?;
        let read = self.broker.delivery.read_messages(name, start, max_messages).await;
        Ok(Response::new(encode::read_messages(&read.map_err(refuse)?)))
    }
}

impl Topics {
    /// Refuses a caller without the right on a topic that its call needs.
    fn permit<T>(&self, request: &Request<T>, topic: &TopicName) -> Result<(), Status> {
        let caller = caller::of(&self.access, request)?;
        self.access.permit_topic(&caller, topic).map_err(refuse)
    }
}
