//! `TopicService`: topics, and reads without a consumer.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    access::Access,
    audit::Audit,
    broker::{Broker, Ensured, Error, NewTopic},
    grpc::{
        audited, caller,
        status::refuse,
        trunkline::{decode, encode, page_token},
    },
    model::{Act, AuditEntry, Claimant, Limit, Retention, Topic, TopicName},
    proto::{self, Bounded, raw::topic_service_server::TopicService},
};

/// Names the list in page tokens.
const LIST: &str = "topics";

/// `TopicService` over a broker.
pub struct Topics {
    pub(crate) broker: Arc<Broker>,
    pub(crate) access: Arc<Access>,
    pub(crate) audit: Arc<Audit>,
}

#[tonic::async_trait]
impl TopicService for Topics {
    async fn create_topic(
        &self,
        request: Request<Bounded<proto::CreateTopicRequest>>,
    ) -> Result<Response<proto::CreateTopicResponse>, Status> {
        let entry = audited::entry(Act::CreateTopic, &request);
        let caller = caller::of(&self.access, &request)?;
        let request = decode::bounded(request.into_inner(), "labels", "entries").map_err(refuse)?;
        let if_missing = request.if_missing;
        let new = decode::new_topic(request).map_err(refuse)?;
        let topic = match self.access.permit_topic(&caller, &new.name) {
            Ok(()) => {
                let creator = self.access.claimant(&caller, Limit::Topics);
                self.create(new, if_missing, creator, entry).await?
            }
            Err(denied) if if_missing && self.access.knows_topic(&caller, &new.name) => {
                match self.broker.topics.existing(&new).await {
                    Err(Error::TopicNotFound { .. }) => return Err(refuse(denied)),
                    found => Ensured { entry: found.map_err(refuse)?, existed: true },
                }
            }
            Err(denied) => return Err(refuse(denied)),
        };
        let Ensured { entry: topic, existed } = topic;
        Ok(Response::new(proto::CreateTopicResponse { topic: Some(encode::topic(topic)), existed }))
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
        let entry = audited::entry(Act::UpdateTopic, &request);
        let caller = caller::of(&self.access, &request)?;
        let request = decode::bounded(request.into_inner(), "labels", "entries").map_err(refuse)?;
        let name = decode::topic_name(&request.topic).map_err(refuse)?;
        let changes = decode::topic_changes(request).map_err(refuse)?;
        self.access.permit_topic(&caller, &name).map_err(refuse)?;
        let (broker, audit, entry) = (self.broker.clone(), self.audit.clone(), entry.on(&name));
        let updated = async move {
            let updated = broker.topics.update(name, &changes).await;
            audited::settle(&audit, entry, updated, |topic, entry| {
                let Retention { max_age, max_bytes, max_messages, keep_unread } = &topic.retention;
                let age = max_age.map(|age| format!("{age:?}"));
                let limits = [
                    ("max_age", age),
                    ("max_bytes", max_bytes.map(|bytes| bytes.to_string())),
                    ("max_messages", max_messages.map(|messages| messages.to_string())),
                    ("keep_unread", keep_unread.then(|| "true".to_owned())),
                ];
                let limits = limits.into_iter().filter_map(|(name, value)| Some((name, value?)));
                limits.fold(entry, |entry, (name, value)| entry.with(name, value))
            })
            .await
        };
        let topic = self.audit.finish(updated).await?;
        Ok(Response::new(proto::UpdateTopicResponse { topic: Some(encode::topic(topic)) }))
    }

    async fn delete_topic(
        &self,
        request: Request<proto::DeleteTopicRequest>,
    ) -> Result<Response<proto::DeleteTopicResponse>, Status> {
        let name = decode::topic_name(&request.get_ref().topic).map_err(refuse)?;
        self.permit(&request, &name)?;
        let entry = audited::entry(Act::DeleteTopic, &request).on(&name);
        let (broker, access, audit) =
            (self.broker.clone(), self.access.clone(), self.audit.clone());
        let deleted = async move {
            let deleted = broker.topics.delete(name.clone()).await;
            access.topic_deleted(&name);
            audited::settle(&audit, entry, deleted, |_, entry| entry).await
        };
        self.audit.finish(deleted).await?;
        Ok(Response::new(proto::DeleteTopicResponse {}))
    }

    async fn trim_topic(
        &self,
        request: Request<proto::TrimTopicRequest>,
    ) -> Result<Response<proto::TrimTopicResponse>, Status> {
        let entry = audited::entry(Act::TrimTopic, &request);
        let caller = caller::of(&self.access, &request)?;
        let proto::TrimTopicRequest { topic, before } = request.into_inner();
        let name = decode::topic_name(&topic).map_err(refuse)?;
        let to = decode::trim_to(before).map_err(refuse)?;
        self.access.permit_topic(&caller, &name).map_err(refuse)?;
        let (broker, audit, entry) = (self.broker.clone(), self.audit.clone(), entry.on(&name));
        let trimmed = async move {
            let trimmed = broker.topics.trim(name, to).await;
            audited::settle(&audit, entry, trimmed, |first, entry| {
                entry.with("first_offset", first)
            })
            .await
        };
        let first_offset = self.audit.finish(trimmed).await?.0;
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
    /// Creates a topic, if it is missing or in any case, and records it.
    async fn create(
        &self,
        new: NewTopic,
        if_missing: bool,
        creator: Option<Claimant>,
        entry: AuditEntry,
    ) -> Result<Ensured<Topic>, Status> {
        let entry = entry.on(&new.name);
        let (broker, audit) = (self.broker.clone(), self.audit.clone());
        let created = async move {
            let (topics, creator) = (&broker.topics, creator.as_ref());
            let created = match if_missing {
                true => topics.ensure(&new, creator).await,
                false => topics.create(&new, creator).await.map(Ensured::new),
            };
            audited::settle_ensured(&audit, entry, created, |_, entry| entry).await
        };
        self.audit.finish(created).await
    }

    /// Refuses a caller without the right on a topic that its call needs.
    fn permit<T>(&self, request: &Request<T>, topic: &TopicName) -> Result<(), Status> {
        let caller = caller::of(&self.access, request)?;
        self.access.permit_topic(&caller, topic).map_err(refuse)
    }
}
