//! All faults mixed, for as long as one likes: three brokers, faults by chance, two at a time now
//! and then, and the checks at the end.
//!
//! What happens follows from the seed; when it happens also depends on the machine.

use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::Signal;

use crate::{
    proxy::{ALL, Mode},
    run::{KINDS, Run, Setup},
};

const BROKERS: usize = 3;

/// A soak takes many minutes: its clients work at a pace at which all of it can be read again.
const LEISURE: u64 = 5;

/// What breaks, and how it is mended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    KillBroker(usize),
    StopBroker(usize),
    /// Its sessions end while it stands still, so that its leases go to others.
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
}

impl Fault {
    /// The next fault: of a deck of all of them, shuffled anew when it is through.
    fn draw(deck: &mut Vec<u8>, chances: &mut Rng) -> Self {
        if deck.is_empty() {
            deck.extend(0..17);
            chances.shuffle(deck);
        }
        let number = deck.pop();
        let kind = KINDS[chances.usize(..KINDS.len())];
        let broker = chances.usize(..BROKERS);
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
            9 => Self::CutAnswers(broker, kind, chances.usize(..300)),
            10 => Self::ResetAll(broker),
            11 => Self::HoldConnections(broker, kind),
            12 => Self::RefuseConnections(broker, kind),
            13 => Self::Delay(broker, chances.u64(5..200)),
            14 => Self::CutClients(broker, chances.usize(..3_000)),
            15 => Self::HoldClients(broker),
            _ => Self::HoldRow,
        }
    }

    /// Whether it and another one break things that have nothing to do with each other.
    fn goes_with(self, other: Self) -> bool {
        let of_postgres = |fault| {
            matches!(
                fault,
                Self::RestartPostgres | Self::StopPostgres | Self::KillBackend(_) | Self::HoldRow
            )
        };
        let of_broker = |fault| match fault {
            Self::KillBroker(broker)
            | Self::StopBroker(broker)
            | Self::FenceBroker(broker)
            | Self::DrainBroker(broker) => Some(broker),
            _ => None,
        };
        // A run asks the server for what it needs to break something.
        let asks = |fault| {
            matches!(
                fault,
                Self::FenceBroker(_)
                    | Self::EndSessions(_)
                    | Self::CancelStatements
                    | Self::DrainBroker(_)
            ) || of_postgres(fault)
        };
        !(asks(self) && asks(other))
            && (of_broker(self).is_none() || of_broker(self) != of_broker(other))
    }

    async fn begin(self, run: &mut Run) {
        run.fault(&format!("{self:?}"), true);
        match self {
            Self::KillBroker(broker) => run.brokers[broker].kill().await,
            Self::StopBroker(broker) => run.brokers[broker].signal(Signal::SIGSTOP),
            Self::FenceBroker(broker) => {
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
                // What else breaks may have left none.
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
                let hold = "begin; select 1 from trunkline.topic_head for update;
                    select pg_sleep(1.5); rollback";
                // It may be ended by what else breaks.
                let _ = run.sql().await.batch_execute(hold).await;
            }
        }
    }

    async fn end(self, run: &mut Run) {
        match self {
            Self::KillBroker(broker) | Self::DrainBroker(broker) => {
                run.brokers[broker].start_again().await;
            }
            Self::StopBroker(broker) | Self::FenceBroker(broker) => {
                run.brokers[broker].signal(Signal::SIGCONT);
            }
            Self::RestartPostgres => run.postgres.start_again().await,
            Self::StopPostgres => run.postgres.signal_all(Signal::SIGCONT),
            Self::KillBackend(_) => run.postgres.answers().await,
            Self::HoldConnections(broker, kind) | Self::RefuseConnections(broker, kind) => {
                run.to_postgres[broker].set(kind, Mode::Pass);
            }
            Self::Delay(broker, _) => run.to_postgres[broker].set(ALL, Mode::Pass),
            Self::HoldClients(broker) => run.to_broker[broker].set("", Mode::Pass),
            Self::EndSessions(_)
            | Self::CancelStatements
            | Self::CutAnswers(..)
            | Self::ResetAll(_)
            | Self::CutClients(..)
            | Self::HoldRow => {}
        }
        run.fault(&format!("{self:?}"), false);
    }
}

/// Each of them once, more or less.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_soak() {
    soak("soak-short", 40, 7).await;
}

/// As long as the variables say: `make soak`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as one likes: make soak SECONDS=… SEED=…"]
async fn a_long_soak() {
    let number = |name: &str, default| {
        std::env::var(name).ok().map_or(default, |text| text.parse::<u64>().expect(name))
    };
    let (seconds, seed) =
        (number("SOAK_SECONDS", 300), number("SOAK_SEED", fastrand::u64(..1_000_000)));
    println!("to repeat it: make soak SECONDS={seconds} SEED={seed}");
    soak("soak", seconds, seed).await;
    println!("to repeat it: make soak SECONDS={seconds} SEED={seed}");
}

async fn soak(name: &str, seconds: u64, seed: u64) {
    let mut run = Run::start(
        name,
        Setup { brokers: BROKERS, seed, leisure: LEISURE, may_be_silent: true, ..Setup::default() },
    )
    .await;
    let mut chances = run.world.chances("faults");
    let mut deck = Vec::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    run.works(200).await;
    while Instant::now() < end {
        let first = Fault::draw(&mut deck, &mut chances);
        let second = (chances.u8(..3) == 0).then(|| Fault::draw(&mut deck, &mut chances));
        let second = second.filter(|second| first.goes_with(*second));
        println!("{:>4} s left: {first:?} {second:?}", (end - Instant::now()).as_secs());
        // Whoever asks the server does so before it is broken.
        let mut faults: Vec<Fault> = second.into_iter().chain([first]).collect();
        faults.sort_by_key(|fault| matches!(fault, Fault::RestartPostgres | Fault::StopPostgres));
        for fault in &faults {
            fault.begin(&mut run).await;
        }
        run.goes_on_for(Duration::from_millis(chances.u64(..5_000))).await;
        // Mended in the opposite order, as one may stand on the other.
        for fault in faults.iter().rev() {
            fault.end(&mut run).await;
        }
        run.works(100).await;
    }
    run.finish().await;
}
