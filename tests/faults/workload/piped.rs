//! A producer that has many requests under way on one stream.

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
    LAST_TRIES, PATIENCE, Way, World,
    producer::{is_final, messages},
    refused, rest, stage_of,
};
use crate::history::{Stage, Values, What};

/// Requests that may be under way.
const WINDOW: usize = 16;

/// A producer with a stream and sequences: whatever was refused, or never answered, is sent again
/// in its order.
pub struct PipedProducer {
    pub topic: Arc<str>,
    pub name: Arc<str>,
}

/// What is under way, in order: the operation and its values.
type UnderWay = VecDeque<(u64, Values)>;

impl PipedProducer {
    /// Publishes until it is enough.
    pub async fn run(self, world: Arc<World>, first: usize) {
        let mut chances = world.chances(&self.name);
        let mut way = Way::new(&world, first);
        let mut next = 0;
        let mut again: VecDeque<Values> = VecDeque::new();
        let mut give_up_at = None;
        while !world.enough.is_cancelled() || !again.is_empty() {
            if world.enough.is_cancelled() {
                let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + LAST_TRIES);
                if give_up_at < Instant::now() {
                    return world.alarm(format!("{} is stuck", self.name));
                }
            }
            if let Err(what) =
                self.stream(&world, &mut way, &mut next, &mut again, &mut chances).await
            {
                if is_final(&what) {
                    return world.alarm(format!("{} ends with {what:?}", self.name));
                }
                way.move_on(&what, &mut chances).await;
            }
        }
    }

    /// Publishes on one stream, until it breaks, something is refused, or it is enough; what is to
    /// be sent again is left in `again`.
    async fn stream(
        &self,
        world: &World,
        way: &mut Way,
        next: &mut i64,
        again: &mut VecDeque<Values>,
        chances: &mut Rng,
    ) -> Result<(), What> {
        let (requests, outgoing) = mpsc::channel(WINDOW);
        let opened = async {
            let stream = ReceiverStream::new(outgoing);
            Ok(way.producers().await?.publish_stream(stream).await?.into_inner())
        };
        let opened = tokio::time::timeout(PATIENCE, opened).await.unwrap_or_else(|_| silent());
        let mut answers = opened.map_err(|status| refused(&status).1)?;
        let mut under_way = UnderWay::new();
        let mut problem = None;
        loop {
            let sends = under_way.len() < WINDOW
                && problem.is_none()
                && (!world.enough.is_cancelled() || !again.is_empty());
            if sends {
                let values = again.pop_front().unwrap_or_else(|| {
                    let count = chances.i64(1..=10);
                    *next += count;
                    Values { producer: self.name.clone(), first: *next - count, count }
                });
                under_way.push_back((self.invoke(world, &values), values.clone()));
                if requests.send(self.request(&values)).await.is_ok() {
                    rest(chances, 0, 4 * world.leisure).await;
                    // Answers that are there are taken before more is sent.
                    if under_way.len() < WINDOW / 2 {
                        continue;
                    }
                }
            }
            if under_way.is_empty() {
                return problem.map_or(Ok(()), Err);
            }
            match self.answer(world, &mut answers, &mut under_way).await {
                Ok(()) => {}
                // Those behind it are answered too.
                Err(Refusal::One(what, values)) => {
                    again.push_back(values);
                    problem.get_or_insert(what);
                }
                Err(Refusal::All(what)) => {
                    again.extend(under_way.into_iter().map(|(_, values)| values));
                    again.make_contiguous().sort_by_key(|values| values.first);
                    return Err(problem.unwrap_or(what));
                }
            }
        }
    }

    /// Takes one answer.
    async fn answer(
        &self,
        world: &World,
        answers: &mut Streaming<PublishStreamResponse>,
        under_way: &mut UnderWay,
    ) -> Result<(), Refusal> {
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await;
        let answer = answer.unwrap_or_else(|_| silent()).and_then(|answer| {
            answer
                .and_then(|answer| answer.result)
                .ok_or_else(|| Status::cancelled("the stream ended"))
        });
        match answer {
            Ok(Answer::Receipt(receipt)) => {
                let (op, _) = under_way.pop_front().expect("one answer each");
                let (first_offset, duplicate) = (receipt.first_offset, receipt.duplicate);
                let published = What::Published { first_offset, duplicate };
                world.history.write(&self.name, op, Stage::Ok, published);
                Ok(())
            }
            Ok(Answer::Refusal(PublishRefusal { code, reason, message, .. })) => {
                let (op, values) = under_way.pop_front().expect("one answer each");
                let code = format!("{:?}", tonic::Code::from(code));
                let stage = stage_of(&reason);
                let what = What::Refused { code, reason, message };
                world.history.write(&self.name, op, stage, what.clone());
                Err(Refusal::One(what, values))
            }
            Err(status) => {
                let (_, what) = refused(&status);
                // What was under way may have been stored, whatever ended the stream.
                for (op, _) in &*under_way {
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

/// Why something must be sent again.
enum Refusal {
    One(What, Values),
    All(What),
}

fn silent<T>() -> Result<T, Status> {
    Err(Status::cancelled("no answer in time"))
}
