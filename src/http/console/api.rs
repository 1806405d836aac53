//! Calls of the broker's API, made for whoever looks at the console.
//!
//! They take the way of all calls, from authentication on. So what a person may do here, what is
//! audited and what is limited is what a program with the same token may do, and nothing more.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use futures::FutureExt as _;
use tonic::{
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
        producer_service_client::ProducerServiceClient, topic_service_client::TopicServiceClient,
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
        Box::pin(grpc::answer(self.api.clone(), request).map(Ok))
    }
}
