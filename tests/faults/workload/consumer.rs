//! A client that reads a consumer's stream, and reopens it whenever it ends.

use std::sync::Arc;

use fastrand::Rng;
use tonic::{Status, Streaming};
use trunkline::proto::{self, CommitMode, ConsumeResponse, OnBusy, consume_response::Event};

use super::{BrokerConnection, SILENCE, World, pause, refused, with_deadline};
use crate::{
    check::MAX_IN_A_FRAME,
    history::{Stage, What},
    values,
};

/// The most frames that a client in manual mode receives before it commits.
const MAX_UNCOMMITTED: u32 = 3;

/// A client that reads a consumer's stream.
#[derive(Clone)]
pub struct ConsumerClient {
    pub topic: Arc<str>,
    pub consumer: Arc<str>,
    pub name: Arc<str>,
    pub manual: bool,
    pub take_over: bool,
    /// Whether it leaves its stream now and then, and continues on a random broker.
    pub leaves: bool,
    /// The longest pause after a frame, in milliseconds.
    pub max_rest: u64,
}

/// The state of a stream.
#[derive(Clone, Copy, Default)]
struct StreamState {
    epoch: i64,
    delivered: i64,
    committed: i64,
}

impl ConsumerClient {
    /// Reads until reading stops.
    pub async fn run(self, world: Arc<World>, first: usize) {
        let mut rng = world.rng(&self.name);
        let mut connection = BrokerConnection::new(&world, first, &self.principal());
        while !world.stop_reading.is_cancelled() {
            let (topic, consumer) = (self.topic.clone(), self.consumer.clone());
            let (manual, take_over) = (self.manual, self.take_over);
            let invocation = What::Consume { topic, consumer, manual, take_over };
            let op = world.history.invoke(&self.name, invocation);
            let mut state = StreamState::default();
            let ended = tokio::select! {
                ended = self.read(&world, &mut connection, op, &mut state, &mut rng) => ended,
                () = world.stop_reading.cancelled() => Ok(()),
            };
            let what = match ended {
                Ok(()) => {
                    world.history.write(&self.name, op, Stage::Ok, What::Left);
                    connection.leave(&mut rng);
                    What::Left
                }
                Err(status) => {
                    let (stage, what) = refused(&status);
                    world.history.write(&self.name, op, stage, what.clone());
                    what
                }
            };
            // A client may commit before it knows that it lost its stream.
            if self.manual && state.delivered > state.committed && rng.bool() {
                self.commit(&world, &mut connection, &mut state).await;
            }
            connection.move_on(&what, &mut rng).await;
        }
    }

    /// Reads one stream until it ends or the client leaves it.
    async fn read(
        &self,
        world: &World,
        connection: &mut BrokerConnection,
        op: u64,
        state: &mut StreamState,
        rng: &mut Rng,
    ) -> Result<(), Status> {
        let opened = tokio::time::timeout(SILENCE, self.open(connection, rng)).await;
        let Ok(opened) = opened else {
            world.report_silence(&self.name, op, "it called a broker");
            return Ok(());
        };
        let mut stream = opened?;
        let mut last = "it opened its stream";
        let mut frames_left = match self.leaves {
            true => rng.usize(1..100),
            false => usize::MAX,
        };
        let mut uncommitted = 0;
        while frames_left > 0 {
            frames_left -= 1;
            let frame = tokio::time::timeout(SILENCE, stream.message()).await;
            let Ok(frame) = frame else {
                world.report_silence(&self.name, op, last);
                return Ok(());
            };
            let Some(event) = frame?.map(|frame| frame.event) else {
                world.alarm(format!("the stream of {} ended without a status ({op})", self.name));
                return Ok(());
            };
            last = event.as_ref().map_or("a frame without an event", kind_of);
            let note = |what| world.history.write(&self.name, op, Stage::Note, what);
            match event {
                Some(Event::Attached(proto::Attached { position, head, epoch, seek_epoch })) => {
                    note(What::Attached { position, head, epoch, seek_epoch });
                    *state = StreamState { epoch, delivered: position, committed: position };
                }
                Some(Event::Repositioned(proto::Repositioned { position, epoch, .. })) => {
                    note(What::Repositioned { position, epoch });
                    *state = StreamState { epoch, delivered: position, committed: position };
                }
                Some(Event::Batch(batch)) => {
                    let mut runs = Vec::new();
                    batch.messages.iter().for_each(|message| values::add(&mut runs, message));
                    state.delivered = runs.last().map_or(state.delivered, |run| run.end());
                    note(What::Delivered { runs });
                    // At the end of a run it must catch up.
                    if !world.stop_writing.is_cancelled() {
                        pause(rng, 0, self.max_rest).await;
                    }
                }
                Some(Event::Gap(proto::Gap { first_offset, end_offset })) => {
                    note(What::Gap { from: first_offset, to: end_offset });
                    state.delivered = end_offset;
                }
                Some(Event::CaughtUp(proto::CaughtUp { head })) => note(What::CaughtUp { head }),
                Some(Event::Heartbeat(_) | Event::Standby(_)) | None => {}
            }
            // Not after each frame, so that some messages are delivered again; but soon, as frames
            // may come only once a second, and runs wait for the position.
            if self.manual && state.delivered > state.committed {
                uncommitted += 1;
                if rng.u8(..4) > 0 || uncommitted == MAX_UNCOMMITTED {
                    self.commit(world, connection, state).await;
                    uncommitted = 0;
                }
            }
        }
        Ok(())
    }

    /// All clients of a consumer are one principal.
    pub fn principal(&self) -> String {
        format!("{}-{}", self.topic, self.consumer)
    }

    async fn open(
        &self,
        connection: &mut BrokerConnection,
        rng: &mut Rng,
    ) -> Result<Streaming<ConsumeResponse>, Status> {
        // A client that commits every few messages and never reopens its stream falls behind.
        let few = if self.leaves { 7 } else { 100 };
        let request = proto::ConsumeRequest {
            topic: self.topic.to_string(),
            consumer_id: self.consumer.to_string(),
            commit_mode: if self.manual { CommitMode::Manual } else { CommitMode::Auto }.into(),
            on_busy: if self.take_over { OnBusy::TakeOver } else { OnBusy::Wait }.into(),
            heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            client_name: self.name.to_string(),
            max_batch_messages: match self.manual {
                true => rng.choice([0, 0, few, 500]).unwrap(),
                false => rng.choice([few, MAX_IN_A_FRAME]).unwrap(),
            },
            ..Default::default()
        };
        Ok(connection.consumers().await?.consume(request).await?.into_inner())
    }

    async fn commit(
        &self,
        world: &World,
        connection: &mut BrokerConnection,
        state: &mut StreamState,
    ) {
        let StreamState { epoch, delivered: position, .. } = *state;
        let (topic, consumer) = (self.topic.clone(), self.consumer.clone());
        let invocation = What::Commit { topic, consumer, epoch, position };
        let op = world.history.invoke(&self.name, invocation);
        let request = proto::CommitRequest {
            topic: self.topic.to_string(),
            consumer_id: self.consumer.to_string(),
            epoch,
            position,
        };
        match async { connection.consumers().await?.commit(with_deadline(request)).await }.await {
            Ok(_) => {
                world.history.write(&self.name, op, Stage::Ok, What::Committed);
                state.committed = position;
            }
            Err(status) => {
                let (stage, what) = refused(&status);
                world.history.write(&self.name, op, stage, what);
            }
        }
    }
}

/// The kind of a frame, for a report.
fn kind_of(event: &Event) -> &'static str {
    match event {
        Event::Attached(_) => "attached",
        Event::Batch(_) => "a batch",
        Event::CaughtUp(_) => "caught_up",
        Event::Heartbeat(_) => "a heartbeat",
        Event::Standby(_) => "standby",
        Event::Gap(_) => "a gap",
        Event::Repositioned(_) => "repositioned",
    }
}
