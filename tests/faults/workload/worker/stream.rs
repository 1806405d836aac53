//! A worker that has a stream.

use std::collections::VecDeque;

use fastrand::Rng;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use trunkline::proto::{
    self, SubscribeRequest, SubscribeResponse, subscribe_request::Request,
    subscribe_response::Event,
};

use super::{
    WorkerClient, is_diligent,
    verdicts::{encode, in_calls},
};
use crate::{
    history::{Settlement, Stage, What},
    workload::{BrokerConnection, SILENCE, World, pause, refused},
};

/// How many requests may wait to be sent. Further ones wait in the worker until the next event.
const WINDOW: usize = 64;

/// How many settlements are held back at most until the next event.
const HELD: usize = 2;

/// The most requests that settle messages after an event.
const REQUESTS: usize = 2;

/// An open stream.
struct Work<'a> {
    worker: &'a WorkerClient,
    world: &'a World,
    op: u64,
    events: Streaming<SubscribeResponse>,
    /// `None` once the worker has closed its side.
    requests: Option<mpsc::Sender<SubscribeRequest>>,
    unsent: VecDeque<SubscribeRequest>,
    /// What is to be settled, in any order.
    held: Vec<Settlement>,
    /// The operations that settle messages and have no answer yet, in order. Their numbers are
    /// those of the requests.
    unanswered: VecDeque<u64>,
}

/// How a stream goes on after an event.
#[derive(PartialEq, Eq)]
enum Next {
    Continue,
    End,
}

impl WorkerClient {
    /// Opens a stream, and works until it ends or the worker leaves it.
    pub(super) async fn work_on_a_stream(
        &self,
        world: &World,
        connection: &mut BrokerConnection,
        rng: &mut Rng,
    ) {
        let op = world.history.invoke(&self.name, self.taking());
        let mut unanswered = VecDeque::new();
        let ended = match timeout(SILENCE, self.open(world, connection, op, rng)).await {
            Ok(Ok(mut work)) => {
                let ended = work.run(rng).await;
                unanswered = work.unanswered;
                ended
            }
            Ok(Err(status)) => Err(status),
            Err(_) => {
                world.report_silence(&self.name, op, "it called a broker");
                Ok(())
            }
        };
        let (stage, what) = match &ended {
            Ok(()) => (Stage::Ok, What::Left),
            Err(status) => refused(status),
        };
        world.history.write(&self.name, op, stage, what.clone());
        // They may have been made, whatever ended the stream.
        for op in unanswered {
            world.history.write(&self.name, op, Stage::Info, what.clone());
        }
        if ended.is_ok() {
            connection.leave(rng);
        }
        connection.move_on(&what, rng).await;
    }

    async fn open<'a>(
        &'a self,
        world: &'a World,
        connection: &mut BrokerConnection,
        op: u64,
        rng: &mut Rng,
    ) -> Result<Work<'a>, Status> {
        let open = proto::OpenSubscription {
            topic: self.topic.to_string(),
            subscription_id: self.subscription.to_string(),
            // It must settle them within a second.
            max_outstanding_messages: [50, 200, 500][rng.usize(..3)],
            heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..Default::default()
        };
        let (requests, outgoing) = mpsc::channel(WINDOW);
        // There is room for the first one.
        let _ = requests.try_send(SubscribeRequest { request: Some(Request::Open(open)) });
        let mut subscriptions = connection.subscriptions().await?;
        let events = subscriptions.subscribe(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Work {
            worker: self,
            world,
            op,
            events,
            requests: Some(requests),
            unsent: VecDeque::new(),
            held: Vec::new(),
            unanswered: VecDeque::new(),
        })
    }
}

impl Work<'_> {
    async fn run(&mut self, rng: &mut Rng) -> Result<(), Status> {
        let mut last = "it opened its stream";
        let mut events_left = rng.usize(50..500);
        let mut is_first = true;
        loop {
            let Ok(event) = timeout(SILENCE, self.events.message()).await else {
                self.world.report_silence(&self.worker.name, self.op, last);
                return Ok(());
            };
            let Some(event) = event?.map(|event| event.event) else {
                self.check_end();
                return Ok(());
            };
            last = event.as_ref().map_or("an event without content", kind_of);
            if is_first != matches!(event, Some(Event::Attached(_))) {
                self.alarm(&format!("got {last} where it must not come"));
            }
            is_first = false;
            match event {
                Some(Event::Deliveries(proto::Deliveries { deliveries })) => {
                    let settlements = self.worker.take(self.world, self.op, deliveries, rng);
                    self.held.extend(settlements);
                    if !is_diligent(self.world) {
                        pause(rng, 0, 10).await;
                    }
                }
                Some(Event::Settled(settled)) => self.note_answer(settled),
                Some(
                    Event::Attached(_)
                    | Event::CaughtUp(_)
                    | Event::Heartbeat(_)
                    | Event::Stalled(_),
                )
                | None => {}
            }
            events_left = events_left.saturating_sub(1);
            let leaves = events_left == 0 && !is_diligent(self.world);
            if self.go_on(leaves, rng) == Next::End {
                return Ok(());
            }
        }
    }

    /// Settles messages, or leaves the stream: with messages that it has not settled, or after it
    /// has settled all that it has.
    fn go_on(&mut self, leaves: bool, rng: &mut Rng) -> Next {
        if self.requests.is_none() {
            return Next::Continue;
        }
        if leaves && rng.bool() {
            return Next::End;
        }
        if leaves {
            self.unsent.push_back(SubscribeRequest {
                request: Some(Request::Stop(proto::StopDelivery {})),
            });
        }
        let kept = match leaves || is_diligent(self.world) {
            true => 0,
            false => rng.usize(..=HELD).min(self.held.len()),
        };
        rng.shuffle(&mut self.held);
        let settlements = self.held.split_off(kept);
        for settlements in in_calls(&settlements, REQUESTS, rng) {
            self.settle(settlements);
        }
        self.send();
        if leaves {
            // What is not sent by now has an unknown outcome.
            self.requests = None;
        }
        Next::Continue
    }

    fn settle(&mut self, settlements: Vec<Settlement>) {
        let encoded = settlements.iter().map(encode).collect();
        let invocation = self.worker.settling(settlements);
        let op = self.world.history.invoke(&self.worker.name, invocation);
        let request = proto::SettleMessages { settlements: encoded, request_id: op as i64 };
        self.unsent.push_back(SubscribeRequest { request: Some(Request::Settle(request)) });
        self.unanswered.push_back(op);
    }

    /// Sends what there is room for. The broker may read no more requests until its events are
    /// read, so the worker does not wait for room.
    fn send(&mut self) {
        let Some(requests) = &self.requests else { return };
        while let Ok(room) = requests.try_reserve()
            && let Some(request) = self.unsent.pop_front()
        {
            room.send(request);
        }
    }

    fn note_answer(&mut self, proto::Settled { request_id, applied }: proto::Settled) {
        match self.unanswered.pop_front() {
            Some(op) if op as i64 == request_id => {
                let settled = What::Settled { applied };
                self.world.history.write(&self.worker.name, op, Stage::Ok, settled);
            }
            other => {
                self.alarm(&format!("got an answer to {request_id}, and awaits one to {other:?}"));
                self.unanswered.extend(other);
            }
        }
    }

    /// The broker may end a stream without an error only if the worker has closed its side, and
    /// once everything is answered.
    fn check_end(&self) {
        let (is_closed, unsent) = (self.requests.is_none(), self.unsent.len());
        if !is_closed || self.unanswered.len() > unsent {
            let unanswered = self.unanswered.len();
            self.alarm(&format!("ended without a status, with {unanswered} requests unanswered"));
        }
    }

    fn alarm(&self, what: &str) {
        self.world.alarm(format!("the stream of {} {what} ({})", self.worker.name, self.op));
    }
}

/// The kind of an event, for a report.
fn kind_of(event: &Event) -> &'static str {
    match event {
        Event::Attached(_) => "attached",
        Event::Deliveries(_) => "deliveries",
        Event::CaughtUp(_) => "caught_up",
        Event::Heartbeat(_) => "a heartbeat",
        Event::Stalled(_) => "stalled",
        Event::Settled(_) => "an answer",
    }
}
