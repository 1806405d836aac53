//! Runs two threads at the same moment, so often that they meet where it matters.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

const TRIES: usize = 20_000;

/// How long the threads try: long enough for some tries to meet.
const ENOUGH: Duration = Duration::from_secs(1);

/// Where two threads wait for each other. They spin, as a barrier of the system's wakes one too late.
#[derive(Default)]
struct Meeting(AtomicUsize);

impl Meeting {
    fn meet(&self) {
        let round = self.0.fetch_add(1, Ordering::SeqCst) / 2;
        let mut looks = 0u32;
        while self.0.load(Ordering::SeqCst) < 2 * (round + 1) {
            looks += 1;
            match looks % 1_000 {
                0 => thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

/// Runs `begin` and `end` in two threads at the same moment, many times. After each time one of them
/// runs `look`.
pub(crate) fn try_at_once<T>(
    begin: impl Fn(usize) -> T + Sync,
    end: impl Fn(T) + Sync,
    look: impl Fn(usize) + Sync,
) {
    let (meeting, stop, start) = (Meeting::default(), AtomicBool::new(false), Instant::now());
    let run = |looks: bool| {
        for number in 0..TRIES {
            let begun = begin(number);
            meeting.meet();
            // One of them comes sometimes a little earlier, sometimes a little later.
            let late = if looks { number % 64 } else { 32 };
            (0..late).for_each(|_| std::hint::spin_loop());
            end(begun);
            meeting.meet();
            if looks {
                look(number);
                stop.store(start.elapsed() > ENOUGH, Ordering::SeqCst);
            }
            meeting.meet();
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
