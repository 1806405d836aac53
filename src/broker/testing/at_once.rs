//! Runs two threads at the same moment, so often that they race where it matters.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

const TRIES: usize = 20_000;

/// How long to keep trying: long enough for some tries to race.
const TRY_FOR: Duration = Duration::from_secs(1);

/// Where two threads wait for each other. They spin, as the system's barrier wakes one of them too
/// late.
#[derive(Default)]
struct SpinBarrier(AtomicUsize);

impl SpinBarrier {
    fn wait(&self) {
        let round = self.0.fetch_add(1, Ordering::SeqCst) / 2;
        let mut spins = 0u32;
        while self.0.load(Ordering::SeqCst) < 2 * (round + 1) {
            spins += 1;
            match spins % 1_000 {
                0 => thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

/// Runs `begin` and `end` in two threads at the same moment, many times. After each time one of the
/// threads runs `inspect`.
pub(crate) fn try_at_once<T>(
    begin: impl Fn(usize) -> T + Sync,
    end: impl Fn(T) + Sync,
    inspect: impl Fn(usize) + Sync,
) {
    let (barrier, stop, start) = (SpinBarrier::default(), AtomicBool::new(false), Instant::now());
    let run = |inspects: bool| {
        for number in 0..TRIES {
            let begun = begin(number);
            barrier.wait();
            // One thread is sometimes a little earlier, and sometimes a little later.
            let delay = if inspects { number % 64 } else { 32 };
            (0..delay).for_each(|_| std::hint::spin_loop());
            end(begun);
            barrier.wait();
            if inspects {
                inspect(number);
                stop.store(start.elapsed() > TRY_FOR, Ordering::SeqCst);
            }
            barrier.wait();
            if stop.load(Ordering::SeqCst) {
                return;
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| run(false));
        run(true);
    });
}
