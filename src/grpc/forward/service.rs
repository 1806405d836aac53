//! What a broker does for others that forward calls to it: it serves the subscriptions that it owns.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    service::{Routes, interceptor::InterceptedService},
};

use super::{identity::ForwardIdentity, secret::Require};
use crate::{
    access::Access,
    broker::{Broker, Error},
    grpc::{
        accounts::Accounts,
        answers::AnswerRoom,
        deadline,
        explain::explain,
        intake::Intake,
        limits::MAX_CALL_BYTES,
        status::refuse,
        trunkline::{
            sent_events::SentEvents,
            subscribe_requests,
            subscribe_stream::{self, Working},
            subscription_answers as answers, subscription_requests as requests,
        },
    },
    proto::{
        self,
        raw::{
            self,
            subscription_service_server::{SubscriptionService, SubscriptionServiceServer},
        },
    },
};

/// Serves the subscriptions that this broker owns.
struct Forwarded {
    broker: Arc<Broker>,
}

/// The calls that other brokers may make if they show the endpoint's secret.
pub(in crate::grpc) fn routes(
    broker: Arc<Broker>,
    identity: &ForwardIdentity,
    accounts: Arc<Accounts>,
    access: Arc<Access>,
) -> Routes {
    let service = SubscriptionServiceServer::new(Forwarded { broker });
    let service = service.max_decoding_message_size(MAX_CALL_BYTES);
    // Another broker's calls are limited together, and its secret is seen first.
    let limited = Intake::new(service, accounts, access);
    Routes::new(InterceptedService::new(limited, Require(identity.endpoint.clone()))).prepare()
}

/// A call that is not forwarded, as any broker can do it.
fn not_forwarded() -> Status {
    Status::unimplemented("brokers do not forward this call")
}

#[tonic::async_trait]
impl SubscriptionService for Forwarded {
    type SubscribeStream = SentEvents;

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let deadline = deadline::of(request.metadata());
        let mut requests = request.into_inner();
        let first = tokio::select! {
            first = requests.message() => first.map_err(|status| explain(&status).unwrap_or(status))?,
            () = self.broker.draining().cancelled() => return Err(refuse(Error::Draining)),
        };
        let (subscribe, heartbeat) = subscribe_requests::open(first).map_err(refuse)?;
        let subscribed = subscribe_stream::subscribe(&self.broker, subscribe).await;
        let (worker, attached) = subscribed.map_err(refuse)?;
        // The other broker ends the stream if its client may not have it any more.
        let withdrawn = CancellationToken::new();
        let working = Working { worker, attached, heartbeat, deadline, withdrawn };
        Ok(Response::new(subscribe_stream::start(&self.broker, working, requests)))
    }

    async fn receive(
        &self,
        request: Request<proto::ReceiveRequest>,
    ) -> Result<Response<raw::ReceiveResponse>, Status> {
        let deadline = deadline::of_unary(request.metadata());
        let room = request.extensions().get::<AnswerRoom>().cloned();
        let mut receive = requests::receive(request.into_inner(), deadline).map_err(refuse)?;
        receive.answers = room.as_ref().map(|room| room.share.clone());
        let mut received = self.broker.subscriptions.receive(receive).await.map_err(refuse)?;
        AnswerRoom::keep_for_worker(room, received.room.take(), received.unsent.take());
        Ok(Response::new(answers::received(received)))
    }

    async fn settle(
        &self,
        request: Request<proto::SettleRequest>,
    ) -> Result<Response<proto::SettleResponse>, Status> {
        let settle = requests::settle(request.into_inner()).map_err(refuse)?;
        let applied = self.broker.subscriptions.settle(settle).await.map_err(refuse)?;
        Ok(Response::new(proto::SettleResponse { applied: answers::counts(&applied) }))
    }

    async fn update_subscription(
        &self,
        request: Request<proto::UpdateSubscriptionRequest>,
    ) -> Result<Response<proto::UpdateSubscriptionResponse>, Status> {
        let request = request.into_inner();
        let (topic, id) =
            requests::names(&request.topic, &request.subscription_id).map_err(refuse)?;
        let change = requests::policy_change(request).map_err(refuse)?;
        self.broker.subscriptions.update(topic, id, change).await.map_err(refuse)?;
        Ok(Response::new(proto::UpdateSubscriptionResponse::default()))
    }

    async fn replay_parked(
        &self,
        request: Request<proto::ReplayParkedRequest>,
    ) -> Result<Response<proto::ReplayParkedResponse>, Status> {
        let proto::ReplayParkedRequest { topic, subscription_id, offsets, ranges } =
            request.into_inner();
        let parked = requests::parked(&topic, &subscription_id, offsets, ranges).map_err(refuse)?;
        let unparked = self.broker.subscriptions.replay_parked(parked).await.map_err(refuse)?;
        let replayed = answers::count(unparked.count);
        let has_more = unparked.has_more;
        Ok(Response::new(proto::ReplayParkedResponse { replayed, has_more }))
    }

    async fn discard_parked(
        &self,
        request: Request<proto::DiscardParkedRequest>,
    ) -> Result<Response<proto::DiscardParkedResponse>, Status> {
        let proto::DiscardParkedRequest { topic, subscription_id, offsets, ranges } =
            request.into_inner();
        let parked = requests::parked(&topic, &subscription_id, offsets, ranges).map_err(refuse)?;
        let unparked = self.broker.subscriptions.discard_parked(parked).await.map_err(refuse)?;
        let discarded = answers::count(unparked.count);
        let has_more = unparked.has_more;
        Ok(Response::new(proto::DiscardParkedResponse { discarded, has_more }))
    }

    async fn create_subscription(
        &self,
        _: Request<proto::CreateSubscriptionRequest>,
    ) -> Result<Response<proto::CreateSubscriptionResponse>, Status> {
        Err(not_forwarded())
    }

    async fn delete_subscription(
        &self,
        _: Request<proto::DeleteSubscriptionRequest>,
    ) -> Result<Response<proto::DeleteSubscriptionResponse>, Status> {
        Err(not_forwarded())
    }

    async fn list_subscriptions(
        &self,
        _: Request<proto::ListSubscriptionsRequest>,
    ) -> Result<Response<proto::ListSubscriptionsResponse>, Status> {
        Err(not_forwarded())
    }

    /// Says only what the owner alone knows.
    async fn get_subscription(
        &self,
        request: Request<proto::GetSubscriptionRequest>,
    ) -> Result<Response<proto::GetSubscriptionResponse>, Status> {
        let proto::GetSubscriptionRequest { topic, subscription_id } = request.into_inner();
        let (topic, id) = requests::names(&topic, &subscription_id).map_err(refuse)?;
        let working = self.broker.subscriptions.working(&topic, &id).await;
        let subscription = Some(answers::working(working));
        Ok(Response::new(proto::GetSubscriptionResponse { subscription }))
    }

    async fn seek_subscription(
        &self,
        _: Request<proto::SeekSubscriptionRequest>,
    ) -> Result<Response<proto::SeekSubscriptionResponse>, Status> {
        Err(not_forwarded())
    }

    async fn list_parked(
        &self,
        _: Request<proto::ListParkedRequest>,
    ) -> Result<Response<proto::ListParkedResponse>, Status> {
        Err(not_forwarded())
    }
}
