//! `OverviewService`: what moves, who is behind, and what needs attention.

use std::{sync::Arc, time::Instant};

use tonic::{Request, Response, Status};

use crate::{
    access::Access,
    broker::{self, Broker, ConsumerOrder, Overview, TopicOrder, ViewRequest, find_troubles},
    grpc::{caller, status::refuse, trunkline::decode},
    model::InvalidInput,
    proto::{
        self, BrokerState, ConsumerActivity, GetOverviewResponse, Problem, TopicActivity,
        problem::Severity, raw::overview_service_server::OverviewService,
    },
};

/// How many topics, and how many consumers, an answer holds unless it is told.
const DEFAULT_ENTRIES: usize = 20;
const MAX_ENTRIES: usize = 1_000;

/// The longest text to look for: the longest name.
const MAX_CONTAINS_BYTES: usize = 255;

/// `OverviewService` over a broker.
pub struct Overviews {
    pub(crate) broker: Arc<Broker>,
    pub(crate) access: Arc<Access>,
    pub(crate) overview: Arc<Overview>,
    pub(crate) started: Instant,
}

#[tonic::async_trait]
impl OverviewService for Overviews {
    async fn get_overview(
        &self,
        request: Request<proto::GetOverviewRequest>,
    ) -> Result<Response<GetOverviewResponse>, Status> {
        let caller = caller::of(&self.access, &request)?;
        let wanted = Wanted::decode(request.get_ref()).map_err(refuse)?;
        let snapshot =
            self.overview.current().await.map_err(|error| refuse(broker::Error::of_read(error)))?;
        let load = self.broker.load();
        let view = snapshot.view(&ViewRequest {
            topic_contains: wanted.topic_contains,
            knows: &|topic| caller.knows(topic.as_str()),
            sees_consumers: &|topic| caller.sees_registrations(topic.as_str()),
            topic_order: wanted.topic_order,
            consumer_order: wanted.consumer_order,
        });
        let troubles = find_troubles(&load, &view.consumers, caller.is_restricted());
        let problems = troubles.into_iter().map(|trouble| {
            let (topic, consumer_id) = trouble.example.unzip();
            Problem {
                severity: match trouble.is_severe {
                    true => Severity::Error.into(),
                    false => Severity::Warning.into(),
                },
                description: trouble.what,
                advice: trouble.advice.to_owned(),
                topic: topic.map(|it| it.as_str().to_owned()).unwrap_or_default(),
                consumer_id: consumer_id.map(|it| it.as_str().to_owned()).unwrap_or_default(),
            }
        });
        let topics = view.topics.iter().take(wanted.max_topics).map(|it| TopicActivity {
            topic: it.name.as_str().to_owned(),
            first_offset: it.start.0,
            head: it.head.0,
            bytes: it.bytes,
            publish_rate: snapshot.published(it.id),
            last_publish_time: it.last_published_at().map(Into::into),
        });
        let consumers =
            view.consumers.iter().take(wanted.max_consumers).map(|it| ConsumerActivity {
                topic: it.topic.as_str().to_owned(),
                consumer_id: it.id.as_str().to_owned(),
                position: it.position.0,
                lag: it.lag,
                time_behind: it.behind.try_into().ok(),
                idle_time: it.unchanged_for.try_into().ok(),
                consume_rate: snapshot.consumed(it.key),
                held: it.is_held,
                holder: it.holder.clone().unwrap_or_default(),
            });
        Ok(Response::new(GetOverviewResponse {
            broker: Some(BrokerState {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime: self.started.elapsed().try_into().ok(),
                streams: load.streams.used as i64,
                max_streams: load.streams.limit as i64,
                notified: load.hears_others,
                draining: load.is_draining,
            }),
            topic_count: view.topics.len() as i64,
            consumer_count: view.consumers.len() as i64,
            consumers_behind: view.consumers.iter().filter(|it| it.lag > 0).count() as i64,
            publish_rate: view.publish_rate,
            consume_rate: view.consume_rate,
            incomplete: view.is_incomplete,
            problems: problems.collect(),
            topics: topics.collect(),
            consumers: consumers.collect(),
        }))
    }
}

/// What a request asks for.
struct Wanted<'a> {
    topic_contains: &'a str,
    topic_order: TopicOrder,
    max_topics: usize,
    consumer_order: ConsumerOrder,
    max_consumers: usize,
}

impl<'a> Wanted<'a> {
    fn decode(request: &'a proto::GetOverviewRequest) -> Result<Self, InvalidInput> {
        let count = |field, count| decode::count(field, count, DEFAULT_ENTRIES, MAX_ENTRIES);
        let topic_contains = request.topic_contains.as_str();
        if topic_contains.len() > MAX_CONTAINS_BYTES {
            let (actual, limit) = (topic_contains.len(), MAX_CONTAINS_BYTES);
            return Err(InvalidInput::over_limit("topic_contains", actual, limit, "bytes"));
        }
        Ok(Self {
            topic_contains,
            topic_order: topic_order(request.topic_order)?,
            max_topics: count("max_topics", request.max_topics)?,
            consumer_order: consumer_order(request.consumer_order)?,
            max_consumers: count("max_consumers", request.max_consumers)?,
        })
    }
}

fn topic_order(order: i32) -> Result<TopicOrder, InvalidInput> {
    use proto::TopicOrder as Order;
    match Order::try_from(order) {
        Ok(Order::Unspecified | Order::PublishRate) => Ok(TopicOrder::PublishRate),
        Ok(Order::Name) => Ok(TopicOrder::Name),
        Ok(Order::Bytes) => Ok(TopicOrder::Bytes),
        Ok(Order::Head) => Ok(TopicOrder::Head),
        Ok(Order::LastPublishTime) => Ok(TopicOrder::LastPublished),
        Err(_) => Err(decode::unknown_value("topic_order", order)),
    }
}

fn consumer_order(order: i32) -> Result<ConsumerOrder, InvalidInput> {
    use proto::ConsumerOrder as Order;
    match Order::try_from(order) {
        Ok(Order::Unspecified | Order::Lag) => Ok(ConsumerOrder::Lag),
        Ok(Order::Name) => Ok(ConsumerOrder::Name),
        Ok(Order::TimeBehind) => Ok(ConsumerOrder::Behind),
        Ok(Order::ConsumeRate) => Ok(ConsumerOrder::ConsumeRate),
        Ok(Order::IdleTime) => Ok(ConsumerOrder::Idle),
        Err(_) => Err(decode::unknown_value("consumer_order", order)),
    }
}
