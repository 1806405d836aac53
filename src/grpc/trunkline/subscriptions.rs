//! `SubscriptionService`: subscriptions, and the workers that share their messages.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    broker::{Broker, Ensured, Error, Parked, Unparked, WorkerStream},
    grpc::{
        answers::AnswerRoom,
        audited::{self, Denials},
        caller, deadline,
        explain::explain,
        forward::{Client, Forwarder, WhenLost, worker},
        status::refuse,
        trunkline::{
            consumers::Consumers,
            decode,
            guarded::Guarded,
            missing, page_token,
            sent_events::SentEvents,
            subscribe_requests,
            subscribe_stream::{self, Working},
            subscription_answers as answers, subscription_requests as requests,
        },
    },
    model::{Act, AuditEntry, Consumer, ConsumerId, Offset, RegistrationKey, TopicName},
    proto::{
        self,
        raw::{self, subscribe_response::Event, subscription_service_server::SubscriptionService},
    },
};

/// The audit's name of the call whose stream may end later.
const SUBSCRIBE: &str = "trunkline.v1.SubscriptionService/Subscribe";

/// How long the owner of a subscription may take to say how it stands.
const OWNER_TIMEOUT: Duration = Duration::from_secs(1);

/// `SubscriptionService` over a broker. A subscription is a consumer, and registered as one.
pub struct Workers {
    pub(crate) consumers: Consumers,
    pub(crate) forwarder: Arc<Forwarder>,
}

/// Where a worker's stream is served.
enum Stream {
    Here(WorkerStream, Event),
    There(worker::Opened),
}

#[tonic::async_trait]
impl SubscriptionService for Workers {
    async fn create_subscription(
        &self,
        request: Request<proto::CreateSubscriptionRequest>,
    ) -> Result<Response<proto::CreateSubscriptionResponse>, Status> {
        let entry = audited::entry(Act::CreateSubscription, &request);
        let caller = caller::of(&self.consumers.access, &request)?;
        let proto::CreateSubscriptionRequest { topic, subscription_id, policy, start, if_missing } =
            request.into_inner();
        let topic = decode::topic_name(&topic).map_err(refuse)?;
        let id = requests::subscription_or_new(&subscription_id).map_err(refuse)?;
        let policy = requests::policy(policy).map_err(refuse)?;
        let start = decode::subscription_start(start).map_err(refuse)?;
        self.consumers.broker.subscriptions.check_policy(&policy).await.map_err(refuse)?;
        let key = RegistrationKey::consumer(&topic, &id);
        let owner = self.consumers.access.claim(&caller, &key).await.map_err(refuse)?;
        let existing = match if_missing {
            true => self.consumers.broker.consumers.find_shared(&topic, &id, owner.as_ref()).await,
            false => Ok(None),
        };
        let existing = existing.map_err(refuse)?;
        // What exists stays as it is. If it goes meanwhile, what is created must have been checked.
        if existing.is_none() {
            if let Some(dead_letter_topic) = &policy.dead_letter_topic {
                let permitted =
                    self.consumers.access.permit_dead_letters(&caller, dead_letter_topic);
                permitted.map_err(refuse)?;
            }
            let checked =
                self.consumers.broker.subscriptions.check_dead_letter_topic(&topic, &policy);
            checked.await.map_err(refuse)?;
        }
        let (broker, audit) = (self.consumers.broker.clone(), self.consumers.audit.clone());
        let entry = entry.to_registration(&key);
        let created = async move {
            let (consumers, owner) = (&broker.consumers, owner.as_ref());
            let created = match existing {
                Some(existing) => Ok(Ensured::existing(existing)),
                None if if_missing => {
                    consumers.ensure_shared(key.topic, id, start, owner, &policy).await
                }
                None => {
                    let created = consumers.subscribe(key.topic, id, start, owner, &policy);
                    created.await.map(Ensured::new)
                }
            };
            audited::settle_ensured(&audit, entry, created, |consumer, entry| {
                entry.with("position", consumer.position)
            })
            .await
        };
        let Ensured { entry: consumer, existed } = self.consumers.audit.finish(created).await?;
        let subscription = Some(answers::subscription(&topic, consumer));
        Ok(Response::new(proto::CreateSubscriptionResponse { subscription, existed }))
    }

    async fn delete_subscription(
        &self,
        request: Request<proto::DeleteSubscriptionRequest>,
    ) -> Result<Response<proto::DeleteSubscriptionResponse>, Status> {
        let proto::DeleteSubscriptionRequest { topic, subscription_id } = request.get_ref();
        let (topic, id) = requests::names(topic, subscription_id).map_err(refuse)?;
        let removal = self.consumers.permit_removal(&request, topic.clone(), id.clone()).await?;
        self.find(&topic, &id).await?;
        self.consumers.unregister(Act::DeleteSubscription, &request, removal).await?;
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
        let caller = caller::of(&self.consumers.access, &request)?;
        let owner = self.consumers.access.listed_owner(&caller, &topic).map_err(refuse)?;
        let page = self.consumers.broker.consumers.list_shared(&topic, owner.as_ref(), &page).await;
        let page = page.map_err(refuse)?;
        let next_page_token = page_token::encode(&list, &page);
        let describe = |consumer| answers::subscription(&topic, consumer);
        let subscriptions = page.entries.into_iter().map(describe).collect();
        Ok(Response::new(proto::ListSubscriptionsResponse { subscriptions, next_page_token }))
    }

    async fn get_subscription(
        &self,
        request: Request<proto::GetSubscriptionRequest>,
    ) -> Result<Response<proto::GetSubscriptionResponse>, Status> {
        let proto::GetSubscriptionRequest { topic, subscription_id } = request.get_ref();
        let (topic, id) = requests::names(topic, subscription_id).map_err(refuse)?;
        self.consumers.permit(&request, &topic, &id).await?;
        let consumer = self.find(&topic, &id).await?;
        let stands = self.consumers.broker.subscriptions.stands(&topic, &consumer).await;
        let stands = stands.map_err(refuse)?;
        let elsewhere = match stands.working {
            Some(_) => None,
            None => self.ask_owner(&consumer, request.get_ref()).await,
        };
        let mut subscription = answers::subscription_that_stands(&topic, consumer, stands);
        if let Some(told) = elsewhere {
            subscription.outstanding_messages = told.outstanding_messages;
            subscription.outstanding_bytes = told.outstanding_bytes;
            subscription.workers = told.workers;
            subscription.stalled_by = told.stalled_by;
        }
        let subscription = Some(subscription);
        Ok(Response::new(proto::GetSubscriptionResponse { subscription }))
    }

    async fn receive(
        &self,
        request: Request<proto::ReceiveRequest>,
    ) -> Result<Response<raw::ReceiveResponse>, Status> {
        let deadline = deadline::of_unary(request.metadata());
        let caller = caller::of(&self.consumers.access, &request)?;
        let room = request.extensions().get::<AnswerRoom>().cloned();
        let asked = request.into_inner();
        let mut receive = requests::receive(asked.clone(), deadline).map_err(refuse)?;
        receive.answers = room.as_ref().map(|room| room.share.clone());
        let key = || RegistrationKey::consumer(&receive.topic, &receive.subscription);
        let mut guard = self.consumers.access.guard(&caller);
        if let Err(error) = guard.permit(key).await {
            return Err(refuse(missing::refusal(&self.consumers.broker, error).await));
        }
        let names = (receive.topic.clone(), receive.subscription.clone());
        let receiving = self.forwarder.route(
            &names,
            WhenLost::Repeat,
            || async {
                let mut received =
                    self.consumers.broker.subscriptions.receive(receive.clone()).await?;
                let (held, unsent) = (received.room.take(), received.unsent.take());
                Ok((answers::received(received), held, unsent))
            },
            |client| worker::receive(client, &asked, &receive),
        );
        // It may wait for a minute, during which its caller may lose the right.
        let (received, held, unsent) = tokio::select! {
            biased;
            received = receiving => received.map_err(refuse)?,
            error = guard.ended() => return Err(refuse(error)),
            // If another broker serves it. An owner here ends it by itself.
            () = self.consumers.broker.draining().cancelled() => return Err(refuse(Error::Draining)),
        };
        AnswerRoom::keep_for_worker(room, held, unsent);
        Ok(Response::new(received))
    }

    type SubscribeStream = Guarded<SentEvents>;

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = caller::of(&self.consumers.access, &request)?;
        let denials = Denials::of(&self.consumers.audit, &request, SUBSCRIBE);
        let deadline = deadline::of(request.metadata());
        let mut guard = self.consumers.access.guard(&caller);
        let mut requests = request.into_inner();
        let first = tokio::select! {
            first = requests.message() => first.map_err(|status| explain(&status).unwrap_or(status))?,
            () = self.consumers.broker.draining().cancelled() => return Err(refuse(Error::Draining)),
            error = guard.ended() => return Err(refuse(error)),
        };
        let opening = first.clone().unwrap_or_default();
        let (subscribe, heartbeat) = subscribe_requests::open(first).map_err(refuse)?;
        let key = || RegistrationKey::consumer(&subscribe.topic, &subscribe.subscription);
        if let Err(error) = guard.permit(key).await {
            return Err(refuse(missing::refusal(&self.consumers.broker, error).await));
        }
        let open = self.consumers.access.open_stream(&caller).map_err(refuse)?;
        let (broker, withdrawn) = (&self.consumers.broker, CancellationToken::new());
        let names = (subscribe.topic.clone(), subscribe.subscription.clone());
        let opened = self.forwarder.route(
            &names,
            WhenLost::Repeat,
            || async {
                let subscribed = subscribe_stream::subscribe(broker, subscribe.clone()).await?;
                Ok(Stream::Here(subscribed.0, subscribed.1))
            },
            |client| async {
                worker::open(client, opening.clone(), deadline).await.map(Stream::There)
            },
        );
        let events = match opened.await.map_err(refuse)? {
            Stream::Here(worker, attached) => {
                let withdrawn = withdrawn.clone();
                let working = Working { worker, attached, heartbeat, deadline, withdrawn };
                subscribe_stream::start(broker, working, requests)
            }
            Stream::There(opened) => {
                let withdrawn = withdrawn.clone();
                worker::serve(broker, &self.forwarder, names, opened, requests, withdrawn)
            }
        };
        Ok(Response::new(Guarded::new(events, guard, withdrawn, denials, open)))
    }

    async fn settle(
        &self,
        request: Request<proto::SettleRequest>,
    ) -> Result<Response<proto::SettleResponse>, Status> {
        let caller = caller::of(&self.consumers.access, &request)?;
        let asked = request.into_inner();
        let settle = requests::settle(asked.clone()).map_err(refuse)?;
        let key = || RegistrationKey::consumer(&settle.topic, &settle.subscription);
        if let Err(error) = self.consumers.access.permit_registration(&caller, key).await {
            return Err(refuse(missing::refusal(&self.consumers.broker, error).await));
        }
        let names = (settle.topic.clone(), settle.subscription.clone());
        let settled = self.forwarder.route(
            &names,
            WhenLost::Refuse,
            || async {
                let applied = self.consumers.broker.subscriptions.settle(settle.clone()).await?;
                Ok(proto::SettleResponse { applied: answers::counts(&applied) })
            },
            |mut client| {
                let asked = asked.clone();
                async move { Ok(client.service.settle(asked).await?.into_inner()) }
            },
        );
        Ok(Response::new(settled.await.map_err(refuse)?))
    }

    async fn update_subscription(
        &self,
        request: Request<proto::UpdateSubscriptionRequest>,
    ) -> Result<Response<proto::UpdateSubscriptionResponse>, Status> {
        let entry = audited::entry(Act::UpdateSubscription, &request);
        let (topic, id) = {
            let request = request.get_ref();
            requests::names(&request.topic, &request.subscription_id).map_err(refuse)?
        };
        self.consumers.permit(&request, &topic, &id).await?;
        if let Some(set) = requests::dead_letter_topic_set(request.get_ref()).map_err(refuse)? {
            let caller = caller::of(&self.consumers.access, &request)?;
            self.consumers.access.permit_dead_letters(&caller, &set).map_err(refuse)?;
        }
        let asked = request.into_inner();
        let change = requests::policy_change(asked.clone()).map_err(refuse)?;
        let (broker, audit) = (self.consumers.broker.clone(), self.consumers.audit.clone());
        let forwarder = self.forwarder.clone();
        let entry = entry.to_registration(&RegistrationKey::consumer(&topic, &id));
        let updated = async move {
            let names = (topic, id);
            let updated = forwarder.route(
                &names,
                WhenLost::Refuse,
                || broker.subscriptions.update(names.0.clone(), names.1.clone(), &change),
                |mut client| {
                    let asked = asked.clone();
                    async move { client.service.update_subscription(asked).await.map(drop) }
                },
            );
            let settled = audited::settle(&audit, entry, updated.await, |(), entry| entry).await;
            settled.map(|()| names)
        };
        let (topic, id) = self.consumers.audit.finish(updated).await?;
        let subscription = Some(answers::subscription(&topic, self.find(&topic, &id).await?));
        Ok(Response::new(proto::UpdateSubscriptionResponse { subscription }))
    }

    async fn seek_subscription(
        &self,
        request: Request<proto::SeekSubscriptionRequest>,
    ) -> Result<Response<proto::SeekSubscriptionResponse>, Status> {
        let entry = audited::entry(Act::SeekSubscription, &request);
        let proto::SeekSubscriptionRequest { topic, subscription_id, target } = request.get_ref();
        let (topic, id) = requests::names(topic, subscription_id).map_err(refuse)?;
        let target = decode::subscription_target(*target).map_err(refuse)?;
        self.consumers.permit(&request, &topic, &id).await?;
        let (broker, audit) = (self.consumers.broker.clone(), self.consumers.audit.clone());
        let entry = entry.to_registration(&RegistrationKey::consumer(&topic, &id));
        let sought = async move {
            let sought = broker.subscriptions.seek(topic, id, target).await;
            audited::settle(&audit, entry, sought, |floor, entry| entry.with("position", floor))
                .await
        };
        let floor = self.consumers.audit.finish(sought).await?.0;
        Ok(Response::new(proto::SeekSubscriptionResponse { floor }))
    }

    async fn list_parked(
        &self,
        request: Request<proto::ListParkedRequest>,
    ) -> Result<Response<proto::ListParkedResponse>, Status> {
        let proto::ListParkedRequest { topic, subscription_id, page_size, page_token } =
            request.get_ref();
        let (topic, id) = requests::names(topic, subscription_id).map_err(refuse)?;
        let list = format!("parked {topic} {id}");
        let is_offset = |name: &str| requests::parse_offset(name).is_some();
        let page = page_token::decode_names(&list, *page_size, page_token, is_offset);
        let page = page.map_err(refuse)?;
        self.consumers.permit(&request, &topic, &id).await?;
        let from = requests::parse_offset(&page.after).map_or(Offset(0), |last| last.after(1));
        let listed = self.consumers.broker.subscriptions.list_parked(topic, id, from, &page).await;
        let page = listed.map_err(refuse)?;
        let next_page_token = page_token::encode(&list, &page);
        let messages = page.entries.into_iter().map(answers::parked_message).collect();
        Ok(Response::new(proto::ListParkedResponse { messages, next_page_token }))
    }

    async fn replay_parked(
        &self,
        request: Request<proto::ReplayParkedRequest>,
    ) -> Result<Response<proto::ReplayParkedResponse>, Status> {
        let entry = audited::entry(Act::ReplayParked, &request);
        let asked = request.get_ref().clone();
        let proto::ReplayParkedRequest { topic, subscription_id, offsets, ranges } = asked.clone();
        let parked = requests::parked(&topic, &subscription_id, offsets, ranges).map_err(refuse)?;
        self.consumers.permit(&request, &parked.topic, &parked.subscription).await?;
        let here = |broker: Arc<Broker>, parked| async move {
            broker.subscriptions.replay_parked(parked).await
        };
        let there = move |mut client: Client| {
            let asked = asked.clone();
            async move {
                let answer = client.service.replay_parked(asked).await?.into_inner();
                Ok(unparked(answer.replayed, answer.has_more))
            }
        };
        let Unparked { count, has_more } = self.unpark(entry, parked, here, there).await?;
        let replayed = answers::count(count);
        Ok(Response::new(proto::ReplayParkedResponse { replayed, has_more }))
    }

    async fn discard_parked(
        &self,
        request: Request<proto::DiscardParkedRequest>,
    ) -> Result<Response<proto::DiscardParkedResponse>, Status> {
        let entry = audited::entry(Act::DiscardParked, &request);
        let asked = request.get_ref().clone();
        let proto::DiscardParkedRequest { topic, subscription_id, offsets, ranges } = asked.clone();
        let parked = requests::parked(&topic, &subscription_id, offsets, ranges).map_err(refuse)?;
        self.consumers.permit(&request, &parked.topic, &parked.subscription).await?;
        let here = |broker: Arc<Broker>, parked| async move {
            broker.subscriptions.discard_parked(parked).await
        };
        let there = move |mut client: Client| {
            let asked = asked.clone();
            async move {
                let answer = client.service.discard_parked(asked).await?.into_inner();
                Ok(unparked(answer.discarded, answer.has_more))
            }
        };
        let Unparked { count, has_more } = self.unpark(entry, parked, here, there).await?;
        let discarded = answers::count(count);
        Ok(Response::new(proto::DiscardParkedResponse { discarded, has_more }))
    }
}

impl Workers {
    /// What the owner of a subscription alone knows, if it is another broker and answers.
    async fn ask_owner(
        &self,
        consumer: &Consumer,
        request: &proto::GetSubscriptionRequest,
    ) -> Option<proto::Subscription> {
        let endpoint =
            self.consumers.broker.subscriptions.endpoint_of_owner(consumer).await.ok()??;
        let asking = async {
            let mut client = self.forwarder.client(endpoint).await?;
            client.service.get_subscription(request.clone()).await.ok()?.into_inner().subscription
        };
        tokio::time::timeout(OWNER_TIMEOUT, asking).await.ok()?
    }

    /// Does something with parked messages here or at their owner, and records that.
    async fn unpark<Here, There>(
        &self,
        entry: AuditEntry,
        parked: Parked,
        here: impl Fn(Arc<Broker>, Parked) -> Here + Send + Sync + 'static,
        there: impl Fn(Client) -> There + Send + Sync + 'static,
    ) -> Result<Unparked, Status>
    where
        Here: Future<Output = Result<Unparked, Error>> + Send,
        There: Future<Output = Result<Unparked, Status>> + Send,
    {
        let Consumers { broker, audit, .. } = &self.consumers;
        let (broker, forwarder) = (broker.clone(), self.forwarder.clone());
        let names = (parked.topic.clone(), parked.subscription.clone());
        let entry = entry.to_registration(&RegistrationKey::consumer(&names.0, &names.1));
        let records = audit.clone();
        let unparked = async move {
            let here = || here(broker.clone(), parked.clone());
            let unparked = forwarder.route(&names, WhenLost::Refuse, here, there).await;
            audited::settle(&records, entry, unparked, |unparked, entry| {
                entry.with("messages", unparked.count)
            })
            .await
        };
        audit.finish(unparked).await
    }

    /// A subscription.
    async fn find(&self, topic: &TopicName, id: &ConsumerId) -> Result<Consumer, Status> {
        let consumer = self.consumers.broker.consumers.get(topic, id).await.map_err(refuse)?;
        if consumer.sharing.is_none() {
            let (topic, consumer) = (topic.clone(), id.clone());
            return Err(refuse(Error::NotASubscription { topic, consumer }));
        }
        Ok(consumer)
    }
}

/// What another broker did with parked messages.
fn unparked(count: i32, has_more: bool) -> Unparked {
    Unparked { count: usize::try_from(count).unwrap_or(0), has_more }
}
