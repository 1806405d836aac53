//! `ConsumerService`: consumers, streams, pulls, commits and seeks.

use std::sync::Arc;

use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status};
use tracing::{debug, info};

use crate::{
    access::Access,
    broker::{Broker, Consume, Error, Frame, Frames},
    grpc::{
        answers::AnswerRoom,
        caller, deadline, peer,
        status::refuse,
        trunkline::{decode, encode, guarded::Guarded, page_token},
    },
    model::{ConsumerId, RegistrationKey, TopicName},
    proto::{
        self,
        raw::{ConsumeResponse, consumer_service_server::ConsumerService},
    },
};

/// `ConsumerService` over a broker.
pub struct Consumers {
    pub(crate) broker: Arc<Broker>,
    pub(crate) access: Arc<Access>,
}

type WireFrame = Result<ConsumeResponse, Status>;

/// The encoded frames of a stream.
type FrameStream = tokio_stream::adapters::Map<Frames, fn(Result<Frame, Error>) -> WireFrame>;

#[tonic::async_trait]
impl ConsumerService for Consumers {
    async fn register_consumer(
        &self,
        request: Request<proto::RegisterConsumerRequest>,
    ) -> Result<Response<proto::RegisterConsumerResponse>, Status> {
        let client = peer::of(&request);
        let caller = caller::of(&self.access, &request)?;
        let proto::RegisterConsumerRequest { topic, consumer_id, start } = request.into_inner();
        let topic = decode::topic_name(&topic).map_err(refuse)?;
        let id = decode::consumer_or_new(&consumer_id).map_err(refuse)?;
        let start = decode::start(start).map_err(refuse)?;
        let key = RegistrationKey::consumer(&topic, &id);
        let owner = self.access.claim(&caller, &key).await.map_err(refuse)?;
        let consumer =
            self.broker.consumers.register(topic.clone(), id, start, owner.as_ref()).await;
        let consumer = consumer.map_err(refuse)?;
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
        self.permit(&request, &topic, &id).await?;
        self.broker.consumers.unregister(topic.clone(), id.clone()).await.map_err(refuse)?;
        self.access.unregistered(&RegistrationKey::consumer(&topic, &id));
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
        let caller = caller::of(&self.access, &request)?;
        let owner = self.access.listed_owner(&caller, &topic).map_err(refuse)?;
        let page = self.broker.consumers.list(&topic, owner.as_ref(), &page).await;
        let page = page.map_err(refuse)?;
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
        self.permit(&request, &topic, &id).await?;
        let consumer = self.broker.consumers.get(&topic, &id).await.map_err(refuse)?;
        let consumer = Some(encode::consumer(&topic, consumer));
        Ok(Response::new(proto::GetConsumerResponse { consumer }))
    }

    type ConsumeStream = Guarded<FrameStream>;

    async fn consume(
        &self,
        request: Request<proto::ConsumeRequest>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let (client, connection) = (peer::of(&request), peer::opaque(&request));
        let deadline = deadline::of(request.metadata());
        let caller = caller::of(&self.access, &request)?;
        let consume =
            decode::consume(request.into_inner(), connection, deadline).map_err(refuse)?;
        let key = || RegistrationKey::consumer(&consume.topic, &consume.consumer);
        let mut guard = self.access.guard(&caller);
        guard.permit(key).await.map_err(refuse)?;
        // Other clients are told the holder's name alone: the log says who that is. Clients that compete
        // open many streams, so it does so only if it is asked.
        let Consume { topic, consumer, holder, .. } = &consume;
        debug!(%topic, %consumer, holder, client, "opened a stream");
        let withdrawn = consume.withdrawn.clone();
        let frames = self.broker.delivery.consume(consume).map_err(refuse)?;
        let encode: fn(Result<Frame, Error>) -> WireFrame = encode_frame;
        Ok(Response::new(Guarded::new(frames.map(encode), guard, withdrawn)))
    }

    async fn pull(
        &self,
        request: Request<proto::PullRequest>,
    ) -> Result<Response<proto::PullResponse>, Status> {
        let deadline = deadline::of_unary(request.metadata());
        let caller = caller::of(&self.access, &request)?;
        let room = request.extensions().get::<AnswerRoom>().cloned();
        let mut pull = decode::pull(request.into_inner(), deadline).map_err(refuse)?;
        pull.answers = room.as_ref().map(|room| room.share.clone());
        let key = || RegistrationKey::consumer(&pull.topic, &pull.consumer);
        let mut guard = self.access.guard(&caller);
        guard.permit(key).await.map_err(refuse)?;
        // It may wait for a minute, during which its caller may lose the right.
        let mut pulled = tokio::select! {
            biased;
            pulled = self.broker.delivery.pull(pull) => pulled.map_err(refuse)?,
            error = guard.ended() => return Err(refuse(error)),
        };
        if let Some(room) = room {
            room.keep(pulled.room.take());
        }
        Ok(Response::new(encode::pulled(&pulled)))
    }

    async fn seek(
        &self,
        request: Request<proto::SeekRequest>,
    ) -> Result<Response<proto::SeekResponse>, Status> {
        let client = peer::of(&request);
        let caller = caller::of(&self.access, &request)?;
        let proto::SeekRequest { topic, consumer_id, target } = request.into_inner();
        let (topic, id) = names(&topic, &consumer_id)?;
        let target = decode::seek_target(target).map_err(refuse)?;
        let key = || RegistrationKey::consumer(&topic, &id);
        self.access.permit_registration(&caller, key).await.map_err(refuse)?;
        let position = self.broker.delivery.seek(&topic, &id, target).await.map_err(refuse)?;
        info!(%topic, consumer = %id, %position, client, "moved a position");
        Ok(Response::new(proto::SeekResponse { position: position.0 }))
    }

    async fn commit(
        &self,
        request: Request<proto::CommitRequest>,
    ) -> Result<Response<proto::CommitResponse>, Status> {
        let commit = decode::commit(request.get_ref()).map_err(refuse)?;
        self.permit(&request, &commit.topic, &commit.consumer).await?;
        let position = self.broker.delivery.commit(commit).await.map_err(refuse)?;
        Ok(Response::new(proto::CommitResponse { position: position.0 }))
    }
}

impl Consumers {
    /// Refuses a caller that may not do with a consumer what its call does.
    async fn permit<T>(
        &self,
        request: &Request<T>,
        topic: &TopicName,
        id: &ConsumerId,
    ) -> Result<(), Status> {
        let caller = caller::of(&self.access, request)?;
        let key = || RegistrationKey::consumer(topic, id);
        self.access.permit_registration(&caller, key).await.map_err(refuse)
    }
}

fn names(topic: &str, consumer_id: &str) -> Result<(TopicName, ConsumerId), Status> {
    let topic = decode::topic_name(topic).map_err(refuse)?;
    Ok((topic, decode::consumer_id(consumer_id).map_err(refuse)?))
}

fn encode_frame(frame: Result<Frame, Error>) -> WireFrame {
    Ok(encode::frame(frame.map_err(refuse)?))
}
