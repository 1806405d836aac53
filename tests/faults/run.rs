//! A run: servers, brokers and clients, which work while something breaks, and the verdict.

mod clients;
mod healed;
mod scarce;
mod sessions;
mod stopped;

use std::{
    fs,
    io::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

pub use clients::register;
pub use sessions::KINDS;
pub use stopped::Stopped;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use trunkline::client::Client;

use crate::{
    broker::Broker,
    check::{self, Report},
    history::{History, What},
    network::Network,
    postgres::{self, Postgres, url_at, url_of},
    proxy::Proxy,
    support::{comes_true_within, until},
    verdict,
    workload::{Clients, World},
};

/// How soon all that was published must have reached everybody, once nothing is broken any more.
const HEALED_WITHIN: Duration = Duration::from_secs(20);

/// What a run begins with.
pub struct Setup<'a> {
    pub brokers: usize,
    /// Settings of the server, such as `max_connections=20`.
    pub postgres: &'a [&'a str],
    /// Variables of the brokers' environment.
    pub environment: &'a [(&'a str, &'a str)],
    pub seed: u64,
    /// How much longer producers rest than they need to.
    pub leisure: u64,
    /// Whether a fault of the run keeps a broker from beating.
    pub may_be_silent: bool,
    /// Where the first broker finds PostgreSQL itself, and no proxy before it.
    pub straight_to: Option<&'a str>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            brokers: 2,
            postgres: &[],
            environment: &[],
            seed: 1,
            leisure: 1,
            may_be_silent: false,
            straight_to: None,
        }
    }
}

/// The topics that the clients work on, which are checked at the end.
pub const TOPICS: [&str; 6] = ["hot", "side-0", "side-1", "trimmed", "sized", "sought"];

/// The one of them that keeps no more than so many messages.
const LIMITED: &str = "side-1";
const LIMIT: i64 = 500;

/// Servers, brokers, and clients at work.
pub struct Run {
    pub name: String,
    /// Before their PostgreSQL: they end first.
    pub brokers: Vec<Broker>,
    pub postgres: Postgres,
    /// Between each broker and PostgreSQL.
    pub to_postgres: Vec<Proxy>,
    /// Between the clients and each broker.
    pub to_broker: Vec<Proxy>,
    pub world: Arc<World>,
    pub dir: PathBuf,
    makers: Clients,
    readers: Clients,
    began: Instant,
    /// When a fault ended last.
    mended_at: Mutex<Option<Instant>>,
    run: Arc<str>,
    /// Whence its brokers come to PostgreSQL.
    network: Network,
}

impl Run {
    /// Starts servers and brokers, and has clients work on them.
    pub async fn start(name: &str, setup: Setup<'_>) -> Self {
        let postgres = Postgres::start(setup.postgres).await;
        Self::start_on(name, setup, postgres).await
    }

    /// The same, on a server that runs.
    pub async fn start_on(name: &str, setup: Setup<'_>, postgres: Postgres) -> Self {
        let mut run = Self::prepare(name, &setup, postgres).await;
        run.set_the_clients_to_work().await;
        run
    }

    /// Starts brokers on a server that runs; no client works yet.
    pub async fn prepare(name: &str, setup: &Setup<'_>, postgres: Postgres) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults").join(name);
        fs::create_dir_all(&dir).unwrap();
        let history = History::create(&dir.join("history.jsonl"));
        let (mut brokers, mut to_postgres, mut to_broker) = (Vec::new(), Vec::new(), Vec::new());
        let network = Network::new();
        for number in 0..setup.brokers {
            let proxy = Proxy::before_postgres(postgres.port(), network.address_of(number)).await;
            let url = match setup.straight_to {
                Some(hosts) if number == 0 => url_of(hosts, postgres.port()),
                _ => url_at(proxy.port()),
            };
            let name = format!("broker-{number}");
            let broker = Broker::start(&name, &url, &dir, setup.environment).await;
            to_broker.push(Proxy::before_broker(broker.port()).await);
            to_postgres.push(proxy);
            brokers.push(broker);
        }
        let world = World {
            history,
            ports: to_broker.iter().map(Proxy::port).collect(),
            database: watch::Sender::new(postgres.url()),
            seed: setup.seed,
            leisure: setup.leisure,
            may_be_silent: setup.may_be_silent,
            enough: CancellationToken::new(),
            read: CancellationToken::new(),
            alarms: Default::default(),
        };
        Self {
            name: name.to_owned(),
            postgres,
            brokers,
            to_postgres,
            to_broker,
            world: Arc::new(world),
            dir,
            makers: JoinSet::new(),
            readers: JoinSet::new(),
            began: Instant::now(),
            mended_at: Mutex::default(),
            run: "run".into(),
            network,
        }
    }

    /// Lets the clients work until so many more messages were acknowledged.
    pub async fn works(&self, messages: i64) {
        let mut goal = None;
        until("messages are stored", async || {
            let heads = self.heads().await;
            goal = goal.or(heads.map(|heads| heads + messages));
            heads.zip(goal).is_some_and(|(heads, goal)| heads >= goal)
        })
        .await;
    }

    /// Lets the clients work, or try to, for some time.
    pub async fn goes_on_for(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Whence a broker comes to PostgreSQL.
    pub fn address_of(&self, broker: usize) -> Ipv4Addr {
        self.network.address_of(broker)
    }

    /// The brokers find another server at the end of their way, and so do all who look.
    pub fn lead_to(&mut self, postgres: Postgres) -> Postgres {
        self.to_postgres.iter().for_each(|proxy| proxy.lead_to(postgres.port()));
        self.world.database.send_replace(postgres.url());
        std::mem::replace(&mut self.postgres, postgres)
    }

    /// A client of a broker, over the way that may be broken.
    pub async fn client(&self, broker: usize) -> Client {
        let endpoint = format!("http://127.0.0.1:{}", self.to_broker[broker].port());
        Client::connect(&endpoint).await.unwrap()
    }

    /// The memory that each broker has now, in MiB.
    pub fn memory(&self) -> Vec<u64> {
        self.brokers.iter().map(Broker::memory).collect()
    }

    /// A fault begins, or ends: it is noted.
    pub fn fault(&self, name: &str, begins: bool) {
        let name = name.to_owned();
        self.world.history.note(&self.run, What::Fault { name, begins });
        *self.mended_at.lock().unwrap() = Some(Instant::now());
    }

    /// A session at the present server.
    pub async fn sql(&self) -> tokio_postgres::Client {
        let url = self.world.database.borrow().clone();
        postgres::connect(&url).await.unwrap()
    }

    /// How many messages were stored; `None` while nobody can be asked.
    async fn heads(&self) -> Option<i64> {
        let sum = "select coalesce(sum(next_offset), 0)::bigint from trunkline.topic_head";
        let url = self.world.database.borrow().clone();
        let sql = postgres::connect(&url).await.ok()?;
        Some(sql.query_one(sum, &[]).await.ok()?.get(0))
    }

    /// Heals what is broken, waits until all has reached everybody, and judges.
    pub async fn finish(self) -> Report {
        let name = self.name.clone();
        let path = self.world.history.path().to_owned();
        let (report, found) = self.judge().await;
        let figures = &report.figures;
        println!("{name}: {figures:?}");
        let again = format!("the history is {}", path.display());
        assert!(found.is_empty(), "{name}: {again}\n{}", found.join("\n"));
        report
    }

    /// The same; returns what was found, instead of failing for it.
    pub async fn judge(self) -> (Report, Vec<String>) {
        self.judge_within(HEALED_WITHIN).await
    }

    /// The same, with a time of its own for all to arrive.
    pub async fn judge_within(mut self, time: Duration) -> (Report, Vec<String>) {
        let mut found = Vec::new();
        self.heal().await;
        // Of the last fault, however long the clients went on since.
        let deadline = self.mended_at.lock().unwrap().unwrap_or_else(Instant::now) + time;
        self.world.enough.cancel();
        if let Err(problem) = self.all_has_arrived(deadline).await {
            found.push(format!("C10: {problem}"));
        }
        self.world.read.cancel();
        found.extend(ended_badly(&mut self.readers).await);
        for broker in &self.brokers {
            found.extend(verdict::does_not_work(broker).await);
        }
        found.extend(self.retention_works().await.err().map(|what| format!("C10: {what}")));
        found.extend(self.leaks().await.into_iter().map(|what| format!("C10: {what}")));
        verdict::read_everything(&self.world, &self.run, &self.brokers, &TOPICS).await;
        for broker in &mut self.brokers {
            if let Err(problem) = broker.try_stop().await {
                found.push(format!("C10: {} {problem}", broker.name));
            }
            let log = broker.log_text();
            found.extend(verdict::said_too_often(&broker.name, &log));
            found.extend(verdict::went_wrong(&broker.name, &log));
        }
        let events = self.world.history.events();
        let report = check::check(&events);
        found.extend(report.found.iter().map(|found| format!("{}: {}", found.check, found.what)));
        found.extend(verdict::codes_not_allowed(&events));
        found.extend(verdict::did_nothing(&events));
        found.append(&mut self.world.alarms.lock().unwrap());
        verdict::note_figures(&self.dir, &self.name, &report.figures, self.began.elapsed());
        (report, found)
    }

    /// Waits until whatever is stored by now has reached everybody.
    pub async fn reaches_everybody_within(&self, time: Duration) {
        let sql = self.sql().await;
        let heads = "select topic_id, next_offset from trunkline.topic_head";
        let rows = sql.query(heads, &[]).await.unwrap();
        let (topics, heads): (Vec<i32>, Vec<i64>) =
            rows.iter().map(|row| (row.get::<_, i32>(0), row.get::<_, i64>(1))).unzip();
        // Whoever is moved about may be anywhere; whoever is slow, far behind.
        let behind = "select format('%s is at %s of %s (held by %L, claimed by %L)',
                consumer_id, position, head, holder, claimant)
            from trunkline.consumer_topic c
            join unnest($1::integer[], $2::bigint[]) as now (topic_id, head) using (topic_id)
            where position < head and consumer_id not in ('sought', 'slow', 'behind')
              and consumer_id not like 'stopped-%'";
        let mut left = Vec::new();
        let all = comes_true_within(time, async || {
            let rows = sql.query(behind, &[&topics, &heads]).await.unwrap();
            left = rows.iter().map(|row| row.get::<_, String>(0)).collect();
            left.is_empty()
        });
        assert!(all.await, "not in {time:?}: {}", left.join(", "));
    }

    /// Undoes all that a fault may have left.
    async fn heal(&mut self) {
        self.to_postgres.iter().chain(&self.to_broker).for_each(Proxy::heal);
        for broker in &mut self.brokers {
            if !broker.is_running() {
                broker.start_again().await;
            }
        }
        self.postgres.answers().await;
    }
}

/// Waits for tasks to end, and tells of those that panicked.
async fn ended_badly(clients: &mut Clients) -> Vec<String> {
    let mut bad = Vec::new();
    while let Some(ended) = clients.join_next().await {
        if let Err(problem) = ended {
            bad.push(format!("a client panicked: {problem}"));
        }
    }
    bad
}

/// Adds a line to a file that many runs add to.
pub fn append_line(path: &Path, line: &str) {
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}
