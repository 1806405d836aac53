//! TopicService.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use tracing::info;

use super::{decode, encode, peer};
use crate::{
    broker::{Broker, Error},
    model::{PageRequest, TopicName},
    proto::{self, raw::topic_service_server::TopicService},
};

const LIST: &str = "topics";

/// TopicService over a broker.
pub struct Topics(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl TopicService for Topics {
    async fn create_topic(
        &self,
        request: Request<proto::CreateTopicRequest>,
    ) -> Result<Response<proto::CreateTopicResponse>, Status> {
        let client = peer::of(&request);
        let proto::CreateTopicRequest { topic, description, labels, retention } =
            request.into_inner();
        let name = TopicName::parse(&topic).map_err(Error::from)?;
        let description = decode::description(description).map_err(Error::from)?;
        let labels = decode::labels(labels).map_err(Error::from)?;
        let retention = decode::retention(retention).map_err(Error::from)?;
        let topic = self.0.create_topic(name, &description, &labels, &retention).await?;
        info!(topic = %topic.name, client, "created a topic");
        Ok(Response::new(proto::CreateTopicResponse { topic: Some(encode::topic(topic)) }))
    }

    async fn get_topic(
        &self,
        request: Request<proto::GetTopicRequest>,
    ) -> Result<Response<proto::GetTopicResponse>, Status> {
        let name = TopicName::parse(&request.get_ref().topic).map_err(Error::from)?;
        let topic = self.0.get_topic(name).await?;
        Ok(Response::new(proto::GetTopicResponse { topic: Some(encode::topic(topic)) }))
    }

    async fn list_topics(
        &self,
        request: Request<proto::ListTopicsRequest>,
    ) -> Result<Response<proto::ListTopicsResponse>, Status> {
        let proto::ListTopicsRequest { page_size, page_token } = request.get_ref();
        let page = PageRequest::parse(LIST, *page_size, page_token).map_err(Error::from)?;
        let page = self.0.list_topics(&page).await?;
        let next_page_token = page.next_token(LIST);
        let topics = page.entries.into_iter().map(encode::topic).collect();
        Ok(Response::new(proto::ListTopicsResponse { topics, next_page_token }))
    }

    async fn update_topic(
        &self,
        request: Request<proto::UpdateTopicRequest>,
    ) -> Result<Response<proto::UpdateTopicResponse>, Status> {
        let name = TopicName::parse(&request.get_ref().topic).map_err(Error::from)?;
        let client = peer::of(&request);
        let changes = decode::topic_changes(request.into_inner()).map_err(Error::from)?;
        let topic = self.0.update_topic(name, &changes).await?;
        info!(topic = %topic.name, client, "changed a topic");
        Ok(Response::new(proto::UpdateTopicResponse { topic: Some(encode::topic(topic)) }))
    }

    async fn delete_topic(
        &self,
        request: Request<proto::DeleteTopicRequest>,
    ) -> Result<Response<proto::DeleteTopicResponse>, Status> {
        let name = TopicName::parse(&request.get_ref().topic).map_err(Error::from)?;
        self.0.delete_topic(name.clone()).await?;
        info!(topic = %name, client = peer::of(&request), "deleted a topic");
        Ok(Response::new(proto::DeleteTopicResponse {}))
    }

    async fn trim_topic(
        &self,
        request: Request<proto::TrimTopicRequest>,
    ) -> Result<Response<proto::TrimTopicResponse>, Status> {
        let client = peer::of(&request);
        let proto::TrimTopicRequest { topic, before } = request.into_inner();
        let name = TopicName::parse(&topic).map_err(Error::from)?;
        let before = decode::before(before).map_err(Error::from)?;
        let first_offset = self.0.trim_topic(name.clone(), before).await?.0;
        info!(topic = %name, first_offset, client, "trimmed a topic");
        Ok(Response::new(proto::TrimTopicResponse { first_offset }))
    }

    async fn read_messages(
        &self,
        request: Request<proto::ReadMessagesRequest>,
    ) -> Result<Response<proto::ReadMessagesResponse>, Status> {
        let proto::ReadMessagesRequest { topic, max_messages, start } = request.into_inner();
        let name = TopicName::parse(&topic).map_err(Error::from)?;
        let max_messages = decode::page_of_messages(max_messages).map_err(Error::from)?;
        let start = decode::read_start(start).map_err(Error::from)?;
        let peeked = self.0.read_messages(name, start, max_messages).await?;
        Ok(Response::new(encode::peeked(&peeked)))
    }
}
