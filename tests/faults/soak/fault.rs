//! The faults of a soak, and how they are healed.

use std::time::Duration;

use fastrand::Rng;
use nix::sys::signal::Signal;

use crate::{
    clock::Clock,
    network::Partition,
    postgres::Postgres,
    proxy::{ALL, Mode},
    run::{KINDS, Run, Stopped},
    tmpfs::Tmpfs,
};

pub const BROKERS: usize = 3;

/// The connections that read tokens and grants.
const ACCESS: &str = "trunkline access";

/// Longer than a broker trusts its copy of tokens and grants for new calls.
const UNCONFIRMED: Duration = Duration::from_secs(6);

/// Everything that faults break.
pub struct Site {
    pub run: Run,
    /// The disk of the server's write-ahead log, if file systems can be mounted.
    pub disk: Option<Tmpfs>,
    /// The brokers' clock, if it can jump.
    pub clock: Option<Clock>,
    /// The number of standbys so far.
    pub standbys: u32,
}

/// What a fault keeps until it is healed.
pub enum Leftover {
    Nothing,
    /// Dropping this heals the fault.
    Taken(Box<dyn Send>),
    Streams(Box<Stopped>),
    /// An old primary that lives on.
    Primary(Box<Postgres>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    KillBroker(usize),
    StopBroker(usize),
    /// Suspends a broker and terminates its sessions, so that others take its leases.
    FenceBroker(usize),
    DrainBroker(usize),
    EndSessions(&'static str),
    CancelStatements,
    KillBackend(&'static str),
    RestartPostgres,
    StopPostgres,
    CutAnswers(usize, &'static str, usize),
    ResetAll(usize),
    HoldConnections(usize, &'static str),
    RefuseConnections(usize, &'static str),
    Delay(usize, u64),
    CutClients(usize, usize),
    HoldClients(usize),
    HoldRow,
    /// The disk of the write-ahead log is full.
    FillDisk,
    FillLockTable,
    TakeConnections,
    /// The kernel drops packets between a broker's proxy and the server.
    Part(usize),
    JumpClocks(&'static str),
    StopReading,
    /// The primary dies, and its synchronous standby is promoted.
    FailOver,
    /// The same, but the primary lives on.
    FailOverTooEarly,
    /// A transaction locks the tables of tokens and grants, for longer than brokers trust their
    /// copies.
    LockAccess,
    /// No broker can read tokens and grants.
    HoldAccess,
    RotateTokens {
        revoked_first: bool,
    },
    WithdrawGrants {
        leaves_another: bool,
    },
}

const FAULTS: u8 = 29;

impl Fault {
    /// Draws the next fault from a shuffled deck of all faults, which is refilled when empty.
    pub fn draw(deck: &mut Vec<u8>, rng: &mut Rng) -> Self {
        if deck.is_empty() {
            deck.extend(0..FAULTS);
            rng.shuffle(deck);
        }
        let number = deck.pop();
        let kind = KINDS[rng.usize(..KINDS.len())];
        let broker = rng.usize(..BROKERS);
        match number.unwrap_or(0) {
            0 => Self::KillBroker(broker),
            1 => Self::StopBroker(broker),
            2 => Self::FenceBroker(broker),
            3 => Self::DrainBroker(broker),
            4 => Self::EndSessions(kind),
            5 => Self::CancelStatements,
            6 => Self::KillBackend(kind),
            7 => Self::RestartPostgres,
            8 => Self::StopPostgres,
            9 => Self::CutAnswers(broker, kind, rng.usize(..300)),
            10 => Self::ResetAll(broker),
            11 => Self::HoldConnections(broker, kind),
            12 => Self::RefuseConnections(broker, kind),
            13 => Self::Delay(broker, rng.u64(5..200)),
            14 => Self::CutClients(broker, rng.usize(..3_000)),
            15 => Self::HoldClients(broker),
            16 => Self::HoldRow,
            17 => Self::FillDisk,
            18 => Self::FillLockTable,
            19 => Self::TakeConnections,
            20 => Self::Part(broker),
            21 => Self::JumpClocks(["+1h", "-1d", "+3d"][rng.usize(..3)]),
            22 => Self::StopReading,
            23 => Self::FailOver,
            24 => Self::FailOverTooEarly,
            25 => Self::LockAccess,
            26 => Self::HoldAccess,
            27 => Self::RotateTokens { revoked_first: rng.bool() },
            _ => Self::WithdrawGrants { leaves_another: rng.bool() },
        }
    }

    /// Whether this fault and another one can be combined.
    pub fn is_compatible_with(self, other: Self) -> bool {
        let of_broker = |fault| match fault {
            Self::KillBroker(broker)
            | Self::StopBroker(broker)
            | Self::FenceBroker(broker)
            | Self::DrainBroker(broker) => Some(broker),
            _ => None,
        };
        // Streams that are not read must find messages, and calls of the administrator a database.
        let alone = |fault| {
            matches!(
                fault,
                Self::StopReading
                    | Self::LockAccess
                    | Self::HoldAccess
                    | Self::RotateTokens { .. }
                    | Self::WithdrawGrants { .. }
            )
        };
        let both_ask = self.asks_the_server() && other.asks_the_server();
        let same_broker = of_broker(self).is_some() && of_broker(self) == of_broker(other);
        !(alone(self) || alone(other) || both_ask || same_broker)
    }

    /// The order of combined faults, which are healed in the opposite order. A broker is stopped or
    /// killed while the server answers, and is started again after the server is healed.
    pub fn order(&self) -> u8 {
        match self {
            Self::KillBroker(_) | Self::DrainBroker(_) | Self::FenceBroker(_) => 0,
            _ if self.breaks_the_server() => 2,
            _ => 1,
        }
    }

    /// Whether the server does not answer during the fault.
    fn breaks_the_server(self) -> bool {
        matches!(
            self,
            Self::RestartPostgres
                | Self::StopPostgres
                | Self::FillDisk
                | Self::TakeConnections
                | Self::FailOver
                | Self::FailOverTooEarly
        )
    }

    /// Whether starting or healing the fault needs the server.
    fn asks_the_server(self) -> bool {
        self.breaks_the_server()
            || matches!(
                self,
                Self::FenceBroker(_)
                    | Self::DrainBroker(_)
                    | Self::EndSessions(_)
                    | Self::CancelStatements
                    | Self::KillBackend(_)
                    | Self::HoldRow
                    | Self::FillLockTable
            )
    }

    pub async fn begin(self, site: &mut Site) -> Leftover {
        let run = &mut site.run;
        run.fault(&format!("{self:?}"), true);
        match self {
            Self::KillBroker(broker) => run.brokers[broker].kill().await,
            Self::StopBroker(broker) => run.brokers[broker].signal(Signal::SIGSTOP),
            Self::FenceBroker(broker) => {
                // Another fault may have left the broker without sessions.
                run.has_sessions(broker).await;
                run.brokers[broker].signal(Signal::SIGSTOP);
                run.end_sessions_of(broker).await;
            }
            Self::DrainBroker(broker) => {
                run.brokers[broker].try_stop().await.unwrap();
            }
            Self::EndSessions(kind) => run.end_sessions(kind).await,
            Self::CancelStatements => {
                let sql = run.sql().await;
                for _ in 0..20 {
                    run.cancel_statements(&sql).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Self::KillBackend(kind) => {
                // Another fault may have left no such session.
                run.kill_backend(kind).await;
            }
            Self::RestartPostgres => run.postgres.stop_immediately().await,
            Self::StopPostgres => run.postgres.signal_all(Signal::SIGSTOP),
            Self::CutAnswers(broker, kind, after) => run.to_postgres[broker].cut(kind, Some(after)),
            Self::ResetAll(broker) => run.to_postgres[broker].cut(ALL, None),
            Self::HoldConnections(broker, kind) => run.to_postgres[broker].set(kind, Mode::Hold),
            Self::RefuseConnections(broker, kind) => {
                run.to_postgres[broker].set(kind, Mode::Refuse);
                run.to_postgres[broker].cut(kind, None);
            }
            Self::Delay(broker, milliseconds) => {
                let delay = Mode::Delay(Duration::from_millis(milliseconds));
                run.to_postgres[broker].set(ALL, delay);
            }
            Self::CutClients(broker, after) => run.to_broker[broker].cut("", Some(after)),
            Self::HoldClients(broker) => run.to_broker[broker].set("", Mode::Hold),
            Self::HoldRow => {
                // Skips rows that others hold: they may wait for rows that this transaction holds.
                let hold = "begin;
                    select 1 from trunkline.topic_head for update skip locked;
                    select 1 from trunkline.topic for update skip locked;
                    select 1 from trunkline.consumer_topic for update skip locked;
                    select 1 from trunkline.producer_topic for update skip locked;
                    select pg_sleep(1.5); rollback";
                // Another fault may terminate this session.
                let _ = run.sql().await.batch_execute(hold).await;
            }
            Self::FillDisk => return site.fill_the_disk().await,
            Self::FillLockTable => {
                return Leftover::Taken(Box::new(run.fill_the_lock_table().await));
            }
            Self::TakeConnections => {
                return Leftover::Taken(Box::new(run.take_all_connections().await));
            }
            Self::Part(broker) => {
                if let Some(partition) = Partition::of(run.address_of(broker)) {
                    return Leftover::Taken(Box::new(partition));
                }
            }
            Self::JumpClocks(time) => {
                if let Some(clock) = &site.clock {
                    clock.shift(time);
                }
            }
            Self::StopReading => {
                let stopped = Stopped::begin(run).await;
                stopped.more(20).await;
                return Leftover::Streams(Box::new(stopped));
            }
            Self::FailOver | Self::FailOverTooEarly => return self.fail_over(site).await,
            Self::LockAccess => {
                let lock = "begin; lock table trunkline.access_version, trunkline.access_token,
                    trunkline.access_grant in access exclusive mode";
                let sql = run.sql().await;
                sql.batch_execute(lock).await.unwrap();
                run.work_for(UNCONFIRMED).await;
                return Leftover::Taken(Box::new(sql));
            }
            Self::HoldAccess => {
                run.to_postgres.iter().for_each(|proxy| proxy.set(ACCESS, Mode::Hold));
                run.work_for(UNCONFIRMED).await;
            }
            Self::RotateTokens { revoked_first } => {
                run.access().rotate(&run.brokers, revoked_first).await;
            }
            Self::WithdrawGrants { leaves_another } => {
                run.access().withdraw_grants(&mut run.sql().await, leaves_another).await;
            }
        }
        Leftover::Nothing
    }

    /// Creates a standby, and replaces the primary with it.
    async fn fail_over(self, site: &mut Site) -> Leftover {
        let run = &mut site.run;
        site.standbys += 1;
        let name = format!("standby_{}", site.standbys);
        let Some(standby) = run.postgres.start_standby(&name).await else {
            return Leftover::Nothing;
        };
        run.postgres.make_synchronous(&name).await;
        run.work_until_stored(100).await;
        if self == Self::FailOver {
            run.postgres.lose_power().await;
            standby.promote().await;
            run.switch_to(standby);
            return Leftover::Nothing;
        }
        run.postgres.signal_all(Signal::SIGSTOP);
        standby.promote().await;
        let primary = run.switch_to(standby);
        primary.signal_all(Signal::SIGCONT);
        Leftover::Primary(Box::new(primary))
    }

    pub async fn end(self, site: &mut Site, leftover: Leftover) {
        let run = &mut site.run;
        match leftover {
            Leftover::Streams(stopped) => stopped.end().await,
            Leftover::Primary(mut primary) => primary.lose_power().await,
            Leftover::Taken(taken) => drop(taken),
            Leftover::Nothing => {}
        }
        match self {
            Self::KillBroker(broker) | Self::DrainBroker(broker) => {
                run.brokers[broker].start_again().await;
            }
            Self::StopBroker(broker) | Self::FenceBroker(broker) => {
                run.brokers[broker].signal(Signal::SIGCONT);
            }
            Self::RestartPostgres => run.postgres.start_again().await,
            Self::StopPostgres => run.postgres.signal_all(Signal::SIGCONT),
            Self::KillBackend(_) | Self::TakeConnections => run.postgres.until_ready().await,
            // A server that could not write its write-ahead log has exited.
            Self::FillDisk => run.postgres.recovers().await,
            Self::HoldConnections(broker, kind) | Self::RefuseConnections(broker, kind) => {
                run.to_postgres[broker].set(kind, Mode::Pass);
            }
            Self::Delay(broker, _) => run.to_postgres[broker].set(ALL, Mode::Pass),
            Self::HoldClients(broker) => run.to_broker[broker].set("", Mode::Pass),
            Self::JumpClocks(_) => {
                if let Some(clock) = &site.clock {
                    clock.shift("+0");
                }
            }
            Self::HoldAccess => run.to_postgres.iter().for_each(|proxy| {
                proxy.cut(ACCESS, None);
                proxy.set(ACCESS, Mode::Pass);
            }),
            Self::WithdrawGrants { .. } => run.access().restore_grants(&mut run.sql().await).await,
            Self::EndSessions(_)
            | Self::CancelStatements
            | Self::CutAnswers(..)
            | Self::ResetAll(_)
            | Self::CutClients(..)
            | Self::HoldRow
            | Self::FillLockTable
            | Self::Part(_)
            | Self::StopReading
            | Self::FailOver
            | Self::FailOverTooEarly
            | Self::LockAccess
            | Self::RotateTokens { .. } => {}
        }
        run.fault(&format!("{self:?}"), false);
    }
}

impl Site {
    /// Fills the disk, and makes the server write until it has used up its reserved segments, too.
    async fn fill_the_disk(&self) -> Leftover {
        let Some(disk) = &self.disk else { return Leftover::Nothing };
        let sql = self.run.sql().await;
        let filler = disk.fill();
        let write = "select pg_logical_emit_message(false, 'faults', repeat('x', 1000000)), pg_switch_wal()";
        for _ in 0..1_000 {
            if sql.simple_query(write).await.is_err() {
                return Leftover::Taken(Box::new(filler));
            }
        }
        panic!("the server can still write although the disk is full");
    }
}
