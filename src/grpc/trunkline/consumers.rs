//! `ConsumerService`: consumers, streams, pulls, commits and seeks.

use std::sync::Arc;

use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status};
use tracing::debug;

use crate::{
    access::{self, Access},
    audit::Audit,
    broker::{Broker, Consume, Ensured, Error, Frame, Frames},
    grpc::{
        answers::AnswerRoom,
        audited::{self, Denials},
        caller, deadline, peer,
        status::refuse,
        trunkline::{decode, encode, guarded::Guarded, missing, page_token},
    },
    model::{Act, ConsumerId, Principal, RegistrationKey, TopicName},
    proto::{
        self,
        raw::{ConsumeResponse, consumer_service_server::ConsumerService},
    },
};

/// `ConsumerService` over a broker.
pub struct Consumers {
    pub(crate) broker: Arc<Broker>,
    pub(crate) access: Arc<Access>,
    pub(crate) audit: Arc<Audit>,
}

/// The audit's name of the call whose stream may end later.
const CONSUME: &str = "trunkline.v1.ConsumerService/Consume";

type WireFrame = Result<ConsumeResponse, Status>;

/// The encoded frames of a stream.
type FrameStream = tokio_stream::adapters::Map<Frames, fn(Result<Frame, Error>) -> WireFrame>;

#[tonic::async_trait]
impl ConsumerService for Consumers {
    async fn register_consumer(
        &self,
        request: Request<proto::RegisterConsumerRequest>,
    ) -> Result<Response<proto::RegisterConsumerResponse>, Status> {
        let entry = audited::entry(Act::RegisterConsumer, &request);
        let caller = caller::of(&self.access, &request)?;
        let proto::RegisterConsumerRequest { topic, consumer_id, start, if_missing } =
            request.into_inner();
        let topic = decode::topic_name(&topic).map_err(refuse)?;
        let id = decode::consumer_or_new(&consumer_id).map_err(refuse)?;
        let start = decode::start(start).map_err(refuse)?;
        let key = RegistrationKey::consumer(&topic, &id);
        let owner = self.access.claim(&caller, &key).await.map_err(refuse)?;
        let (broker, audit) = (self.broker.clone(), self.audit.clone());
        let entry = entry.to_registration(&key);
        let registered = async move {
            let consumers = &broker.consumers;
            let owner = owner.as_ref();
            let consumer = match if_missing {
                true => consumers.ensure(key.topic, id, start, owner).await,
                false => consumers.register(key.topic, id, start, owner).await.map(Ensured::new),
            };
            audited::settle_ensured(&audit, entry, consumer, |consumer, entry| {
                entry.with("position", consumer.position)
            })
            .await
        };
        let Ensured { entry: consumer, existed } = self.audit.finish(registered).await?;
        let consumer = Some(encode::consumer(&topic, consumer));
        Ok(Response::new(proto::RegisterConsumerResponse { consumer, existed }))
    }

    async fn unregister_consumer(
        &self,
        request: Request<proto::UnregisterConsumerRequest>,
    ) -> Result<Response<proto::UnregisterConsumerResponse>, Status> {
        let proto::UnregisterConsumerRequest { topic, consumer_id } = request.get_ref();
        let (topic, id) = names(topic, consumer_id)?;
        let removal = self.permit_removal(&request, topic, id).await?;
        self.unregister(Act::UnregisterConsumer, &request, removal).await?;
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
        let origin = audited::origin(&request);
        let denials = Denials::of(&self.audit, &request, CONSUME);
        let consume =
            decode::consume(request.into_inner(), connection, deadline).map_err(refuse)?;
        let mut consume = Consume { origin, ..consume };
        let key = || RegistrationKey::consumer(&consume.topic, &consume.consumer);
        let mut guard = self.access.guard(&caller);
        match guard.permit(key).await {
            Ok(()) => {}
            // The stream itself says so, after what comes before it.
            Err(access::Error::NotRegistered(_)) => consume.is_missing = true,
            Err(error) => return Err(refuse(error)),
        }
        let open = self.access.open_stream(&caller).map_err(refuse)?;
        // Other clients are told the holder's name alone: the log says who that is. Clients that compete
        // open many streams, so it does so only if it is asked.
        let Consume { topic, consumer, holder, .. } = &consume;
        debug!(%topic, %consumer, holder, caller = client, "opened a stream");
        let withdrawn = consume.withdrawn.clone();
        let frames = self.broker.delivery.consume(consume).map_err(refuse)?;
        let encode: fn(Result<Frame, Error>) -> WireFrame = encode_frame;
        let frames = Guarded::new(frames.map(encode), guard, withdrawn, denials, open);
        Ok(Response::new(frames))
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
        if let Err(error) = guard.permit(key).await {
            return Err(refuse(missing::refusal(&self.broker, error).await));
        }
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
        let entry = audited::entry(Act::Seek, &request);
        let caller = caller::of(&self.access, &request)?;
        let proto::SeekRequest { topic, consumer_id, target } = request.into_inner();
        let (topic, id) = names(&topic, &consumer_id)?;
        let target = decode::seek_target(target).map_err(refuse)?;
        let key = RegistrationKey::consumer(&topic, &id);
        if let Err(error) = self.access.permit_registration(&caller, || key.clone()).await {
            if let access::Error::NotRegistered(_) = error {
                // An offset out of range comes before it.
                self.broker.delivery.check_target(&topic, target).await.map_err(refuse)?;
            }
            return Err(refuse(missing::refusal(&self.broker, error).await));
        }
        let (delivery, audit) = (self.broker.delivery.clone(), self.audit.clone());
        let entry = entry.to_registration(&key);
        let sought = async move {
            let sought = delivery.seek(&topic, &id, target).await;
            audited::settle(&audit, entry, sought, |position, entry| {
                entry.with("position", position)
            })
            .await
        };
        let position = self.audit.finish(sought).await?;
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

/// The consumer that a call removes.
pub(super) struct Removal {
    key: RegistrationKey,
    id: ConsumerId,
    /// Whose it must be; `None` for anyone's.
    owner: Option<Principal>,
}

impl Consumers {
    /// Refuses a caller that may not remove a consumer.
    pub(super) async fn permit_removal<T>(
        &self,
        request: &Request<T>,
        topic: TopicName,
        id: ConsumerId,
    ) -> Result<Removal, Status> {
        let caller = caller::of(&self.access, request)?;
        let key = RegistrationKey::consumer(&topic, &id);
        match self.access.permit_removal(&caller, &key).await {
            Ok(owner) => Ok(Removal { key, id, owner }),
            Err(error) => Err(refuse(missing::refusal(&self.broker, error).await)),
        }
    }

    /// Removes a consumer, and records that.
    pub(super) async fn unregister<T>(
        &self,
        act: Act,
        request: &Request<T>,
        Removal { key, id, owner }: Removal,
    ) -> Result<(), Status> {
        let entry = audited::entry(act, request).to_registration(&key);
        let (broker, access, audit) =
            (self.broker.clone(), self.access.clone(), self.audit.clone());
        let unregistered = async move {
            let topic = key.topic.clone();
            let unregistered = broker.consumers.unregister(topic, id, owner.as_ref()).await;
            access.unregistered(&key);
            audited::settle(&audit, entry, unregistered, |_, entry| entry).await
        };
        self.audit.finish(unregistered).await
    }

    /// Refuses a caller that may not do with a consumer what its call does.
    pub(super) async fn permit<T>(
        &self,
        request: &Request<T>,
        topic: &TopicName,
        id: &ConsumerId,
    ) -> Result<(), Status> {
        let caller = caller::of(&self.access, request)?;
        let key = || RegistrationKey::consumer(topic, id);
        match self.access.permit_registration(&caller, key).await {
            Ok(()) => Ok(()),
            Err(error) => Err(refuse(missing::refusal(&self.broker, error).await)),
        }
    }
}

fn names(topic: &str, consumer_id: &str) -> Result<(TopicName, ConsumerId), Status> {
    let topic = decode::topic_name(topic).map_err(refuse)?;
    Ok((topic, decode::consumer_id(consumer_id).map_err(refuse)?))
}

fn encode_frame(frame: Result<Frame, Error>) -> WireFrame {
    Ok(encode::frame(frame.map_err(refuse)?))
}
