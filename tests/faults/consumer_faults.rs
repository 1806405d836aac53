//! Consumers whose holder vanishes, clients that stop reading, and competition for one lease.

use std::time::{Duration, Instant, SystemTime};

use tonic::{Code, Status, Streaming};
use trunkline::{
    client::Client,
    proto::{self, CommitMode, ConsumeResponse, OnBusy, consume_response::Event},
};

use crate::{
    clock::Clock,
    network::Partition,
    postgres::Postgres,
    proxy::{ALL, Mode},
    run::{Run, Setup, Stopped},
    support::{soon, until, within},
};

/// A stream of the consumer that is named like its topic.
struct Stream {
    frames: Streaming<ConsumeResponse>,
    _client: Client,
}

impl Stream {
    async fn open(run: &Run, broker: usize, topic: &str, on_busy: OnBusy) -> Self {
        let client = run.client(broker).await;
        let request = proto::ConsumeRequest {
            topic: topic.to_owned(),
            consumer_id: topic.to_owned(),
            commit_mode: CommitMode::Manual.into(),
            on_busy: on_busy.into(),
            heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..Default::default()
        };
        let frames = soon("the stream opens", client.consumers().consume(request)).await.unwrap();
        Self { frames: frames.into_inner(), _client: client }
    }

    /// Waits until the stream is a standby.
    async fn until_standby(&mut self) {
        loop {
            let frame = soon("a frame", self.frames.message()).await.unwrap().unwrap();
            if let Some(Event::Standby(_)) = frame.event {
                return;
            }
        }
    }

    /// Waits until the stream ends; until then, a frame must come every 3 s.
    async fn until_ended(&mut self) -> Status {
        loop {
            let frame = within(Duration::from_secs(3), "a frame", self.frames.message()).await;
            if let Err(status) = frame {
                return status;
            }
        }
    }

    /// Waits until the stream has the lease; returns its epoch.
    async fn until_attached(&mut self) -> i64 {
        loop {
            let frame = soon("a frame", self.frames.message()).await.unwrap().unwrap();
            if let Some(Event::Attached(attached)) = frame.event {
                return attached.epoch;
            }
        }
    }
}

/// Two brokers, and a topic with a consumer of the same name.
async fn prepare(name: &str) -> Run {
    let postgres = Postgres::start(&[]).await;
    let run = Run::prepare(name, &Setup::secured(), postgres).await;
    add_consumer(&run, "contested").await;
    run
}

async fn add_consumer(run: &Run, topic: &str) {
    let client = run.client(0).await;
    let request = proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() };
    // The topic may exist already.
    let _ = client.topics().create_topic(request).await;
    let request = proto::RegisterConsumerRequest {
        topic: topic.to_owned(),
        consumer_id: topic.to_owned(),
        ..Default::default()
    };
    client.consumers().register_consumer(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_gets_the_lease_within_2_s_of_a_brokers_death() {
    let mut run = prepare("take-over-after-death").await;
    for dying in [0, 1, 0, 1] {
        let mut holder = Stream::open(&run, dying, "contested", OnBusy::Wait).await;
        holder.until_attached().await;
        let mut standby = Stream::open(&run, 1 - dying, "contested", OnBusy::Wait).await;
        standby.until_standby().await;
        run.brokers[dying].kill().await;
        let started = Instant::now();
        within(Duration::from_secs(2), "the standby gets the lease", standby.until_attached())
            .await;
        println!("got the lease in {:?}", started.elapsed());
        run.brokers[dying].start_again().await;
    }
}

/// Each question to the database may take 5 s, and a client must not take its stream for dead.
#[tokio::test(flavor = "multi_thread")]
async fn standbys_send_heartbeats_while_the_database_hangs() {
    let run = prepare("standbys-hang").await;
    add_consumer(&run, "awaited").await;
    let mut holders = Vec::new();
    for topic in ["contested", "awaited"] {
        let mut holder = Stream::open(&run, 1, topic, OnBusy::Wait).await;
        holder.until_attached().await;
        holders.push(holder);
    }
    // The holders' broker does not release their locks.
    run.to_postgres[1].set("trunkline lease", Mode::Hold);
    let mut standbys = Vec::new();
    for (topic, on_busy) in [("contested", OnBusy::TakeOver), ("awaited", OnBusy::Wait)] {
        let mut standby = Stream::open(&run, 0, topic, on_busy).await;
        standby.until_standby().await;
        standbys.push(standby);
    }
    run.to_postgres[0].set(ALL, Mode::Hold);
    let ended = standbys.iter_mut().map(Stream::until_ended);
    for status in futures::future::join_all(ended).await {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_gets_the_lease_within_20_s_of_a_client_that_vanished() {
    let run = prepare("take-over-after-client").await;
    let mut holder = Stream::open(&run, 0, "contested", OnBusy::Wait).await;
    holder.until_attached().await;
    let mut standby = Stream::open(&run, 1, "contested", OnBusy::Wait).await;
    standby.until_standby().await;
    // From now on neither an end nor an answer comes from the client.
    run.to_broker[0].set("", Mode::Hold);
    let started = Instant::now();
    within(Duration::from_secs(20), "the standby gets the lease", standby.until_attached()).await;
    println!("got the lease in {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(can_partition),
    ignore = "packets cannot be dropped, as nft is missing or not permitted (package nftables)"
)]
async fn a_standby_gets_the_lease_within_20_s_of_a_broker_that_vanished() {
    let run = prepare("take-over-after-partition").await;
    let mut holder = Stream::open(&run, 0, "contested", OnBusy::Wait).await;
    holder.until_attached().await;
    let mut standby = Stream::open(&run, 1, "contested", OnBusy::Wait).await;
    standby.until_standby().await;
    let _partition = Partition::of(run.address_of(0)).expect("the kernel can drop packets");
    let started = Instant::now();
    within(Duration::from_secs(20), "the standby gets the lease", standby.until_attached()).await;
    println!("got the lease in {:?}", started.elapsed());
}

/// A client of a removed registration can move nothing, whichever broker dies in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_reregistered_while_brokers_die() {
    let mut run = prepare("reregistered").await;
    let mut stale = Vec::new();
    for dying in [0, 1, 0, 1] {
        let other = 1 - dying;
        let mut holder = Stream::open(&run, dying, "contested", OnBusy::TakeOver).await;
        stale.push(holder.until_attached().await);
        run.brokers[dying].kill().await;
        let client = run.client(other).await;
        let (topic, consumer_id) = ("contested".to_owned(), "contested".to_owned());
        let unregister = proto::UnregisterConsumerRequest {
            topic: topic.clone(),
            consumer_id: consumer_id.clone(),
        };
        client.consumers().unregister_consumer(unregister).await.unwrap();
        let start = None;
        let register =
            proto::RegisterConsumerRequest { topic, consumer_id, start, ..Default::default() };
        client.consumers().register_consumer(register).await.unwrap();
        let mut holder = Stream::open(&run, other, "contested", OnBusy::Wait).await;
        let epoch = holder.until_attached().await;
        run.brokers[dying].start_again().await;
        for broker in [other, dying] {
            let client = run.client(broker).await;
            for old in &stale {
                let commit = proto::CommitRequest {
                    topic: "contested".to_owned(),
                    consumer_id: "contested".to_owned(),
                    epoch: *old,
                    position: 0,
                };
                let refused = client.consumers().commit(commit).await.unwrap_err();
                assert_eq!(refused.code(), Code::Aborted, "epoch {old} while {epoch}: {refused:?}");
            }
        }
        stale.push(epoch);
    }
}

/// A broker's memory for them is bounded, and other clients are not affected.
#[tokio::test(flavor = "multi_thread")]
async fn a_dozen_clients_stop_reading() {
    /// More than a broker keeps for all streams together.
    const MIB: usize = 200;
    /// By how many MiB a broker may grow when twice as much waits.
    const MAX_GROWTH: u64 = 48;
    let run = Run::start("clients-stop-reading", Setup::default()).await;
    run.work_until_stored(500).await;
    let pace = async || {
        let started = Instant::now();
        run.work_until_stored(2_000).await;
        2_000 * 1_000 / started.elapsed().as_millis()
    };
    let before = pace().await;
    run.fault("clients stop reading", true);
    let stopped = Stopped::begin(&run).await;
    let mut memory = Vec::new();
    for _ in 0..2 {
        stopped.more(MIB).await;
        run.work_until_stored(500).await;
        run.all_delivered_within(Duration::from_secs(30)).await;
        memory.push(run.memory());
    }
    println!("messages/s before, and while they wait: {before}, {}", pace().await);
    println!("MiB of each broker when {MIB} MiB wait, and twice as many: {memory:?}");
    // Both brokers serve alike, but neither may have grown to its bound by the first measurement.
    let before = memory[0].iter().max().expect("there are brokers");
    for after in &memory[1] {
        assert!(*after < before + MAX_GROWTH, "{memory:?} MiB");
    }
    stopped.end().await;
    run.fault("clients stop reading", false);
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_compete_for_a_consumer_on_one_broker() {
    compete("compete-on-one", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_compete_for_a_consumer_on_two_brokers() {
    compete("compete-on-two", 2).await;
}

/// Each loses the lease soon after it got it, and still everything is delivered.
async fn compete(name: &str, brokers: usize) {
    let run = Run::start(name, Setup { brokers, ..Setup::secured() }).await;
    run.fault("two clients take over a consumer repeatedly", true);
    let (topic, consumer) = ("hot".to_owned(), "stolen".to_owned());
    let owner = "hot-stolen";
    let clients = [run.client_as(owner, 0).await, run.client_as(owner, brokers - 1).await];
    let mut attached = 0;
    for round in 0..60 {
        let request = proto::ConsumeRequest {
            topic: topic.clone(),
            consumer_id: consumer.clone(),
            commit_mode: CommitMode::Manual.into(),
            on_busy: OnBusy::TakeOver.into(),
            ..Default::default()
        };
        let stream = clients[round % 2].consumers().consume(request).await;
        let mut stream = stream.unwrap().into_inner();
        // The stream may end before it has the lease.
        while let Ok(Some(frame)) = soon("a frame", stream.message()).await {
            if let Some(Event::Attached(_)) = frame.event {
                attached += 1;
                break;
            }
        }
    }
    run.fault("two clients take over a consumer repeatedly", false);
    assert!(attached > 20, "the lease changed only {attached} times");
    run.work_until_stored(500).await;
    run.finish().await;
}

/// A broker's clock must not matter: the time of messages is PostgreSQL's.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_faketime),
    ignore = "clocks cannot jump without libfaketime (package libfaketime)"
)]
async fn the_clocks_of_brokers_jump() {
    let clock = Clock::new().expect("libfaketime was installed when the tests were built");
    let environment = clock.environment();
    let setup = Setup { environment: &environment, ..Setup::default() };
    let run = Run::start("clock-jumps", setup).await;
    run.work_until_stored(500).await;
    for (jump, days) in [("+1h", 0), ("-1d", -1), ("+3d", 3), ("+0", 0)] {
        run.fault("the clock of the brokers jumps", true);
        clock.shift(jump);
        run.work_until_stored(500).await;
        // Its log has the time of its clock.
        run.end_sessions("trunkline listen").await;
        let date = date_in(days);
        until("the clock has jumped", async || run.brokers[0].log_text().contains(&date)).await;
        run.fault("the clock of the brokers jumps", false);
    }
    run.finish().await;
}

/// The date a number of days from now, in the format of the log.
fn date_in(days: i64) -> String {
    let now = SystemTime::now();
    let away = Duration::from_secs(days.unsigned_abs() * 24 * 3600);
    let then = if days < 0 { now - away } else { now + away };
    humantime::format_rfc3339(then).to_string()[..10].to_owned()
}
