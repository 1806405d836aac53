//! `ConsumerService`: consumers, streams, pulls, commits and seeks.

use std::sync::Arc;

use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status};
use tracing::info;

use crate::{
    broker::{Broker, Consume, Error, Frame, Frames},
    grpc::{
        deadline, peer,
        status::refuse,
        trunkline::{decode, encode, page_token},
    },
    model::{ConsumerId, TopicName},
    proto::{
        self,
        raw::{ConsumeResponse, consumer_service_server::ConsumerService},
    },
};

/// `ConsumerService` over a broker.
pub struct Consumers(pub(crate) Arc<Broker>);

type WireFrame = Result<ConsumeResponse, Status>;

#[tonic::async_trait]
impl ConsumerService for Consumers {
    async fn register_consumer(
        &self,
        request: Request<proto::RegisterConsumerRequest>,
    ) -> Result<Response<proto::RegisterConsumerResponse>, Status> {
        let client = peer::of(&request);
        let proto::RegisterConsumerRequest { topic, consumer_id, start } = request.into_inner();
        let topic = decode::topic_name(&topic).map_err(refuse)?;
        let id = decode::consumer_or_new(&consumer_id).map_err(refuse)?;
        let start = decode::start(start).map_err(refuse)?;
        let consumer = self.0.consumers.register(topic.clone(), id, start).await.map_err(refuse)?;
        let (id, position) = (&consumer.id, consumer.position);
        info!(%topic, consumer = %id, %position, client, "registered a consumer");
        let consumer = Some(encode::consumer(&topic, consumer));
        Ok(Response::new(proto::RegisterConsumerResponse { consumer }))
    }

    async fn unregister_consumer(
        &self,
        request: Request<proto::UnregisterConsumerRequest>,
    ) -> Result<Response<proto::UnregisterConsumerResponse>, Status> {
        let proto::UnregisterConsumerRequest { topic, consumer_id } = request.get_ref();
        let (topic, id) = names(topic, consumer_id)?;
        self.0.consumers.unregister(topic.clone(), id.clone()).await.map_err(refuse)?;
        info!(%topic, consumer = %id, client = peer::of(&request), "unregistered a consumer");
        Ok(Response::new(proto::UnregisterConsumerResponse {}))
    }

    async fn list_consumers(
        &self,
        request: Request<proto::ListConsumersRequest>,
    ) -> Result<Response<proto::ListConsumersResponse>, Status> {
        let proto::ListConsumersRequest { topic, page_size, page_token } = request.get_ref();
        let topic = decode::topic_name(topic).map_err(refuse)?;
        let list = format!("consumers of {topic}");
        let page = page_token::decode(&list, *page_size, page_token).map_err(refuse)?;
        let page = self.0.consumers.list(&topic, &page).await.map_err(refuse)?;
        let next_page_token = page_token::encode(&list, &page);
        let consumers =
            page.entries.into_iter().map(|entry| encode::consumer(&topic, entry)).collect();
        Ok(Response::new(proto::ListConsumersResponse { consumers, next_page_token }))
    }

    async fn get_consumer(
        &self,
        request: Request<proto::GetConsumerRequest>,
    ) -> Result<Response<proto::GetConsumerResponse>, Status> {
        let proto::GetConsumerRequest { topic, consumer_id } = request.get_ref();
        let (topic, id) = names(topic, consumer_id)?;
        let consumer = self.0.consumers.get(&topic, &id).await.map_err(refuse)?;
        let consumer = Some(encode::consumer(&topic, consumer));
        Ok(Response::new(proto::GetConsumerResponse { consumer }))
    }

    type ConsumeStream = tokio_stream::adapters::Map<Frames, fn(Result<Frame, Error>) -> WireFrame>;

    async fn consume(
        &self,
        request: Request<proto::ConsumeRequest>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let (client, connection) = (peer::of(&request), peer::opaque(&request));
        let deadline = deadline::of(request.metadata());
        let consume =
            decode::consume(request.into_inner(), connection, deadline).map_err(refuse)?;
        // Other clients are told the holder's name alone: the log says who that is.
        let Consume { topic, consumer, holder, .. } = &consume;
        info!(%topic, %consumer, holder, client, "opened a stream");
        let frames = self.0.delivery.consume(consume).map_err(refuse)?;
        Ok(Response::new(frames.map(encode_frame)))
    }

    async fn pull(
        &self,
        request: Request<proto::PullRequest>,
    ) -> Result<Response<proto::PullResponse>, Status> {
        let deadline = deadline::of_unary(request.metadata());
        let pull = decode::pull(request.into_inner(), deadline).map_err(refuse)?;
        let pulled = self.0.delivery.pull(pull).await.map_err(refuse)?;
        Ok(Response::new(encode::pulled(&pulled)))
    }

    async fn seek(
        &self,
        request: Request<proto::SeekRequest>,
    ) -> Result<Response<proto::SeekResponse>, Status> {
        let client = peer::of(&request);
        let proto::SeekRequest { topic, consumer_id, target } = request.into_inner();
        let (topic, id) = names(&topic, &consumer_id)?;
        let target = decode::seek_target(target).map_err(refuse)?;
        let position = self.0.delivery.seek(&topic, &id, target).await.map_err(refuse)?;
        info!(%topic, consumer = %id, %position, client, "moved a position");
        Ok(Response::new(proto::SeekResponse { position: position.0 }))
    }

    async fn commit(
        &self,
        request: Request<proto::CommitRequest>,
    ) -> Result<Response<proto::CommitResponse>, Status> {
        let commit = decode::commit(request.get_ref()).map_err(refuse)?;
        let position = self.0.delivery.commit(commit).await.map_err(refuse)?;
        Ok(Response::new(proto::CommitResponse { position: position.0 }))
    }
}

fn names(topic: &str, consumer_id: &str) -> Result<(TopicName, ConsumerId), Status> {
    let topic = decode::topic_name(topic).map_err(refuse)?;
    Ok((topic, decode::consumer_id(consumer_id).map_err(refuse)?))
}

fn encode_frame(frame: Result<Frame, Error>) -> WireFrame {
    Ok(encode::frame(frame.map_err(refuse)?))
}
