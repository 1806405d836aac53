//! Records which deliveries of a worker's stream its client is sent: those that HTTP/2 has asked for. It asks
//! for the next event once the client has room for it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::Status;

use crate::{
    broker::UnsentEvents,
    proto::raw::{SubscribeResponse, subscribe_response::Event},
};

type Answer = Result<SubscribeResponse, Status>;

/// The events of a stream, as HTTP/2 asks for them.
pub struct SentEvents {
    pub(in crate::grpc) events: ReceiverStream<Answer>,
    pub(in crate::grpc) unsent: UnsentEvents,
}

impl Stream for SentEvents {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        let next = Pin::new(&mut self.events).poll_next(context);
        if let Poll::Ready(Some(Ok(SubscribeResponse { event: Some(event) }))) = &next
            && let Event::Deliveries(sent) = event
        {
            let sent = sent.deliveries.iter().map(|sent| sent.delivery.unsigned_abs());
            self.unsent.record_sent(sent);
        }
        next
    }
}
