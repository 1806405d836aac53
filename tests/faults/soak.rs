//! All faults in random order, for any time, on three brokers: sometimes two at a time, and the
//! checks at the end.
//!
//! The seed determines what happens; when it happens also depends on the machine.

mod fault;

use std::time::{Duration, Instant};

use fault::{BROKERS, Fault, Site};

use crate::{
    clock::Clock,
    postgres::Postgres,
    run::{Run, Setup},
    tmpfs::Tmpfs,
};

/// A soak takes many minutes, so its clients are slow enough that everything can be read again.
const SLOWDOWN: u64 = 5;

/// Long enough for most faults to happen once.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_soak() {
    soak("soak-short", 90, 7).await;
}

/// Runs for as long as the environment says: `make soak`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs as long as requested: make soak SECONDS=… SEED=…"]
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
    let mut site = prepare(name, seed).await;
    let mut rng = site.run.world.rng("faults");
    let (mut deck, mut postponed) = (Vec::new(), None);
    let end = Instant::now() + Duration::from_secs(seconds);
    site.run.work_until_stored(200).await;
    while Instant::now() < end {
        let first = postponed.take().unwrap_or_else(|| Fault::draw(&mut deck, &mut rng));
        let second = (rng.u8(..3) == 0).then(|| Fault::draw(&mut deck, &mut rng));
        // A fault that is incompatible with the first one comes next.
        postponed = second.filter(|second| !first.is_compatible_with(*second));
        let second = second.filter(|second| first.is_compatible_with(*second));
        println!("{:>4} s left: {first:?} {second:?}", (end - Instant::now()).as_secs());
        let mut faults: Vec<Fault> = second.into_iter().chain([first]).collect();
        faults.sort_by_key(Fault::order);
        let mut begun = Vec::new();
        for fault in faults {
            begun.push((fault, fault.begin(&mut site).await));
        }
        site.run.work_for(Duration::from_millis(rng.u64(..5_000))).await;
        // Healed in the opposite order, as one may depend on the other.
        while let Some((fault, leftover)) = begun.pop() {
            fault.end(&mut site, leftover).await;
        }
        site.run.work_until_stored(100).await;
    }
    println!("MiB of each broker: {:?}", site.run.memory());
    site.run.finish().await;
}

/// Three brokers whose clocks can jump, and a server with its write-ahead log on a small disk.
async fn prepare(name: &str, seed: u64) -> Site {
    let disk = Tmpfs::mount("1g");
    let postgres = match &disk {
        Some(disk) => Postgres::start_with_wal_on(disk, &[]).await,
        None => Postgres::start(&[]).await,
    };
    let clock = Clock::new();
    let environment = clock.as_ref().map(Clock::environment);
    let setup = Setup {
        brokers: BROKERS,
        environment: environment.as_ref().map_or(&[], |variables| variables),
        seed,
        slowdown: SLOWDOWN,
        may_be_silent: true,
        may_be_denied: true,
        ..Setup::secured()
    };
    let run = Run::start_on(name, setup, postgres).await;
    Site { run, disk, clock, standbys: 0 }
}
