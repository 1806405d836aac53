//! `SubscriptionService`: subscriptions, and the workers that share their messages.

use tonic::{Request, Response, Status};

use crate::{
    broker::{Ensured, Error},
    grpc::{
        answers::AnswerRoom,
        audited, caller, deadline,
        status::refuse,
        trunkline::{
            consumers::Consumers, decode, missing, page_token, subscription_requests as requests,
        },
    },
    model::{Act, Consumer, ConsumerId, RegistrationKey, TopicName},
    proto::{
        self,
        raw::{self, subscription_service_server::SubscriptionService},
    },
};

/// `SubscriptionService` over a broker. A subscription is a consumer, and registered as one.
pub struct Workers(pub(crate) Consumers);

#[tonic::async_trait]
impl SubscriptionService for Workers {
    async fn create_subscription(
        &self,
        request: Request<proto::CreateSubscriptionRequest>,
    ) -> Result<Response<proto::CreateSubscriptionResponse>, Status> {
        let entry = audited::entry(Act::CreateSubscription, &request);
        let caller = caller::of(&self.0.access, &request)?;
        let proto::CreateSubscriptionRequest { topic, subscription_id, policy, start, if_missing } =
            request.into_inner();
        let topic = decode::topic_name(&topic).map_err(refuse)?;
        let id = requests::subscription_or_new(&subscription_id).map_err(refuse)?;
        let policy = requests::policy(policy).map_err(refuse)?;
        let start = decode::subscription_start(start).map_err(refuse)?;
        let key = RegistrationKey::consumer(&topic, &id);
        let owner = self.0.access.claim(&caller, &key).await.map_err(refuse)?;
        let (broker, audit) = (self.0.broker.clone(), self.0.audit.clone());
        let entry = entry.to_registration(&key);
        let created = async move {
            let (consumers, owner) = (&broker.consumers, owner.as_ref());
            let created = match if_missing {
                true => consumers.ensure_shared(key.topic, id, start, owner, &policy).await,
                false => {
                    let created = consumers.subscribe(key.topic, id, start, owner, &policy);
                    created.await.map(Ensured::new)
                }
            };
            audited::settle_ensured(&audit, entry, created, |consumer, entry| {
                entry.with("position", consumer.position)
            })
            .await
        };
        let Ensured { entry: consumer, existed } = self.0.audit.finish(created).await?;
        let subscription = Some(requests::subscription(&topic, consumer));
        Ok(Response::new(proto::CreateSubscriptionResponse { subscription, existed }))
    }

    async fn delete_subscription(
        &self,
        request: Request<proto::DeleteSubscriptionRequest>,
    ) -> Result<Response<proto::DeleteSubscriptionResponse>, Status> {
        let proto::DeleteSubscriptionRequest { topic, subscription_id } = request.get_ref();
        let (topic, id) = requests::names(topic, subscription_id).map_err(refuse)?;
        let removal = self.0.permit_removal(&request, topic.clone(), id.clone()).await?;
        self.find(&topic, &id).await?;
        self.0.unregister(Act::DeleteSubscription, &request, removal).await?;
        Ok(Response::new(proto::DeleteSubscriptionResponse {}))
    }

    async fn list_subscriptions(
        &self,
        request: Request<proto::ListSubscriptionsRequest>,
    ) -> Result<Response<proto::ListSubscriptionsResponse>, Status> {
        let proto::ListSubscriptionsRequest { topic, page_size, page_token } = request.get_ref();
        let topic = decode::topic_name(topic).map_err(refuse)?;
        let list = format!("subscriptions of {topic}");
        let page = page_token::decode(&list, *page_size, page_token).map_err(refuse)?;
        let caller = caller::of(&self.0.access, &request)?;
        let owner = self.0.access.listed_owner(&caller, &topic).map_err(refuse)?;
        let page = self.0.broker.consumers.list_shared(&topic, owner.as_ref(), &page).await;
        let page = page.map_err(refuse)?;
        let next_page_token = page_token::encode(&list, &page);
        let describe = |consumer| requests::subscription(&topic, consumer);
        let subscriptions = page.entries.into_iter().map(describe).collect();
        Ok(Response::new(proto::ListSubscriptionsResponse { subscriptions, next_page_token }))
    }

    async fn get_subscription(
        &self,
        request: Request<proto::GetSubscriptionRequest>,
    ) -> Result<Response<proto::GetSubscriptionResponse>, Status> {
        let proto::GetSubscriptionRequest { topic, subscription_id } = request.get_ref();
        let (topic, id) = requests::names(topic, subscription_id).map_err(refuse)?;
        self.0.permit(&request, &topic, &id).await?;
        let consumer = self.find(&topic, &id).await?;
        let subscription = Some(requests::subscription(&topic, consumer));
        Ok(Response::new(proto::GetSubscriptionResponse { subscription }))
    }

    async fn receive(
        &self,
        request: Request<proto::ReceiveRequest>,
    ) -> Result<Response<raw::ReceiveResponse>, Status> {
        let deadline = deadline::of_unary(request.metadata());
        let caller = caller::of(&self.0.access, &request)?;
        let room = request.extensions().get::<AnswerRoom>().cloned();
        let mut receive = requests::receive(request.into_inner(), deadline).map_err(refuse)?;
        receive.answers = room.as_ref().map(|room| room.share.clone());
        let key = || RegistrationKey::consumer(&receive.topic, &receive.subscription);
        let mut guard = self.0.access.guard(&caller);
        if let Err(error) = guard.permit(key).await {
            return Err(refuse(missing::refusal(&self.0.broker, error).await));
        }
        // It may wait for a minute, during which its caller may lose the right.
        let mut received = tokio::select! {
            biased;
            received = self.0.broker.subscriptions.receive(receive) => received.map_err(refuse)?,
            error = guard.ended() => return Err(refuse(error)),
        };
        if let Some(room) = room {
            room.keep(received.room.take());
        }
        Ok(Response::new(requests::received(received)))
    }

    async fn settle(
        &self,
        request: Request<proto::SettleRequest>,
    ) -> Result<Response<proto::SettleResponse>, Status> {
        let caller = caller::of(&self.0.access, &request)?;
        let settle = requests::settle(request.into_inner()).map_err(refuse)?;
        let key = || RegistrationKey::consumer(&settle.topic, &settle.subscription);
        if let Err(error) = self.0.access.permit_registration(&caller, key).await {
            return Err(refuse(missing::refusal(&self.0.broker, error).await));
        }
        let applied = self.0.broker.subscriptions.settle(settle).await.map_err(refuse)?;
        let applied = applied.into_iter().map(|it| i32::try_from(it).unwrap_or(i32::MAX)).collect();
        Ok(Response::new(proto::SettleResponse { applied }))
    }
}

impl Workers {
    /// A subscription.
    async fn find(&self, topic: &TopicName, id: &ConsumerId) -> Result<Consumer, Status> {
        let consumer = self.0.broker.consumers.get(topic, id).await.map_err(refuse)?;
        if consumer.sharing.is_none() {
            let (topic, consumer) = (topic.clone(), id.clone());
            return Err(refuse(Error::NotASubscription { topic, consumer }));
        }
        Ok(consumer)
    }
}
