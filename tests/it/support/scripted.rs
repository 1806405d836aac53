//! A server whose answers the test scripts: it hands every stream and every commit of a client to
//! the test, which plays the broker.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use trunkline::proto::{
    self, CommitRequest, CommitResponse, ConsumeRequest, ConsumeResponse, PublishStreamRequest,
    PublishStreamResponse, consume_response::Event, consumer_service_server,
    producer_service_server, publish_stream_response::Result as Answer,
};

use super::soon;

type Answered<T> = Result<Response<T>, Status>;

/// The test's side of the server.
pub struct ScriptedBroker {
    pub endpoint: String,
    publishes: mpsc::Receiver<ScriptedPublish>,
    consumes: mpsc::Receiver<ScriptedConsume>,
    commits: mpsc::Receiver<ScriptedCommit>,
    pub state: Arc<State>,
    serving: JoinHandle<()>,
}

/// What unary calls are answered, and what they asked.
#[derive(Default)]
pub struct State {
    /// The current registration of the producer, if any.
    pub producer: Mutex<Option<proto::Producer>>,
    /// How often the producer was registered.
    pub registered: AtomicU32,
    /// The `authorization` of the last call.
    pub authorization: Mutex<Option<String>>,
    /// The only token that may ask about the producer, if not all may.
    pub accepted: Mutex<Option<String>>,
    /// How often somebody asked about the producer.
    pub asked: AtomicU32,
}

/// A publish stream that a client opened.
pub struct ScriptedPublish {
    /// The `authorization` that the stream was opened with.
    pub authorization: Option<String>,
    requests: Streaming<PublishStreamRequest>,
    answers: mpsc::Sender<Result<PublishStreamResponse, Status>>,
}

/// A consumer's stream that a client opened.
pub struct ScriptedConsume {
    pub request: ConsumeRequest,
    /// The `authorization` that the stream was opened with.
    pub authorization: Option<String>,
    frames: mpsc::Sender<Result<ConsumeResponse, Status>>,
}

/// A commit that waits for its answer.
pub struct ScriptedCommit {
    pub request: CommitRequest,
    answer: tokio::sync::oneshot::Sender<Result<CommitResponse, Status>>,
}

impl ScriptedBroker {
    pub async fn start() -> Self {
        Self::start_with(Server::builder(), "http", "127.0.0.1").await
    }

    /// Starts a server that may require certificates, under a host name that they may contain.
    pub async fn start_with(mut server: Server, scheme: &str, host: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("{scheme}://{host}:{}", listener.local_addr().unwrap().port());
        let state = Arc::new(State::default());
        *state.producer.lock().unwrap() = Some(proto::Producer::default());
        let (publishes, opened_publishes) = mpsc::channel(16);
        let (consumes, opened_consumes) = mpsc::channel(16);
        let (commits, made_commits) = mpsc::channel(16);
        let producers = Producers { state: state.clone(), publishes };
        let consumers = Consumers { consumes, commits };
        let router = server
            .add_service(producer_service_server::ProducerServiceServer::new(producers))
            .add_service(consumer_service_server::ConsumerServiceServer::new(consumers));
        let serving = tokio::spawn(async move {
            let _ = router.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Self {
            endpoint,
            publishes: opened_publishes,
            consumes: opened_consumes,
            commits: made_commits,
            state,
            serving,
        }
    }

    pub async fn publish_stream(&mut self) -> ScriptedPublish {
        soon("a publish stream", self.publishes.recv()).await.unwrap()
    }

    pub async fn consume(&mut self) -> ScriptedConsume {
        soon("a consumer's stream", self.consumes.recv()).await.unwrap()
    }

    pub async fn commit(&mut self) -> ScriptedCommit {
        soon("a commit", self.commits.recv()).await.unwrap()
    }

    /// The next commit, which is answered as stored.
    pub async fn stored_commit(&mut self) -> CommitRequest {
        let commit = self.commit().await;
        let request = commit.request.clone();
        commit.answer(Ok(()));
        request
    }

    /// Whether a commit waits for an answer.
    pub fn has_commit(&mut self) -> bool {
        !self.commits.is_empty()
    }
}

impl Drop for ScriptedBroker {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl ScriptedPublish {
    pub async fn request(&mut self) -> PublishStreamRequest {
        soon("a request", self.requests.message()).await.unwrap().unwrap()
    }

    /// The next request's sequence and payloads.
    pub async fn payloads(&mut self) -> (i64, Vec<String>) {
        let request = self.request().await;
        let text =
            |message: &proto::NewMessage| String::from_utf8(message.payload.to_vec()).unwrap();
        (request.sequence.unwrap(), request.messages.iter().map(text).collect())
    }

    pub async fn receipt(&self, first_offset: i64, duplicate: bool) {
        let receipt = proto::PublishReceipt { first_offset, count: 0, duplicate };
        self.answer(Some(Answer::Receipt(receipt))).await;
    }

    pub async fn refuse(&self, code: tonic::Code, reason: &str) {
        self.answer_with_refusal(code, reason, None).await;
    }

    /// Refuses, and asks to come back after a delay.
    pub async fn refuse_for(&self, delay: Duration, code: tonic::Code, reason: &str) {
        let delay = prost_types::Duration::try_from(delay).unwrap();
        self.answer_with_refusal(code, reason, Some(delay)).await;
    }

    async fn answer_with_refusal(
        &self,
        code: tonic::Code,
        reason: &str,
        retry_delay: Option<prost_types::Duration>,
    ) {
        let metadata = [("topic".to_owned(), "orders".to_owned())].into();
        let refusal = proto::PublishRefusal {
            code: code.into(),
            reason: reason.to_owned(),
            message: format!("refused as {reason}"),
            metadata,
            retry_delay,
        };
        self.answer(Some(Answer::Refusal(refusal))).await;
    }

    pub async fn answer(&self, result: Option<Answer>) {
        self.answers.send(Ok(PublishStreamResponse { result })).await.unwrap();
    }

    /// Ends the stream with a status.
    pub async fn end(self, status: Status) {
        self.answers.send(Err(status)).await.unwrap();
    }
}

impl ScriptedConsume {
    pub async fn frame(&self, event: Event) {
        self.frames.send(Ok(ConsumeResponse { event: Some(event) })).await.unwrap();
    }

    pub async fn attach(&self, position: i64, epoch: i64) {
        self.attach_after_seek(position, epoch, 0).await;
    }

    pub async fn attach_after_seek(&self, position: i64, epoch: i64, seek_epoch: i64) {
        let attached = proto::Attached { position, head: 100, epoch, seek_epoch };
        self.frame(Event::Attached(attached)).await;
    }

    /// Sends a frame of messages with these offsets, which are also their payloads.
    pub async fn messages(&self, offsets: std::ops::Range<i64>) {
        let messages = offsets
            .map(|offset| proto::Message {
                offset,
                payload: offset.to_string().into(),
                ..Default::default()
            })
            .collect();
        self.frame(Event::Batch(proto::MessageBatch { messages })).await;
    }

    /// Sends a frame of a kind that the client does not know.
    pub async fn unknown_frame(&self) {
        self.frames.send(Ok(ConsumeResponse { event: None })).await.unwrap();
    }

    /// Ends the stream with a status.
    pub async fn end(self, status: Status) {
        self.frames.send(Err(status)).await.unwrap();
    }

    /// Waits until the client disconnects.
    pub async fn client_disconnects(&self) {
        soon("the client disconnects", self.frames.closed()).await;
    }
}

impl ScriptedCommit {
    pub fn answer(self, answer: Result<(), Status>) {
        let position = self.request.position;
        // A client that was closed no longer waits for the answer.
        let _ = self.answer.send(answer.map(|()| CommitResponse { position }));
    }
}

fn authorization<T>(request: &Request<T>) -> Option<String> {
    let value = request.metadata().get("authorization");
    value.map(|value| value.to_str().unwrap().to_owned())
}

struct Producers {
    state: Arc<State>,
    publishes: mpsc::Sender<ScriptedPublish>,
}

#[tonic::async_trait]
impl producer_service_server::ProducerService for Producers {
    async fn register_producer(
        &self,
        request: Request<proto::RegisterProducerRequest>,
    ) -> Answered<proto::RegisterProducerResponse> {
        self.state.registered.fetch_add(1, Ordering::AcqRel);
        let mut producer = self.state.producer.lock().unwrap();
        let producer = producer.get_or_insert_default();
        producer.epoch += i64::from(request.get_ref().fence);
        let producer = Some(producer.clone());
        Ok(Response::new(proto::RegisterProducerResponse { producer, existed: false }))
    }

    async fn get_producer(
        &self,
        request: Request<proto::GetProducerRequest>,
    ) -> Answered<proto::GetProducerResponse> {
        let authorization = authorization(&request);
        self.state.asked.fetch_add(1, Ordering::AcqRel);
        let accepted = self.state.accepted.lock().unwrap().clone();
        if accepted.is_some_and(|token| authorization != Some(format!("Bearer {token}"))) {
            return Err(Status::unauthenticated("the token is unknown"));
        }
        *self.state.authorization.lock().unwrap() = authorization;
        let id = request.get_ref().producer_id.clone();
        let mut found = self.state.producer.lock().unwrap();
        let producer = found.as_mut().ok_or_else(|| Status::not_found("no such producer"))?;
        producer.producer_id = id;
        Ok(Response::new(proto::GetProducerResponse { producer: Some(producer.clone()) }))
    }

    async fn unregister_producer(
        &self,
        _: Request<proto::UnregisterProducerRequest>,
    ) -> Answered<proto::UnregisterProducerResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_producers(
        &self,
        _: Request<proto::ListProducersRequest>,
    ) -> Answered<proto::ListProducersResponse> {
        Err(Status::unimplemented(""))
    }

    async fn publish(&self, _: Request<proto::PublishRequest>) -> Answered<proto::PublishResponse> {
        Err(Status::unimplemented(""))
    }

    type PublishStreamStream = ReceiverStream<Result<PublishStreamResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishStreamRequest>>,
    ) -> Answered<Self::PublishStreamStream> {
        let (answers, outgoing) = mpsc::channel(64);
        let authorization = authorization(&request);
        let opened = ScriptedPublish { authorization, requests: request.into_inner(), answers };
        self.publishes.send(opened).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

struct Consumers {
    consumes: mpsc::Sender<ScriptedConsume>,
    commits: mpsc::Sender<ScriptedCommit>,
}

#[tonic::async_trait]
impl consumer_service_server::ConsumerService for Consumers {
    type ConsumeStream = ReceiverStream<Result<ConsumeResponse, Status>>;

    async fn consume(&self, request: Request<ConsumeRequest>) -> Answered<Self::ConsumeStream> {
        let (frames, outgoing) = mpsc::channel(1);
        let authorization = authorization(&request);
        let opened = ScriptedConsume { authorization, request: request.into_inner(), frames };
        self.consumes.send(opened).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Answered<CommitResponse> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let commit = ScriptedCommit { request: request.into_inner(), answer };
        let over = || Status::unavailable("the test is over");
        self.commits.send(commit).await.map_err(|_| over())?;
        Ok(Response::new(answered.await.map_err(|_| over())??))
    }

    async fn register_consumer(
        &self,
        request: Request<proto::RegisterConsumerRequest>,
    ) -> Answered<proto::RegisterConsumerResponse> {
        match request.get_ref().if_missing {
            true => Ok(Response::new(proto::RegisterConsumerResponse {
                existed: true,
                ..Default::default()
            })),
            false => Err(Status::already_exists("it is registered already")),
        }
    }

    async fn unregister_consumer(
        &self,
        _: Request<proto::UnregisterConsumerRequest>,
    ) -> Answered<proto::UnregisterConsumerResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_consumers(
        &self,
        _: Request<proto::ListConsumersRequest>,
    ) -> Answered<proto::ListConsumersResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_consumer(
        &self,
        _: Request<proto::GetConsumerRequest>,
    ) -> Answered<proto::GetConsumerResponse> {
        Err(Status::unimplemented(""))
    }

    async fn pull(&self, _: Request<proto::PullRequest>) -> Answered<proto::PullResponse> {
        Err(Status::unimplemented(""))
    }

    async fn seek(&self, _: Request<proto::SeekRequest>) -> Answered<proto::SeekResponse> {
        Err(Status::unimplemented(""))
    }
}
