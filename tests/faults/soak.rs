//! All faults mixed, for as long as one likes: three brokers, faults by chance, two at a time now
//! and then, and the checks at the end.
//!
//! What happens follows from the seed; when it happens also depends on the machine.

mod fault;

use std::time::{Duration, Instant};

use fault::{BROKERS, Fault, Site};

use crate::{
    clock::Clock,
    postgres::Postgres,
    run::{Run, Setup},
    tmpfs::Tmpfs,
};

/// A soak takes many minutes: its clients work at a pace at which all of it can be read again.
const LEISURE: u64 = 5;

/// Each of them once, more or less.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_soak() {
    soak("soak-short", 80, 7).await;
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
    let mut site = prepare(name, seed).await;
    let mut chances = site.run.world.chances("faults");
    let (mut deck, mut put_off) = (Vec::new(), None);
    let end = Instant::now() + Duration::from_secs(seconds);
    site.run.works(200).await;
    while Instant::now() < end {
        let first = put_off.take().unwrap_or_else(|| Fault::draw(&mut deck, &mut chances));
        let second = (chances.u8(..3) == 0).then(|| Fault::draw(&mut deck, &mut chances));
        // What does not go with the first comes next.
        put_off = second.filter(|second| !first.goes_with(*second));
        let second = second.filter(|second| first.goes_with(*second));
        println!("{:>4} s left: {first:?} {second:?}", (end - Instant::now()).as_secs());
        let mut faults: Vec<Fault> = second.into_iter().chain([first]).collect();
        faults.sort_by_key(Fault::turn);
        let mut broken = Vec::new();
        for fault in faults {
            broken.push((fault, fault.begin(&mut site).await));
        }
        site.run.goes_on_for(Duration::from_millis(chances.u64(..5_000))).await;
        // Mended in the opposite order, as one may stand on the other.
        while let Some((fault, left)) = broken.pop() {
            fault.end(&mut site, left).await;
        }
        site.run.works(100).await;
    }
    println!("MiB of each broker: {:?}", site.run.memory());
    site.run.finish().await;
}

/// Three brokers whose clocks can jump, and a server whose log of changes has a small disk.
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
        leisure: LEISURE,
        may_be_silent: true,
        ..Setup::default()
    };
    let run = Run::start_on(name, setup, postgres).await;
    Site { run, disk, clock, standbys: 0 }
}
