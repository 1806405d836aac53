//! `ProducerService`: producers and publishes.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use crate::{
    access::Access,
    audit::Audit,
    broker::{Broker, Ensured},
    grpc::{
        arrivals::Arrivals,
        audited::{self, Denials},
        caller,
        status::refuse,
        trunkline::{
            decode, encode, missing, page_token,
            publish_stream::{self, PublishingCaller},
        },
    },
    metrics::CallMetrics,
    model::{Act, ProducerId, RegistrationKey, TopicName},
    proto::{
        self, Bounded,
        raw::{PublishRequest, producer_service_server::ProducerService},
    },
    traces::TracedCall,
};

/// `ProducerService` over a broker.
pub struct Producers {
    pub(crate) broker: Arc<Broker>,
    pub(crate) access: Arc<Access>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) metrics: Arc<CallMetrics>,
}

/// The audit's name of the call whose stream may end later.
const PUBLISH_STREAM: &str = "trunkline.v1.ProducerService/PublishStream";

#[tonic::async_trait]
impl ProducerService for Producers {
    async fn register_producer(
        &self,
        request: Request<proto::RegisterProducerRequest>,
    ) -> Result<Response<proto::RegisterProducerResponse>, Status> {
        let proto::RegisterProducerRequest { topic, producer_id, fence, if_missing } =
            request.get_ref();
        let topic = decode::topic_name(topic).map_err(refuse)?;
        let id = decode::producer_or_new(producer_id).map_err(refuse)?;
        let caller = caller::of(&self.access, &request)?;
        let key = RegistrationKey::producer(&topic, &id);
        let owner = self.access.claim(&caller, &key).await.map_err(refuse)?;
        let (fence, if_missing) = (*fence, *if_missing);
        let act = if fence { Act::FenceProducer } else { Act::RegisterProducer };
        let entry = audited::entry(act, &request).to_registration(&key);
        let (broker, audit) = (self.broker.clone(), self.audit.clone());
        let registered = async move {
            let producers = &broker.producers;
            let owner = owner.as_ref();
            let producer = match (fence, if_missing) {
                (true, _) => producers.fence(key.topic, id, owner).await.map(Ensured::new),
                (false, true) => producers.ensure(key.topic, id, owner).await,
                (false, false) => producers.register(key.topic, id, owner).await.map(Ensured::new),
            };
            audited::settle_ensured(&audit, entry, producer, |producer, entry| {
                entry.with("epoch", producer.epoch)
            })
            .await
        };
        let Ensured { entry: producer, existed } = self.audit.finish(registered).await?;
        let producer = Some(encode::producer(&topic, producer));
        Ok(Response::new(proto::RegisterProducerResponse { producer, existed }))
    }

    async fn unregister_producer(
        &self,
        request: Request<proto::UnregisterProducerRequest>,
    ) -> Result<Response<proto::UnregisterProducerResponse>, Status> {
        let proto::UnregisterProducerRequest { topic, producer_id } = request.get_ref();
        let topic = decode::topic_name(topic).map_err(refuse)?;
        let id = decode::producer_id(producer_id).map_err(refuse)?;
        let caller = caller::of(&self.access, &request)?;
        let key = RegistrationKey::producer(&topic, &id);
        let owner = match self.access.permit_removal(&caller, &key).await {
            Ok(owner) => owner,
            Err(error) => return Err(refuse(missing::refusal(&self.broker, error).await)),
        };
        let entry = audited::entry(Act::UnregisterProducer, &request).to_registration(&key);
        let (broker, access, audit) =
            (self.broker.clone(), self.access.clone(), self.audit.clone());
        let unregistered = async move {
            let unregistered = broker.producers.unregister(topic, id, owner.as_ref()).await;
            access.unregistered(&key);
            audited::settle(&audit, entry, unregistered, |_, entry| entry).await
        };
        self.audit.finish(unregistered).await?;
        Ok(Response::new(proto::UnregisterProducerResponse {}))
    }

    async fn get_producer(
        &self,
        request: Request<proto::GetProducerRequest>,
    ) -> Result<Response<proto::GetProducerResponse>, Status> {
        let proto::GetProducerRequest { topic, producer_id } = request.get_ref();
        let topic = decode::topic_name(topic).map_err(refuse)?;
        let id = decode::producer_id(producer_id).map_err(refuse)?;
        self.permit(&request, &topic, &id).await?;
        let producer = self.broker.producers.get(&topic, &id).await.map_err(refuse)?;
        let producer = Some(encode::producer(&topic, producer));
        Ok(Response::new(proto::GetProducerResponse { producer }))
    }

    async fn list_producers(
        &self,
        request: Request<proto::ListProducersRequest>,
    ) -> Result<Response<proto::ListProducersResponse>, Status> {
        let proto::ListProducersRequest { topic, page_size, page_token } = request.get_ref();
        let topic = decode::topic_name(topic).map_err(refuse)?;
        let list = format!("producers of {topic}");
        let page = page_token::decode(&list, *page_size, page_token).map_err(refuse)?;
        let caller = caller::of(&self.access, &request)?;
        let owner = self.access.listed_owner(&caller, &topic).map_err(refuse)?;
        let page = self.broker.producers.list(&topic, owner.as_ref(), &page).await;
        let page = page.map_err(refuse)?;
        let next_page_token = page_token::encode(&list, &page);
        let producers =
            page.entries.into_iter().map(|entry| encode::producer(&topic, entry)).collect();
        Ok(Response::new(proto::ListProducersResponse { producers, next_page_token }))
    }

    async fn publish(
        &self,
        request: Request<Bounded<PublishRequest>>,
    ) -> Result<Response<proto::PublishResponse>, Status> {
        let caller = caller::of(&self.access, &request)?;
        let (_, mut extensions, request) = request.into_parts();
        let arrivals = extensions.remove::<Arrivals>().unwrap_or_default();
        let publish = decode::decode_publish(request).map_err(refuse)?;
        let (messages, bytes) = (publish.messages.count(), publish.messages.bytes());
        self.access.take(&caller, messages, bytes).map_err(refuse)?;
        let key = || RegistrationKey::producer(&publish.topic, &publish.producer);
        if let Err(error) = self.access.permit_registration(&caller, key).await {
            return Err(refuse(missing::refusal_of_publish(&self.broker, error).await));
        }
        let hold = arrivals.take(arrivals.decoded(publish.memory()));
        let call = extensions.get::<TracedCall>();
        let traced =
            self.broker.traces().begin_publish(call, &publish.topic, publish.messages.as_slice());
        let receipt = self.broker.publisher.publish(publish, hold, traced).await.map_err(refuse)?;
        let proto::PublishReceipt { first_offset, count, duplicate } = encode::receipt(receipt);
        Ok(Response::new(proto::PublishResponse { first_offset, count, duplicate }))
    }

    type PublishStreamStream = publish_stream::AnswerStream;

    async fn publish_stream(
        &self,
        request: Request<Streaming<Bounded<PublishRequest>>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let caller = caller::of(&self.access, &request)?;
        let caller = PublishingCaller {
            guard: self.access.guard(&caller),
            denials: Denials::of(&self.audit, &request, PUBLISH_STREAM),
            pace: self.access.pace(Some(&caller)),
            metrics: self.metrics.clone(),
        };
        let (_, mut extensions, requests) = request.into_parts();
        let arrivals = extensions.remove::<Arrivals>().unwrap_or_default();
        Ok(publish_stream::start(&self.broker, caller, requests, arrivals))
    }
}

impl Producers {
    /// Refuses a caller that may not do with a producer what its call does.
    async fn permit<T>(
        &self,
        request: &Request<T>,
        topic: &TopicName,
        id: &ProducerId,
    ) -> Result<(), Status> {
        let caller = caller::of(&self.access, request)?;
        let key = || RegistrationKey::producer(topic, id);
        match self.access.permit_registration(&caller, key).await {
            Ok(()) => Ok(()),
            Err(error) => Err(refuse(missing::refusal(&self.broker, error).await)),
        }
    }
}
