//! A client that holds a consumer's stream, and opens it again whenever it ends.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tonic::{Status, Streaming};
use trunkline::proto::{self, CommitMode, ConsumeResponse, OnBusy, consume_response::Event};

use super::{Way, World, patient, refused, rest};
use crate::{
    check::MOST_IN_A_FRAME,
    history::{Stage, What},
    values,
};

/// A stream that says nothing for so long is left: it was asked to beat once a second, and a
/// database that does not answer is no reason not to.
const SILENCE: Duration = Duration::from_secs(8);

/// How many frames a client that commits takes before it does, at the most.
const MOST_UNCOMMITTED: u32 = 3;

/// A client that holds a consumer's stream.
#[derive(Clone)]
pub struct ConsumerClient {
    pub topic: Arc<str>,
    pub consumer: Arc<str>,
    pub name: Arc<str>,
    pub manual: bool,
    pub take_over: bool,
    /// Whether it leaves its stream now and then, and comes back at a broker by chance.
    pub leaves: bool,
    /// How many milliseconds it rests after a frame at the most.
    pub rests: u64,
}

/// Where a stream stands.
#[derive(Clone, Copy, Default)]
struct Standing {
    epoch: i64,
    delivered: i64,
    committed: i64,
}

impl ConsumerClient {
    /// Reads until all is read.
    pub async fn run(self, world: Arc<World>, first: usize) {
        let mut chances = world.chances(&self.name);
        let mut way = Way::new(&world, first);
        while !world.read.is_cancelled() {
            let (topic, consumer) = (self.topic.clone(), self.consumer.clone());
            let (manual, take_over) = (self.manual, self.take_over);
            let asked = What::Consume { topic, consumer, manual, take_over };
            let op = world.history.invoke(&self.name, asked);
            let mut standing = Standing::default();
            let ended = tokio::select! {
                ended = self.read(&world, &mut way, op, &mut standing, &mut chances) => ended,
                () = world.read.cancelled() => Ok(()),
            };
            let what = match ended {
                Ok(()) => {
                    world.history.write(&self.name, op, Stage::Ok, What::Left);
                    way.leave(&mut chances);
                    What::Left
                }
                Err(status) => {
                    let (stage, what) = refused(&status);
                    world.history.write(&self.name, op, stage, what.clone());
                    what
                }
            };
            // One that lost its stream may not know it yet, and commit what it has.
            if self.manual && standing.delivered > standing.committed && chances.bool() {
                self.commit(&world, &mut way, &mut standing).await;
            }
            way.move_on(&what, &mut chances).await;
        }
    }

    /// Reads one stream: until its end, or until the client has enough of it.
    async fn read(
        &self,
        world: &World,
        way: &mut Way,
        op: u64,
        standing: &mut Standing,
        chances: &mut Rng,
    ) -> Result<(), Status> {
        let opened = tokio::time::timeout(SILENCE, self.open(way, chances)).await;
        let Ok(opened) = opened else {
            self.heard_nothing(world, op);
            return Ok(());
        };
        let mut stream = opened?;
        let mut frames_left = match self.leaves {
            true => chances.usize(1..100),
            false => usize::MAX,
        };
        let mut uncommitted = 0;
        while frames_left > 0 {
            frames_left -= 1;
            let frame = tokio::time::timeout(SILENCE, stream.message()).await;
            let Ok(frame) = frame else {
                self.heard_nothing(world, op);
                return Ok(());
            };
            let Some(event) = frame?.map(|frame| frame.event) else {
                world.alarm(format!("{} was told that it has all ({op})", self.name));
                return Ok(());
            };
            let note = |what| world.history.write(&self.name, op, Stage::Note, what);
            match event {
                Some(Event::Attached(proto::Attached { position, head, epoch, seek_epoch })) => {
                    note(What::Attached { position, head, epoch, seek_epoch });
                    *standing = Standing { epoch, delivered: position, committed: position };
                }
                Some(Event::Repositioned(proto::Repositioned { position, epoch, .. })) => {
                    note(What::Repositioned { position, epoch });
                    *standing = Standing { epoch, delivered: position, committed: position };
                }
                Some(Event::Batch(batch)) => {
                    let mut runs = Vec::new();
                    batch.messages.iter().for_each(|message| values::add(&mut runs, message));
                    standing.delivered = runs.last().map_or(standing.delivered, |run| run.end());
                    note(What::Delivered { runs });
                    // At the end it may catch up.
                    if !world.enough.is_cancelled() {
                        rest(chances, 0, self.rests).await;
                    }
                }
                Some(Event::Gap(proto::Gap { first_offset, end_offset })) => {
                    note(What::Gap { from: first_offset, to: end_offset });
                    standing.delivered = end_offset;
                }
                Some(Event::CaughtUp(proto::CaughtUp { head })) => note(What::CaughtUp { head }),
                Some(Event::Heartbeat(_) | Event::Standby(_)) | None => {}
            }
            // Not after each frame: some of what was delivered is delivered again. But soon: where
            // a frame comes once a second, whoever waits for the position would wait too long.
            if self.manual && standing.delivered > standing.committed {
                uncommitted += 1;
                if chances.u8(..4) > 0 || uncommitted == MOST_UNCOMMITTED {
                    self.commit(world, way, standing).await;
                    uncommitted = 0;
                }
            }
        }
        Ok(())
    }

    async fn open(
        &self,
        way: &mut Way,
        chances: &mut Rng,
    ) -> Result<Streaming<ConsumeResponse>, Status> {
        // Whoever commits each few messages and never opens another stream falls behind.
        let few = if self.leaves { 7 } else { 100 };
        let request = proto::ConsumeRequest {
            topic: self.topic.to_string(),
            consumer_id: self.consumer.to_string(),
            commit_mode: if self.manual { CommitMode::Manual } else { CommitMode::Auto }.into(),
            on_busy: if self.take_over { OnBusy::TakeOver } else { OnBusy::Wait }.into(),
            heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            client_name: self.name.to_string(),
            max_batch_messages: match self.manual {
                true => chances.choice([0, 0, few, 500]).unwrap(),
                false => chances.choice([few, MOST_IN_A_FRAME]).unwrap(),
            },
            ..Default::default()
        };
        Ok(way.consumers().await?.consume(request).await?.into_inner())
    }

    fn heard_nothing(&self, world: &World, op: u64) {
        if !world.may_be_silent {
            world.alarm(format!("{} heard nothing for {SILENCE:?} ({op})", self.name));
        }
    }

    async fn commit(&self, world: &World, way: &mut Way, standing: &mut Standing) {
        let Standing { epoch, delivered: position, .. } = *standing;
        let (topic, consumer) = (self.topic.clone(), self.consumer.clone());
        let asked = What::Commit { topic, consumer, epoch, position };
        let op = world.history.invoke(&self.name, asked);
        let request = proto::CommitRequest {
            topic: self.topic.to_string(),
            consumer_id: self.consumer.to_string(),
            epoch,
            position,
        };
        match async { way.consumers().await?.commit(patient(request)).await }.await {
            Ok(_) => {
                world.history.write(&self.name, op, Stage::Ok, What::Committed);
                standing.committed = position;
            }
            Err(status) => {
                let (stage, what) = refused(&status);
                world.history.write(&self.name, op, stage, what);
            }
        }
    }
}
