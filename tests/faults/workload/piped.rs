//! A producer with many requests in flight on one stream.

use std::{collections::VecDeque, sync::Arc};

use fastrand::Rng;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use trunkline::proto::{
    PublishRefusal, PublishStreamRequest, PublishStreamResponse,
    publish_stream_response::Result as Answer,
};

use super::{
    BrokerConnection, FINAL_RETRIES, TIMEOUT, World, pause,
    producer::{is_final, messages},
    refused, stage_of,
};
use crate::history::{Stage, Values, What};

/// The most requests in flight.
const WINDOW: usize = 16;

/// A producer with a stream and sequences. Requests that were refused or not answered are sent
/// again in order.
pub struct PipedProducer {
    pub topic: Arc<str>,
    pub name: Arc<str>,
}

/// The operations in flight with their values, in order.
type InFlight = VecDeque<(u64, Values)>;

impl PipedProducer {
    /// Publishes until writing stops.
    pub async fn run(self, world: Arc<World>, first: usize) {
        let mut rng = world.rng(&self.name);
        let mut connection = BrokerConnection::new(&world, first, &self.name);
        let mut next = 0;
        let mut again: VecDeque<Values> = VecDeque::new();
        let mut give_up_at = None;
        while !world.stop_writing.is_cancelled() || !again.is_empty() {
            if world.stop_writing.is_cancelled() {
                let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + FINAL_RETRIES);
                if give_up_at < Instant::now() {
                    return world.alarm(format!("{} is stuck", self.name));
                }
            }
            if let Err(what) =
                self.stream(&world, &mut connection, &mut next, &mut again, &mut rng).await
            {
                if is_final(&what) {
                    return world.alarm(format!("{} ends with {what:?}", self.name));
                }
                connection.move_on(&what, &mut rng).await;
            }
        }
    }

    /// Publishes on one stream until it breaks, a request is refused, or writing stops. Leaves the
    /// values to send again in `again`.
    async fn stream(
        &self,
        world: &World,
        connection: &mut BrokerConnection,
        next: &mut i64,
        again: &mut VecDeque<Values>,
        rng: &mut Rng,
    ) -> Result<(), What> {
        let (requests, outgoing) = mpsc::channel(WINDOW);
        let opened = async {
            let stream = ReceiverStream::new(outgoing);
            Ok(connection.producers().await?.publish_stream(stream).await?.into_inner())
        };
        let opened = tokio::time::timeout(TIMEOUT, opened).await.unwrap_or_else(|_| silent());
        let mut answers = opened.map_err(|status| refused(&status).1)?;
        let mut in_flight = InFlight::new();
        let mut problem = None;
        loop {
            let sends = in_flight.len() < WINDOW
                && problem.is_none()
                && (!world.stop_writing.is_cancelled() || !again.is_empty());
            if sends {
                let values = again.pop_front().unwrap_or_else(|| {
                    let count = rng.i64(1..=10);
                    *next += count;
                    Values { producer: self.name.clone(), first: *next - count, count }
                });
                in_flight.push_back((self.invoke(world, &values), values.clone()));
                if requests.send(self.request(&values)).await.is_ok() {
                    pause(rng, 0, 4 * world.slowdown).await;
                    // With many in flight, answers are read before more is sent.
                    if in_flight.len() < WINDOW / 2 {
                        continue;
                    }
                }
            }
            if in_flight.is_empty() {
                return problem.map_or(Ok(()), Err);
            }
            match self.answer(world, &mut answers, &mut in_flight).await {
                Ok(()) => {}
                // The requests after it are answered, too.
                Err(Refusal::One(what, values)) => {
                    again.push_back(values);
                    problem.get_or_insert(what);
                }
                Err(Refusal::All(what)) => {
                    again.extend(in_flight.into_iter().map(|(_, values)| values));
                    again.make_contiguous().sort_by_key(|values| values.first);
                    return Err(problem.unwrap_or(what));
                }
            }
        }
    }

    /// Receives one answer.
    async fn answer(
        &self,
        world: &World,
        answers: &mut Streaming<PublishStreamResponse>,
        in_flight: &mut InFlight,
    ) -> Result<(), Refusal> {
        let answer = tokio::time::timeout(TIMEOUT, answers.message()).await;
        let answer = answer.unwrap_or_else(|_| silent()).and_then(|answer| {
            answer
                .and_then(|answer| answer.result)
                .ok_or_else(|| Status::cancelled("the stream ended"))
        });
        match answer {
            Ok(Answer::Receipt(receipt)) => {
                let (op, _) = in_flight.pop_front().expect("there is one answer for each request");
                let (first_offset, duplicate) = (receipt.first_offset, receipt.duplicate);
                let published = What::Published { first_offset, duplicate };
                world.history.write(&self.name, op, Stage::Ok, published);
                Ok(())
            }
            Ok(Answer::Refusal(PublishRefusal { code, reason, message, .. })) => {
                let (op, values) =
                    in_flight.pop_front().expect("there is one answer for each request");
                let code = format!("{:?}", tonic::Code::from(code));
                let stage = stage_of(&reason);
                let what = What::Refused { code, reason, message };
                world.history.write(&self.name, op, stage, what.clone());
                Err(Refusal::One(what, values))
            }
            Err(status) => {
                let (_, what) = refused(&status);
                // Requests in flight may have been stored, whatever ended the stream.
                for (op, _) in &*in_flight {
                    world.history.write(&self.name, *op, Stage::Info, what.clone());
                }
                Err(Refusal::All(what))
            }
        }
    }

    fn invoke(&self, world: &World, values: &Values) -> u64 {
        let sequence = Some(values.first);
        let (topic, values) = (self.topic.clone(), values.clone());
        world.history.invoke(&self.name, What::Publish { topic, values, sequence })
    }

    fn request(&self, values: &Values) -> PublishStreamRequest {
        PublishStreamRequest {
            topic: self.topic.to_string(),
            producer_id: self.name.to_string(),
            messages: messages(values),
            sequence: Some(values.first),
            ..Default::default()
        }
    }
}

enum Refusal {
    /// Of one request.
    One(What, Values),
    /// Of everything in flight.
    All(What),
}

fn silent<T>() -> Result<T, Status> {
    Err(Status::cancelled("no answer in time"))
}
