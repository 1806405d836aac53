//! Waits with a deadline, and free ports.

use std::{
    io::Write as _,
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// How long a run waits for anything that must happen.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Prints a line that is shown even if the test passes.
pub fn print_always(what: &str) {
    // The test harness captures `eprintln!`, but not direct writes.
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Waits for a future until the deadline.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(DEADLINE, what, future).await
}

/// Waits for a future with a time limit.
pub async fn within<T>(time: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(time, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {time:?}"),
    }
}

/// Polls a condition until it holds, for what sends no signal.
pub async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    until_within(DEADLINE, what, condition).await;
}

/// Polls a condition until it holds, with a time limit.
pub async fn until_within(time: Duration, what: &str, condition: impl AsyncFnMut() -> bool) {
    assert!(holds_within(time, condition).await, "{what}: not within {time:?}");
}

/// Polls a condition until it holds; false if it does not within the time.
pub async fn holds_within(time: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let polling = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if condition().await {
                return;
            }
        }
    };
    tokio::time::timeout(time, polling).await.is_ok()
}

/// A loopback port for a process that may restart there: outside the range from which the kernel
/// picks ports of connections, as one of those could take it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Other test processes start elsewhere.
    let first = std::process::id().wrapping_mul(61);
    loop {
        let port = 12_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port as u16)).is_ok() {
            return port as u16;
        }
    }
}
