//! A broker that authenticates its clients, and calls by principals.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use trunkline::{
    broker::{Broker, Quotas},
    proto::{
        self, ConsumeResponse, Operation, PublishStreamRequest, PublishStreamResponse,
        access_service_client::AccessServiceClient, consume_response::Event,
        consumer_service_client::ConsumerServiceClient,
        overview_service_client::OverviewServiceClient,
        producer_service_client::ProducerServiceClient,
        subscription_service_client::SubscriptionServiceClient,
        topic_service_client::TopicServiceClient,
    },
    server::{self, Authentication},
    storage::Storage,
};

use super::{TestDatabase, cluster::LIMITS, message, soon};

/// A broker that authenticates its clients.
pub struct SecuredBroker {
    pub database: Arc<TestDatabase>,
    pub endpoint: String,
    /// The first administrator's token.
    pub root: String,
    shutdown: DropGuard,
    served: JoinHandle<Result<(), server::Error>>,
}

/// Somebody who calls with a token.
#[derive(Clone)]
pub struct As {
    channel: Channel,
    token: Bearer,
}

/// Adds a token to each call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

type Service = InterceptedService<Channel, Bearer>;

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl SecuredBroker {
    /// Starts a broker on a new database, with a first administrator.
    pub async fn start() -> Self {
        let database = Arc::new(TestDatabase::create().await);
        let root = server::bootstrap(&database.url).await.unwrap();
        Self::start_on(database, root).await
    }

    /// Starts another broker on the same database.
    pub async fn start_another(&self) -> Self {
        Self::start_on(self.database.clone(), self.root.clone()).await
    }

    pub async fn start_on(database: Arc<TestDatabase>, root: String) -> Self {
        Self::start_with(database, root, Quotas::default()).await
    }

    /// Starts a broker with other limits on a new database.
    pub async fn start_limited(quotas: Quotas) -> Self {
        let database = Arc::new(TestDatabase::create().await);
        let root = server::bootstrap(&database.url).await.unwrap();
        Self::start_with(database, root, quotas).await
    }

    async fn start_with(database: Arc<TestDatabase>, root: String, quotas: Quotas) -> Self {
        let storage = Storage::open(&database.url, None, LIMITS).await.unwrap();
        let broker = Broker::start(storage, LIMITS.writers, quotas).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let stopped = shutdown.clone().cancelled_owned();
        let (required, drain) = (Authentication::Required(None), Duration::from_secs(5));
        let served = tokio::spawn(server::run_with(listener, broker, required, drain, stopped));
        Self { database, endpoint, root, shutdown: shutdown.drop_guard(), served }
    }

    /// Drains, and waits until the broker has stopped.
    pub async fn stop(self) {
        drop(self.shutdown);
        soon("the broker stops", self.served).await.unwrap().unwrap();
    }

    /// Somebody with a token, on a connection of its own.
    pub async fn with_token(&self, token: &str) -> As {
        let header = format!("Bearer {token}").parse().unwrap();
        As { channel: self.connect().await, token: Bearer(Some(header)) }
    }

    /// Somebody without a token.
    pub async fn stranger(&self) -> As {
        As { channel: self.connect().await, token: Bearer(None) }
    }

    /// The first administrator.
    pub async fn root(&self) -> As {
        self.with_token(&self.root).await
    }

    /// A principal with grants, and its new token.
    pub async fn principal<const N: usize>(
        &self,
        principal: &str,
        grants: [(Operation, &str); N],
    ) -> As {
        let root = self.root().await;
        for (operation, topics) in grants {
            root.grant(principal, operation, topics).await;
        }
        let token = root.create_token(principal).await;
        self.with_token(&token).await
    }

    pub async fn sql(&self) -> tokio_postgres::Client {
        self.database.sql().await
    }

    async fn connect(&self) -> Channel {
        Endpoint::from_shared(self.endpoint.clone()).unwrap().connect().await.unwrap()
    }
}

impl As {
    /// Somebody with a token, at a broker of another process.
    pub async fn at(endpoint: &str, token: &str) -> Self {
        let channel = Endpoint::from_shared(endpoint.to_owned()).unwrap().connect().await.unwrap();
        Self { channel, token: Bearer(Some(format!("Bearer {token}").parse().unwrap())) }
    }

    pub fn topics(&self) -> TopicServiceClient<Service> {
        TopicServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub fn producers(&self) -> ProducerServiceClient<Service> {
        ProducerServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub fn consumers(&self) -> ConsumerServiceClient<Service> {
        ConsumerServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub fn subscriptions(&self) -> SubscriptionServiceClient<Service> {
        SubscriptionServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub fn access(&self) -> AccessServiceClient<Service> {
        AccessServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub fn overview(&self) -> OverviewServiceClient<Service> {
        OverviewServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub async fn who_am_i(&self) -> Result<proto::WhoAmIResponse, Status> {
        Ok(self.access().who_am_i(proto::WhoAmIRequest {}).await?.into_inner())
    }

    /// The id of the caller's token.
    pub async fn token_id(&self) -> String {
        self.who_am_i().await.unwrap().token_id
    }

    pub async fn grant(&self, principal: &str, operation: Operation, topics: &str) {
        let (principal, topics) = (principal.to_owned(), topics.to_owned());
        let request = proto::AddGrantRequest { principal, operation: operation.into(), topics };
        self.access().add_grant(request).await.unwrap();
    }

    pub async fn try_withdraw(
        &self,
        principal: &str,
        operation: Operation,
        topics: &str,
    ) -> Result<(), Status> {
        let (principal, topics) = (principal.to_owned(), topics.to_owned());
        let request = proto::RemoveGrantRequest { principal, operation: operation.into(), topics };
        self.access().remove_grant(request).await.map(drop)
    }

    /// Creates a token that does not expire; returns the whole token.
    pub async fn create_token(&self, principal: &str) -> String {
        let request =
            proto::CreateTokenRequest { principal: principal.to_owned(), ..Default::default() };
        self.access().create_token(request).await.unwrap().into_inner().secret
    }

    pub async fn revoke(&self, token_id: &str) -> Result<proto::Token, Status> {
        let request = proto::RevokeTokenRequest { token_id: token_id.to_owned() };
        Ok(self.access().revoke_token(request).await?.into_inner().token.unwrap())
    }

    pub async fn create_topic(&self, topic: &str) -> Result<proto::Topic, Status> {
        let request = proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() };
        Ok(self.topics().create_topic(request).await?.into_inner().topic.unwrap())
    }

    pub async fn get_topic(&self, topic: &str) -> Result<proto::Topic, Status> {
        let request = proto::GetTopicRequest { topic: topic.to_owned() };
        Ok(self.topics().get_topic(request).await?.into_inner().topic.unwrap())
    }

    pub async fn register_producer(
        &self,
        topic: &str,
        id: &str,
        fence: bool,
    ) -> Result<proto::Producer, Status> {
        let (topic, producer_id) = (topic.to_owned(), id.to_owned());
        let request =
            proto::RegisterProducerRequest { topic, producer_id, fence, ..Default::default() };
        Ok(self.producers().register_producer(request).await?.into_inner().producer.unwrap())
    }

    pub async fn register_consumer(
        &self,
        topic: &str,
        id: &str,
    ) -> Result<proto::Consumer, Status> {
        let (topic, consumer_id) = (topic.to_owned(), id.to_owned());
        let request = proto::RegisterConsumerRequest { topic, consumer_id, ..Default::default() };
        Ok(self.consumers().register_consumer(request).await?.into_inner().consumer.unwrap())
    }

    pub async fn publish(&self, topic: &str, id: &str, payload: &str) -> Result<i64, Status> {
        let request = proto::PublishRequest {
            topic: topic.to_owned(),
            producer_id: id.to_owned(),
            messages: vec![message(payload.to_owned())],
            ..Default::default()
        };
        Ok(self.producers().publish(request).await?.into_inner().first_offset)
    }

    pub async fn assign(
        &self,
        topic: &str,
        registration: proto::assign_owner_request::Registration,
        principal: &str,
    ) -> Result<(), Status> {
        let request = proto::AssignOwnerRequest {
            topic: topic.to_owned(),
            registration: Some(registration),
            principal: principal.to_owned(),
        };
        self.access().assign_owner(request).await.map(drop)
    }

    /// Opens a stream with short heartbeats, and waits until it has the lease.
    pub async fn consume(&self, topic: &str, id: &str) -> Streaming<ConsumeResponse> {
        let mut stream = self.try_consume(topic, id).await.unwrap();
        loop {
            let frame = soon("a frame", stream.message()).await.unwrap().unwrap();
            if let Some(Event::Attached(_)) = frame.event {
                return stream;
            }
        }
    }

    pub async fn try_consume(
        &self,
        topic: &str,
        id: &str,
    ) -> Result<Streaming<ConsumeResponse>, Status> {
        let request = proto::ConsumeRequest {
            topic: topic.to_owned(),
            consumer_id: id.to_owned(),
            heartbeat_interval: Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 }),
            ..Default::default()
        };
        Ok(self.consumers().consume(request).await?.into_inner())
    }

    /// Opens a publish stream, and publishes a message on it.
    pub async fn publish_stream(&self, topic: &str, id: &str) -> SecuredPublishStream {
        let (requests, outgoing) = mpsc::channel(16);
        let answers = self.producers().publish_stream(ReceiverStream::new(outgoing)).await;
        let answers = answers.unwrap().into_inner();
        let mut stream = SecuredPublishStream { requests, answers };
        stream.publish(topic, id).await;
        let first = stream.answer().await.unwrap().result.unwrap();
        assert!(matches!(first, proto::publish_stream_response::Result::Receipt(_)), "{first:?}");
        stream
    }
}

/// A publish stream of a principal.
pub struct SecuredPublishStream {
    requests: mpsc::Sender<PublishStreamRequest>,
    answers: Streaming<PublishStreamResponse>,
}

impl SecuredPublishStream {
    pub async fn publish(&mut self, topic: &str, id: &str) {
        let request = PublishStreamRequest {
            topic: topic.to_owned(),
            producer_id: id.to_owned(),
            messages: vec![message("m")],
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }

    pub async fn answer(&mut self) -> Result<PublishStreamResponse, Status> {
        let answer = soon("an answer", self.answers.message()).await?;
        Ok(answer.expect("the stream ends with a status"))
    }

    /// Waits for the stream's end.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.answer().await {
                return status;
            }
        }
    }
}

/// Waits for the end of a consumer's stream.
pub async fn end_of(stream: &mut Streaming<ConsumeResponse>) -> Status {
    loop {
        match soon("the stream's end", stream.message()).await {
            Ok(frame) => drop(frame.expect("the stream ends with a status")),
            Err(status) => return status,
        }
    }
}

/// The id in a token.
pub fn id_of(token: &str) -> &str {
    &token[4..16]
}
