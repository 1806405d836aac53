//! Hostile clients: what another principal gets done while they attack, and how much memory the
//! broker takes.

mod attacks;
#[path = "../shared/http2.rs"]
mod http2;
mod wire;

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{process::Command, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use trunkline::client::{Client, Commit, Event, Producer, Start};

use trunkline::proto::NewMessage;

use crate::{
    broker::Broker,
    postgres::Postgres,
    support::{print_always, soon, within},
};
use attacks::{ATTACKS, Attack, Target};

/// How long each attack lasts.
const ATTACK: Duration = Duration::from_secs(4);

/// How often the other principal publishes.
const INTERVAL: Duration = Duration::from_millis(5);

/// An attack must leave others one in so many of their messages. Without optimization, HTTP/2 itself
/// takes the machine.
const SHARE: u64 = if cfg!(debug_assertions) { 16 } else { 2 };

/// How much memory an attack may cost the broker, in MiB.
const MEMORY: u64 = 512;

const TOPIC: &str = "orders";
const HOSTILE_TOPIC: &str = "hostile.orders";

/// A principal that publishes and consumes at a steady rate.
struct Steady {
    producer: Producer,
    delivered: tokio::sync::watch::Receiver<u64>,
    _consuming: JoinHandle<()>,
}

impl Steady {
    async fn start(endpoint: &str, token: &str) -> Self {
        let client = || Client::builder(endpoint).token(token).connect();
        // As the publisher and the consumer of an ordinary program are: on a connection each.
        let producer = soon("the producer's connection", client()).await.unwrap();
        let producer = producer.producer(TOPIC, "steady").register().open().await.unwrap();
        let consumer = soon("the consumer's connection", client()).await.unwrap();
        let consumer = consumer.consumer(TOPIC, "steady", Commit::Auto);
        let mut consumer = consumer.register_at(Start::Earliest).open().await.unwrap();
        let (count, delivered) = tokio::sync::watch::channel(0);
        let consuming = tokio::spawn(async move {
            while let Some(Ok(event)) = consumer.next_event().await {
                if let Event::Messages(messages) = event {
                    count.send_modify(|count| *count += messages.len() as u64);
                }
            }
        });
        Self { producer, delivered, _consuming: consuming }
    }

    /// Publishes for the length of an attack; returns how many messages were delivered meanwhile.
    async fn work(&self) -> u64 {
        let before = *self.delivered.borrow();
        let end = Instant::now() + ATTACK;
        let mut ticks = tokio::time::interval(INTERVAL);
        let publishing = async {
            while Instant::now() < end {
                ticks.tick().await;
                let _acknowledgement = self.producer.send(NewMessage::new("steady")).await;
            }
        };
        // A broker that takes nothing at all must not make this wait for ever.
        let _ = tokio::time::timeout(ATTACK, publishing).await;
        *self.delivered.borrow() - before
    }

    /// Waits until everything that was published is delivered.
    async fn catch_up(&mut self) {
        self.producer.flush().await.unwrap();
        loop {
            let delivered = *self.delivered.borrow_and_update();
            let changed = self.delivered.changed();
            if tokio::time::timeout(Duration::from_secs(1), changed).await.is_err() {
                assert!(delivered > 0);
                return;
            }
        }
    }
}

/// Runs the command; returns what it prints.
async fn trunkline(words: &[&str], environment: &[(&str, &str)]) -> String {
    let command = Command::new(env!("CARGO_BIN_EXE_trunkline"))
        .args(words)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output();
    let output = soon("the command", command).await.unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the machine for itself: `make abuse` runs it"]
async fn an_attack_leaves_others_half_of_their_rate_and_the_broker_its_memory() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(&[]).await;
    let url = postgres.url();
    let admin = trunkline(&["token", "bootstrap", "--database-url", &url], &[]).await;
    let broker =
        Broker::start("broker", &url, folder.path(), &[("TRUNKLINE_AUTH", "required")]).await;
    let endpoint = broker.endpoint();
    let environment = [("TRUNKLINE_TOKEN", admin.as_str()), ("TRUNKLINE_ENDPOINT", &endpoint)];
    let run = async |words: &[&str]| trunkline(words, &environment).await;
    for topic in [TOPIC, HOSTILE_TOPIC] {
        run(&["topic", "create", topic]).await;
    }
    for (principal, topic) in [("steady", TOPIC), ("hostile", HOSTILE_TOPIC)] {
        for operation in ["publish", "consume"] {
            run(&["grant", "add", principal, operation, topic]).await;
        }
    }
    let steady = run(&["token", "create", "steady"]).await;
    let hostile = run(&["token", "create", "hostile"]).await;
    fill(&endpoint, &hostile).await;

    let mut steady = Steady::start(&endpoint, &steady).await;
    // The first round warms up.
    steady.work().await;
    steady.catch_up().await;
    let usual = steady.work().await;
    print_always(&format!("{usual} messages in {ATTACK:?} without an attack"));
    let mut failed = Vec::new();
    for (name, attack) in ATTACKS {
        // Once more if need be: other programs of this machine can cost as much as an attack.
        let mut is_repelled = false;
        for _ in 0..2 {
            steady.catch_up().await;
            let target = Target {
                port: broker.port(),
                authorization: format!("Bearer {hostile}"),
                topic: HOSTILE_TOPIC.to_owned(),
                stop: CancellationToken::new(),
            };
            let (delivered, grown) = attack_meanwhile(*attack, target, &broker, &steady).await;
            print_always(&format!(
                "{name}: {delivered} of {usual} delivered, {grown} MiB more memory"
            ));
            is_repelled = delivered * SHARE >= usual && grown <= MEMORY;
            if is_repelled {
                break;
            }
        }
        if !is_repelled {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "too little delivered, or too much memory: {failed:?}");
}

/// Attacks while the other principal works; returns how many of its messages were delivered, and how
/// much more memory the broker took.
async fn attack_meanwhile(
    attack: Attack,
    target: Target,
    broker: &Broker,
    steady: &Steady,
) -> (u64, u64) {
    let (before, stop) = (broker.memory(), target.stop.clone());
    let attacking = tokio::spawn(attack(target));
    let watched = async {
        let mut most = before;
        loop {
            most = most.max(broker.memory());
            tokio::select! {
                () = stop.cancelled() => return most,
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    };
    let working = async {
        let delivered = steady.work().await;
        stop.cancel();
        delivered
    };
    let (delivered, most) = tokio::join!(working, watched);
    within(Duration::from_secs(20), "the end of an attack", attacking).await.unwrap();
    (delivered, most - before)
}

/// Fills the hostile principal's topic, so that its reads have something to answer.
async fn fill(endpoint: &str, token: &str) {
    let client = Client::builder(endpoint).token(token).connect().await.unwrap();
    let producer = client.producer(HOSTILE_TOPIC, "hostile").register().open().await.unwrap();
    for _ in 0..4_000 {
        producer.send(NewMessage::new(vec![b'x'; 1_000])).await.unwrap();
    }
    producer.flush().await.unwrap();
    let consumer = client.consumer(HOSTILE_TOPIC, "hostile", Commit::Auto);
    drop(consumer.register_at(Start::Earliest).open().await.unwrap());
}
