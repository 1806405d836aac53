//! A run: servers, brokers and clients that work while something breaks, and the verdict.

mod clients;
mod healed;
mod scarce;
mod sessions;
mod stopped;
mod workers;

use std::{
    collections::HashMap,
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
    access::{ADMIN, Access},
    broker::Broker,
    check::{self, Report},
    history::{History, What},
    network::Network,
    postgres::{self, Postgres, url_at, url_of},
    proxy::Proxy,
    support::{holds_within, until},
    verdict,
    workload::{Clients, World},
};

/// How soon every consumer must have every message once nothing is broken any more.
const HEALED_WITHIN: Duration = Duration::from_secs(20);

/// How a run is set up.
pub struct Setup<'a> {
    pub brokers: usize,
    /// Settings of the server, such as `max_connections=20`.
    pub postgres: &'a [&'a str],
    /// Environment variables of the brokers.
    pub environment: &'a [(&'a str, &'a str)],
    pub seed: u64,
    /// The factor by which producers pause longer.
    pub slowdown: u64,
    /// Whether a fault of the run may prevent heartbeats.
    pub may_be_silent: bool,
    /// Hosts at which the first broker connects to PostgreSQL without a proxy.
    pub direct_hosts: Option<&'a str>,
    /// Whether brokers encrypt, and authenticate their clients.
    pub secured: bool,
    /// Whether a fault of the run may take tokens and grants from clients.
    pub may_be_denied: bool,
    /// Whether some producers publish with SQL.
    pub sql: bool,
    /// Where they do so, if it is not the server.
    pub sql_url: Option<String>,
}

impl Setup<'_> {
    /// Brokers that encrypt, and authenticate their clients, each of which is a principal with its
    /// own token and grants.
    pub fn secured() -> Self {
        Self { secured: true, ..Self::default() }
    }
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            brokers: 2,
            postgres: &[],
            environment: &[],
            seed: 1,
            slowdown: 1,
            may_be_silent: false,
            direct_hosts: None,
            secured: false,
            may_be_denied: false,
            sql: false,
            sql_url: None,
        }
    }
}

/// The topics of the clients, which are checked at the end.
pub const TOPICS: [&str; 6] = ["hot", "side-0", "side-1", "trimmed", "sized", "sought"];

/// The topic with a maximum number of messages.
const LIMITED: &str = "side-1";
const LIMIT: i64 = 500;

/// Servers, brokers and working clients.
pub struct Run {
    pub name: String,
    /// Declared before PostgreSQL so that they are dropped first.
    pub brokers: Vec<Broker>,
    pub postgres: Postgres,
    /// The proxy between each broker and PostgreSQL.
    pub to_postgres: Vec<Proxy>,
    /// The proxy between the clients and each broker.
    pub to_broker: Vec<Proxy>,
    pub world: Arc<World>,
    pub dir: PathBuf,
    /// Clients that publish, seek or trim.
    writers: Clients,
    /// Clients that consume or observe.
    readers: Clients,
    started: Instant,
    /// When the last fault ended.
    healed_at: Mutex<Option<Instant>>,
    run: Arc<str>,
    /// The addresses from which the brokers connect to PostgreSQL.
    network: Network,
}

impl Run {
    /// Starts a server, brokers and clients.
    pub async fn start(name: &str, setup: Setup<'_>) -> Self {
        let postgres = Postgres::start(setup.postgres).await;
        Self::start_on(name, setup, postgres).await
    }

    /// Starts brokers and clients on a running server.
    pub async fn start_on(name: &str, setup: Setup<'_>, postgres: Postgres) -> Self {
        let mut run = Self::prepare(name, &setup, postgres).await;
        run.start_clients().await;
        if setup.sql {
            run.start_sql_clients().await;
        }
        run
    }

    /// Starts brokers on a running server, without clients.
    pub async fn prepare(name: &str, setup: &Setup<'_>, postgres: Postgres) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults").join(name);
        fs::create_dir_all(&dir).unwrap();
        let history = History::create(&dir.join("history.jsonl"));
        let (mut brokers, mut to_postgres, mut to_broker) = (Vec::new(), Vec::new(), Vec::new());
        let network = Network::new();
        let access = match setup.secured {
            true => Some(Access::prepare(&postgres.url()).await),
            false => None,
        };
        let mut environment = setup.environment.to_vec();
        let secured = access.as_ref().map(|access| access.environment()).unwrap_or_default();
        environment.extend(secured.iter().map(|(name, value)| (*name, value.as_str())));
        for number in 0..setup.brokers {
            let proxy = Proxy::before_postgres(postgres.port(), network.address_of(number)).await;
            let url = match setup.direct_hosts {
                Some(hosts) if number == 0 => url_of(hosts, postgres.port()),
                _ => url_at(proxy.port()),
            };
            let name = format!("broker-{number}");
            let broker = Broker::start(&name, &url, &dir, &environment).await;
            to_broker.push(Proxy::before_broker(broker.port()).await);
            to_postgres.push(proxy);
            brokers.push(broker);
        }
        let world = World {
            history,
            ports: to_broker.iter().map(Proxy::port).collect(),
            database: watch::Sender::new(postgres.url()),
            sql_url: setup.sql_url.clone(),
            seed: setup.seed,
            slowdown: setup.slowdown,
            may_be_silent: setup.may_be_silent,
            stop_writing: CancellationToken::new(),
            stop_reading: CancellationToken::new(),
            alarms: Default::default(),
            may_be_denied: setup.may_be_denied,
            access,
        };
        Self {
            name: name.to_owned(),
            postgres,
            brokers,
            to_postgres,
            to_broker,
            world: Arc::new(world),
            dir,
            writers: JoinSet::new(),
            readers: JoinSet::new(),
            started: Instant::now(),
            healed_at: Mutex::default(),
            run: "run".into(),
            network,
        }
    }

    /// Lets the clients work until this many more messages are stored.
    pub async fn work_until_stored(&self, messages: i64) {
        let mut goal = None;
        until("messages are stored", async || {
            let heads = self.heads().await;
            goal = goal.or(heads.map(|heads| heads + messages));
            heads.zip(goal).is_some_and(|(heads, goal)| heads >= goal)
        })
        .await;
    }

    /// Lets the clients work, or try to, for a time.
    pub async fn work_for(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// The address from which a broker connects to PostgreSQL.
    pub fn address_of(&self, broker: usize) -> Ipv4Addr {
        self.network.address_of(broker)
    }

    /// Redirects the brokers and the observer to another server; returns the old one.
    pub fn switch_to(&mut self, postgres: Postgres) -> Postgres {
        self.to_postgres.iter().for_each(|proxy| proxy.retarget(postgres.port()));
        self.world.database.send_replace(postgres.url());
        std::mem::replace(&mut self.postgres, postgres)
    }

    /// A client of a broker, through the proxy: an administrator, if there is authentication.
    pub async fn client(&self, broker: usize) -> Client {
        self.client_as(ADMIN, broker).await
    }

    /// A client of a broker, through the proxy, that is a principal if there is authentication.
    pub async fn client_as(&self, principal: &str, broker: usize) -> Client {
        let caller = self.world.caller(principal);
        caller.connect(&caller.endpoint(self.to_broker[broker].port())).await.unwrap()
    }

    /// The authentication of the run.
    pub fn access(&self) -> &Access {
        self.world.access.as_ref().expect("the run authenticates")
    }

    /// The resident memory of each broker, in MiB.
    pub fn memory(&self) -> Vec<u64> {
        self.brokers.iter().map(Broker::memory).collect()
    }

    /// Notes that a fault starts or ends.
    pub fn fault(&self, name: &str, begins: bool) {
        let name = name.to_owned();
        self.world.history.note(&self.run, What::Fault { name, begins });
        *self.healed_at.lock().unwrap() = Some(Instant::now());
    }

    /// Opens a session to the current server.
    pub async fn sql(&self) -> tokio_postgres::Client {
        let url = self.world.database.borrow().clone();
        postgres::connect(&url).await.unwrap()
    }

    /// The number of messages stored so far; `None` while the server does not answer.
    async fn heads(&self) -> Option<i64> {
        let sum = "select coalesce(sum(next_offset), 0)::bigint from trunkline.topic_head";
        let url = self.world.database.borrow().clone();
        let sql = postgres::connect(&url).await.ok()?;
        Some(sql.query_one(sum, &[]).await.ok()?.get(0))
    }

    /// Heals everything, waits until all messages are delivered, and fails if a promise was broken.
    pub async fn finish(self) -> Report {
        let name = self.name.clone();
        let path = self.world.history.path().to_owned();
        let (report, found) = self.judge().await;
        println!("{name}: {:?}", report.figures);
        assert!(
            found.is_empty(),
            "{name}: the history is {}\n{}",
            path.display(),
            found.join("\n")
        );
        report
    }

    /// Like `finish`, but returns what was found instead of failing.
    pub async fn judge(self) -> (Report, Vec<String>) {
        self.judge_within(HEALED_WITHIN).await
    }

    /// Like `judge`, with a time limit for the delivery.
    pub async fn judge_within(mut self, time: Duration) -> (Report, Vec<String>) {
        let mut found = Vec::new();
        self.heal().await;
        // Counted from the end of the last fault, however long the clients have worked since.
        let deadline = self.healed_at.lock().unwrap().unwrap_or_else(Instant::now) + time;
        // A run may be over before each client has done something between two pauses.
        let all_worked = async || verdict::idle_clients(&self.world.history.events()).is_empty();
        holds_within(Duration::from_secs(5), all_worked).await;
        self.world.stop_writing.cancel();
        if let Err(problem) = self.all_arrived(deadline).await {
            found.push(format!("C10: {problem}"));
        }
        self.world.stop_reading.cancel();
        found.extend(panics_of(&mut self.readers).await);
        for broker in &self.brokers {
            found.extend(verdict::work_problems(&self.world, broker).await);
        }
        found.extend(self.retention_works().await.err().map(|what| format!("C10: {what}")));
        found.extend(self.leaks().await.into_iter().map(|what| format!("C10: {what}")));
        verdict::read_everything(&self.world, &self.run, &self.brokers, &TOPICS).await;
        for broker in &mut self.brokers {
            if let Err(problem) = broker.try_stop().await {
                found.push(format!("C10: {} {problem}", broker.name));
            }
            let log = broker.log_text();
            found.extend(verdict::repeated_too_often(&broker.name, &log));
            found.extend(verdict::errors_logged(&broker.name, &log));
        }
        let events = self.world.history.events();
        let report = check::check(&events);
        found.extend(report.violations.iter().map(|one| format!("{}: {}", one.check, one.text)));
        found.extend(verdict::unexpected_codes(&events, self.world.may_be_denied));
        found.extend(verdict::idle_clients(&events));
        found.append(&mut self.world.alarms.lock().unwrap());
        verdict::note_figures(&self.dir, &self.name, &report.figures, self.started.elapsed());
        (report, found)
    }

    /// Waits until everything that is stored by now has been delivered to every consumer, and until
    /// workers have got the last message. What they forgot before may take long to come again.
    pub async fn all_delivered_within(&self, time: Duration) {
        let sql = self.sql().await;
        let heads = "select h.topic_id, t.name, h.next_offset
            from trunkline.topic_head h join trunkline.topic t on t.id = h.topic_id";
        let rows = sql.query(heads, &[]).await.unwrap();
        let topics: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        let ends: Vec<i64> = rows.iter().map(|row| row.get(2)).collect();
        let end_of: HashMap<String, i64> =
            rows.iter().map(|row| (row.get(1), row.get(2))).collect();
        // A consumer that is sought may be anywhere, and a slow one far behind.
        let behind = "select format('%s is at %s of %s (held by %L, claimed by %L)',
                consumer_id, position, head, holder, claimant)
            from trunkline.consumer_topic c
            join unnest($1::integer[], $2::bigint[]) as now (topic_id, head) using (topic_id)
            where position < head and consumer_id not in ('sought', 'slow', 'behind')
              and consumer_id not like 'stopped-%'
              and not exists (select from trunkline.subscription s
                              where s.topic_id = c.topic_id and s.id = c.id)";
        let mut left = Vec::new();
        let all = holds_within(time, async || {
            let rows = sql.query(behind, &[&topics, &ends]).await.unwrap();
            left = rows.iter().map(|row| row.get::<_, String>(0)).collect();
            for pool in &workers::POOLS {
                let (handed, end) = (pool.handed(&self.world.history), end_of[pool.topic]);
                if handed < end {
                    left.push(format!("{} got {handed} of {end}", pool.subscription));
                }
            }
            left.is_empty()
        });
        assert!(all.await, "not delivered within {time:?}: {}", left.join(", "));
    }

    /// Undoes everything that a fault may have left behind.
    async fn heal(&mut self) {
        self.to_postgres.iter().chain(&self.to_broker).for_each(Proxy::heal);
        for broker in &mut self.brokers {
            if !broker.is_running() {
                broker.start_again().await;
            }
        }
        self.postgres.until_ready().await;
    }
}

/// Waits until tasks end; returns the panics.
async fn panics_of(clients: &mut Clients) -> Vec<String> {
    let mut bad = Vec::new();
    while let Some(ended) = clients.join_next().await {
        if let Err(problem) = ended {
            bad.push(format!("a client panicked: {problem}"));
        }
    }
    bad
}

/// Appends a line to a file that many runs share.
pub fn append_line(path: &Path, line: &str) {
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}
