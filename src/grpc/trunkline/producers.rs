//! `ProducerService`: producers and publishes.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use crate::{
    broker::Broker,
    grpc::{
        arrivals::Arrivals,
        peer,
        status::refuse,
        trunkline::{decode, encode, page_token, publish_stream},
    },
    proto::{
        self, Bounded,
        raw::{PublishRequest, producer_service_server::ProducerService},
    },
};

/// `ProducerService` over a broker.
pub struct Producers(pub(crate) Arc<Broker>);

#[tonic::async_trait]
impl ProducerService for Producers {
    async fn register_producer(
        &self,
        request: Request<proto::RegisterProducerRequest>,
    ) -> Result<Response<proto::RegisterProducerResponse>, Status> {
        let proto::RegisterProducerRequest { topic, producer_id, fence } = request.get_ref();
        let topic = decode::topic_name(topic).map_err(refuse)?;
        let id = decode::producer_or_new(producer_id).map_err(refuse)?;
        let producer = match fence {
            true => self.0.producers.fence(topic.clone(), id).await,
            false => self.0.producers.register(topic.clone(), id).await,
        };
        let producer = producer.map_err(refuse)?;
        let (id, epoch, client) = (&producer.id, producer.epoch, peer::of(&request));
        match fence {
            true => info!(%topic, producer = %id, %epoch, client, "fenced a producer"),
            false => info!(%topic, producer = %id, %epoch, client, "registered a producer"),
        }
        let producer = Some(encode::producer(&topic, producer));
        Ok(Response::new(proto::RegisterProducerResponse { producer }))
    }

    async fn unregister_producer(
        &self,
        request: Request<proto::UnregisterProducerRequest>,
    ) -> Result<Response<proto::UnregisterProducerResponse>, Status> {
        let proto::UnregisterProducerRequest { topic, producer_id } = request.get_ref();
        let topic = decode::topic_name(topic).map_err(refuse)?;
        let id = decode::producer_id(producer_id).map_err(refuse)?;
        self.0.producers.unregister(topic.clone(), id.clone()).await.map_err(refuse)?;
        info!(%topic, producer = %id, client = peer::of(&request), "unregistered a producer");
        Ok(Response::new(proto::UnregisterProducerResponse {}))
    }

    async fn get_producer(
        &self,
        request: Request<proto::GetProducerRequest>,
    ) -> Result<Response<proto::GetProducerResponse>, Status> {
        let proto::GetProducerRequest { topic, producer_id } = request.get_ref();
        let topic = decode::topic_name(topic).map_err(refuse)?;
        let id = decode::producer_id(producer_id).map_err(refuse)?;
        let producer = self.0.producers.get(&topic, &id).await.map_err(refuse)?;
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
        let page = self.0.producers.list(&topic, &page).await.map_err(refuse)?;
        let next_page_token = page_token::encode(&list, &page);
        let producers =
            page.entries.into_iter().map(|entry| encode::producer(&topic, entry)).collect();
        Ok(Response::new(proto::ListProducersResponse { producers, next_page_token }))
    }

    async fn publish(
        &self,
        request: Request<Bounded<PublishRequest>>,
    ) -> Result<Response<proto::PublishResponse>, Status> {
        let (_, mut extensions, request) = request.into_parts();
        let arrivals = extensions.remove::<Arrivals>().unwrap_or_default();
        let publish = decode::decode_publish(request).map_err(refuse)?;
        let hold = arrivals.take(arrivals.decoded(publish.memory()));
        let receipt = self.0.publisher.publish(publish, hold).await.map_err(refuse)?;
        let proto::PublishReceipt { first_offset, count, duplicate } = encode::receipt(receipt);
        Ok(Response::new(proto::PublishResponse { first_offset, count, duplicate }))
    }

    type PublishStreamStream = publish_stream::AnswerStream;

    async fn publish_stream(
        &self,
        request: Request<Streaming<Bounded<PublishRequest>>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let (_, mut extensions, requests) = request.into_parts();
        let arrivals = extensions.remove::<Arrivals>().unwrap_or_default();
        Ok(Response::new(publish_stream::start(&self.0, requests, arrivals)))
    }
}
