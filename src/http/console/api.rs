//! Calls of the broker's API, made for whoever looks at the console.
//!
//! They take the way of all calls, from authentication on. So a person may do here what a program with
//! the same token may do, and is limited and audited like it.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Status,
    body::Body,
    codegen::{
        Service,
        http::{HeaderValue, Request, Response, header::AUTHORIZATION},
    },
};

use crate::{
    grpc,
    http::port::Client,
    proto::{
        access_service_client::AccessServiceClient, consumer_service_client::ConsumerServiceClient,
        producer_service_client::ProducerServiceClient,
        subscription_service_client::SubscriptionServiceClient,
        topic_service_client::TopicServiceClient,
    },
};

/// The API, as somebody who looks at the console may use it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Calls {
    api: grpc::Api,
    connection: grpc::Connection,
    /// The token, as a header.
    authorization: Option<HeaderValue>,
}

impl Calls {
    pub(super) fn new(api: grpc::Api, client: &Client, authorization: Option<HeaderValue>) -> Self {
        let connection = grpc::Connection::new(Some(client.address), client.identity.clone());
        Self { api, connection, authorization }
    }

    pub(super) fn topics(&self) -> TopicServiceClient<Self> {
        TopicServiceClient::new(self.clone())
    }

    pub(super) fn producers(&self) -> ProducerServiceClient<Self> {
        ProducerServiceClient::new(self.clone())
    }

    pub(super) fn consumers(&self) -> ConsumerServiceClient<Self> {
        ConsumerServiceClient::new(self.clone())
    }

    pub(super) fn subscriptions(&self) -> SubscriptionServiceClient<Self> {
        SubscriptionServiceClient::new(self.clone())
    }

    pub(super) fn access(&self) -> AccessServiceClient<Self> {
        AccessServiceClient::new(self.clone())
    }
}

impl Service<Request<Body>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(self.connection.clone());
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let (send, answered) = oneshot::channel();
        let api = self.api.clone();
        // In a task of its own, as each call has one: it counts until its answer is taken.
        let call = grpc::serve_call(async move {
            let (parts, body) = grpc::answer(api, request).await.into_parts();
            let answer = match body.collect().await {
                Ok(whole) => Response::from_parts(parts, Body::new(whole)),
                Err(status) => status.into_http(),
            };
            // Fails if the visitor has gone.
            let _ = send.send(answer);
        });
        let call = AbortOnDropHandle::new(tokio::spawn(call));
        Box::pin(async move {
            let answer = answered.await;
            drop(call);
            Ok(answer.unwrap_or_else(|_| Status::cancelled("the call was given up").into_http()))
        })
    }
}
