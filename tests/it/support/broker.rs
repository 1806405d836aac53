//! A broker in the test's process, and the calls that tests make on it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{IntoRequest, Status};
use tonic_health::pb::health_client::HealthClient;
use trunkline::{
    broker::{Broker, Budget, Quotas},
    client::{Client, Connection},
    proto::{
        self, consumer_service_client::ConsumerServiceClient,
        producer_service_client::ProducerServiceClient, topic_service_client::TopicServiceClient,
    },
    server,
    storage::Storage,
};

use super::{TestDatabase, TestStream, cluster::LIMITS, payload, soon, until};

/// The producer that [`TestBroker::topic`] registers.
pub const PRODUCER: &str = "producer";

pub struct TestBroker {
    pub database: Arc<TestDatabase>,
    pub endpoint: String,
    pub client: Client,
    /// What publishes are charged to.
    pub budget: Arc<Budget>,
    shutdown: DropGuard,
    served: JoinHandle<Result<(), server::Error>>,
}

impl TestBroker {
    /// Starts a broker on a new database.
    pub async fn start() -> Self {
        Self::start_on(Arc::new(TestDatabase::create().await)).await
    }

    /// Starts a broker on a database that other brokers may share.
    pub async fn start_on(database: Arc<TestDatabase>) -> Self {
        let url = database.url.clone();
        Self::start_with(database, &url, None, Duration::from_secs(5)).await
    }

    /// A broker with the topic `orders`, which has two batches, of two and three messages, and the
    /// consumer `billing`.
    pub async fn with_five_messages() -> Self {
        let broker = Self::start().await;
        broker.topic("orders").await;
        broker.consumer("orders", "billing").await;
        broker.publish("orders", ["a", "b"]).await;
        broker.publish("orders", ["c", "d", "e"]).await;
        broker
    }

    pub async fn start_with(
        database: Arc<TestDatabase>,
        url: &str,
        direct_url: Option<&str>,
        drain: Duration,
    ) -> Self {
        Self::start_with_quotas(database, (url, direct_url), drain, Quotas::default()).await
    }

    /// Starts a broker with other limits on a new database.
    pub async fn start_limited(quotas: Quotas) -> Self {
        let database = Arc::new(TestDatabase::create().await);
        let url = database.url.clone();
        Self::start_with_quotas(database, (&url, None), Duration::from_secs(5), quotas).await
    }

    async fn start_with_quotas(
        database: Arc<TestDatabase>,
        (url, direct_url): (&str, Option<&str>),
        drain: Duration,
        quotas: Quotas,
    ) -> Self {
        let storage = Storage::open(url, direct_url, LIMITS).await.unwrap();
        let broker = Broker::start(storage, LIMITS.writers, quotas).await.unwrap();
        let budget = broker.publisher.budget().clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let stopped = shutdown.clone().cancelled_owned();
        let served = tokio::spawn(server::run(listener, broker, drain, stopped));
        let client = Client::connect(&endpoint).await.unwrap();
        Self { database, endpoint, client, budget, shutdown: shutdown.drop_guard(), served }
    }

    /// A broker of another process, which dropping this does not stop.
    pub async fn at(database: Arc<TestDatabase>, endpoint: &str) -> Self {
        let client = Client::connect(endpoint).await.unwrap();
        let shutdown = CancellationToken::new().drop_guard();
        let served = tokio::spawn(std::future::ready(Ok(())));
        let budget = Arc::new(Budget::new(0, 0));
        Self { database, endpoint: endpoint.to_owned(), client, budget, shutdown, served }
    }

    /// Starts another broker on the same database.
    pub async fn start_another(&self) -> Self {
        Self::start_on(self.database.clone()).await
    }

    /// Starts to drain; the handle ends when the broker has stopped.
    pub fn shut_down(self) -> JoinHandle<Result<(), server::Error>> {
        drop(self.shutdown);
        self.served
    }

    /// Drains, and waits until the broker has stopped.
    pub async fn stop(self) {
        soon("the broker stops", self.shut_down()).await.unwrap().unwrap();
    }

    pub fn health(&self) -> HealthClient<Connection> {
        HealthClient::new(self.client.connection())
    }

    pub fn topics(&self) -> TopicServiceClient<Connection> {
        self.client.topics()
    }

    pub fn producers(&self) -> ProducerServiceClient<Connection> {
        self.client.producers()
    }

    /// Limits messages to 4 MiB, the default of gRPC clients in most languages.
    pub fn consumers(&self) -> ConsumerServiceClient<Connection> {
        self.client.consumers().max_decoding_message_size(4 * 1024 * 1024)
    }

    pub async fn sql(&self) -> tokio_postgres::Client {
        self.database.sql().await
    }

    /// Creates a topic, and registers [`PRODUCER`] on it.
    pub async fn topic(&self, topic: &str) {
        let request = proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() };
        self.topics().create_topic(request).await.unwrap();
        self.producer(topic, PRODUCER).await;
    }

    /// Creates a topic with a retention, and registers [`PRODUCER`] on it.
    pub async fn topic_with_retention(&self, topic: &str, retention: proto::Retention) {
        let request = proto::CreateTopicRequest {
            topic: topic.to_owned(),
            retention: Some(retention),
            ..Default::default()
        };
        self.topics().create_topic(request).await.unwrap();
        self.producer(topic, PRODUCER).await;
    }

    pub async fn producer(&self, topic: &str, id: &str) {
        self.register_producer(topic, id).await;
    }

    pub async fn register_producer(&self, topic: &str, id: &str) -> proto::Producer {
        let (topic, producer_id) = (topic.to_owned(), id.to_owned());
        let request = proto::RegisterProducerRequest { topic, producer_id, ..Default::default() };
        let registered = self.producers().register_producer(request).await.unwrap();
        registered.into_inner().producer.unwrap()
    }

    /// Registers a consumer that starts at the earliest message.
    pub async fn consumer(&self, topic: &str, id: &str) {
        let (topic, consumer_id) = (topic.to_owned(), id.to_owned());
        let request = proto::RegisterConsumerRequest { topic, consumer_id, ..Default::default() };
        self.consumers().register_consumer(request).await.unwrap();
    }

    /// Publishes as [`PRODUCER`]; returns the first offset.
    pub async fn publish<const N: usize>(&self, topic: &str, payloads: [&str; N]) -> i64 {
        let payloads = payloads.map(str::to_owned);
        self.try_publish(topic, PRODUCER, payloads).await.unwrap().first_offset
    }

    pub async fn try_publish(
        &self,
        topic: &str,
        producer: &str,
        payloads: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<proto::PublishResponse, Status> {
        let request = proto::PublishRequest {
            topic: topic.to_owned(),
            producer_id: producer.to_owned(),
            messages: payloads.into_iter().map(message).collect(),
            ..Default::default()
        };
        Ok(self.producers().publish(request).await?.into_inner())
    }

    /// Opens a stream in auto mode that waits for the lease.
    pub async fn consume(&self, topic: &str, consumer: &str) -> TestStream {
        self.open(Self::request(topic, consumer)).await
    }

    /// Opens a stream in manual mode that waits for the lease.
    pub async fn consume_manually(&self, topic: &str, consumer: &str) -> TestStream {
        let commit_mode = proto::CommitMode::Manual.into();
        self.open(proto::ConsumeRequest { commit_mode, ..Self::request(topic, consumer) }).await
    }

    /// Opens a stream in manual mode that takes over the lease, with a client name.
    pub async fn take_over(&self, topic: &str, consumer: &str, name: &str) -> TestStream {
        self.open(proto::ConsumeRequest {
            commit_mode: proto::CommitMode::Manual.into(),
            on_busy: proto::OnBusy::TakeOver.into(),
            client_name: name.to_owned(),
            ..Self::request(topic, consumer)
        })
        .await
    }

    pub async fn open(&self, request: impl IntoRequest<proto::ConsumeRequest>) -> TestStream {
        let request = request.into_request();
        let (topic, consumer) =
            (request.get_ref().topic.clone(), request.get_ref().consumer_id.clone());
        // Each stream has its own connection, so dropping it looks like a client that disconnects.
        let client = Client::connect(&self.endpoint).await.unwrap();
        let mut consumers = client.consumers().max_decoding_message_size(4 * 1024 * 1024);
        let stream = consumers.consume(request).await.unwrap().into_inner();
        TestStream::new(client, topic, consumer, stream)
    }

    pub fn request(topic: &str, consumer: &str) -> proto::ConsumeRequest {
        proto::ConsumeRequest {
            topic: topic.to_owned(),
            consumer_id: consumer.to_owned(),
            ..Default::default()
        }
    }

    pub async fn get_consumer(&self, topic: &str, consumer: &str) -> proto::Consumer {
        let (topic, consumer_id) = (topic.to_owned(), consumer.to_owned());
        let request = proto::GetConsumerRequest { topic, consumer_id };
        let response = self.consumers().get_consumer(request).await.unwrap();
        response.into_inner().consumer.unwrap()
    }

    /// The number of stored batches.
    pub async fn batches(&self) -> i64 {
        let count = "select count(*) from trunkline.batch";
        self.sql().await.query_one(count, &[]).await.unwrap().get(0)
    }

    /// Whether a topic has no registered consumers.
    pub async fn no_consumers(&self, topic: &str) -> bool {
        let request = proto::ListConsumersRequest { topic: topic.to_owned(), ..Default::default() };
        self.consumers().list_consumers(request).await.unwrap().into_inner().consumers.is_empty()
    }

    pub async fn position(&self, topic: &str, consumer: &str) -> i64 {
        self.get_consumer(topic, consumer).await.position
    }

    pub async fn pull(
        &self,
        topic: &str,
        consumer: &str,
        max: i32,
    ) -> Result<proto::PullResponse, Status> {
        let request = proto::PullRequest {
            topic: topic.to_owned(),
            consumer_id: consumer.to_owned(),
            max_messages: max,
            wait: None,
        };
        Ok(self.consumers().pull(request).await?.into_inner())
    }

    pub async fn get_topic(&self, topic: &str) -> proto::Topic {
        let request = proto::GetTopicRequest { topic: topic.to_owned() };
        self.topics().get_topic(request).await.unwrap().into_inner().topic.unwrap()
    }

    pub async fn delete_topic(&self, topic: &str) {
        let request = proto::DeleteTopicRequest { topic: topic.to_owned() };
        self.topics().delete_topic(request).await.unwrap();
    }

    /// The payloads on the first page of a topic's messages.
    pub async fn read_payloads(&self, topic: &str) -> Vec<String> {
        let request = proto::ReadMessagesRequest { topic: topic.to_owned(), ..Default::default() };
        let page = self.topics().read_messages(request).await.unwrap().into_inner();
        page.messages.iter().map(payload).collect()
    }

    /// Waits until a topic's log starts at an offset.
    pub async fn log_starts_at(&self, topic: &str, offset: i64) {
        let started = async || self.get_topic(topic).await.first_offset == offset;
        until("the log start offset moves", started).await;
    }

    /// Trims a topic to an offset; returns its log start offset.
    pub async fn trim(&self, topic: &str, offset: i64) -> i64 {
        let before = Some(proto::trim_topic_request::Before::Offset(offset));
        let request = proto::TrimTopicRequest { topic: topic.to_owned(), before };
        self.topics().trim_topic(request).await.unwrap().into_inner().first_offset
    }

    pub async fn seek(
        &self,
        topic: &str,
        consumer: &str,
        target: proto::seek_request::Target,
    ) -> Result<i64, Status> {
        let (topic, consumer_id) = (topic.to_owned(), consumer.to_owned());
        let request = proto::SeekRequest { topic, consumer_id, target: Some(target) };
        Ok(self.consumers().seek(request).await?.into_inner().position)
    }

    /// Terminates the sessions with an application name, of every broker on the database.
    pub async fn end_sessions(&self, application: &str) {
        let sql = self.sql().await;
        let ended = "select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and application_name = $1";
        sql.query(ended, &[&application]).await.unwrap();
    }

    /// The number of a broker's sessions of one kind that wait for a lock.
    pub async fn sessions_waiting_for_locks(&self, application: &str) -> i64 {
        let sql = self.sql().await;
        let waiting = "select count(*) from pg_stat_activity where datname = current_database()
    and application_name = $1 and wait_event_type = 'Lock'";
        sql.query_one(waiting, &[&application]).await.unwrap().get(0)
    }

    /// The number of the database's sessions that wait for a lock.
    pub async fn waiting_for_locks(&self) -> i64 {
        let sql = self.sql().await;
        let waiting = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'";
        sql.query_one(waiting, &[]).await.unwrap().get(0)
    }

    /// Waits until no lease is held or waited for. A lease is an advisory lock with two keys; the
    /// retention's lock has one.
    pub async fn all_leases_are_free(&self) {
        let sql = self.sql().await;
        until("all leases are free", async || {
            let locks = "select count(*) from pg_locks where locktype = 'advisory' and objsubid = 2
                and database = (select oid from pg_database where datname = current_database())";
            sql.query_one(locks, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
    }

    /// The number of stored messages, of all topics.
    pub async fn stored(&self) -> i64 {
        let sql = self.sql().await;
        sql.query_one("select count(*) from trunkline.message", &[]).await.unwrap().get(0)
    }
}

pub fn message(payload: impl Into<Bytes>) -> proto::NewMessage {
    proto::NewMessage { payload: payload.into(), ..Default::default() }
}
