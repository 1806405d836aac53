//! Waits with a deadline, and ports that nobody uses.

use std::{
    io::Write as _,
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// How long a run waits for what must come.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Says something that is read though the test passes.
pub fn say(what: &str) {
    // What is printed is kept back then, but not what is written.
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Waits for what must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(DEADLINE, what, future).await
}

/// Waits for what must come in a time of its own.
pub async fn within<T>(time: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(time, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not in {time:?}"),
    }
}

/// Asks again until the answer is yes: for what sends no signal.
pub async fn until(what: &str, asked: impl AsyncFnMut() -> bool) {
    until_within(DEADLINE, what, asked).await;
}

/// Asks again until the answer is yes, for a time of its own.
pub async fn until_within(time: Duration, what: &str, asked: impl AsyncFnMut() -> bool) {
    assert!(comes_true_within(time, asked).await, "{what}: not in {time:?}");
}

/// Asks again until the answer is yes; false if it is not in time.
pub async fn comes_true_within(time: Duration, mut asked: impl AsyncFnMut() -> bool) -> bool {
    let asking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if asked().await {
                return;
            }
        }
    };
    tokio::time::timeout(time, asking).await.is_ok()
}

/// A port of this machine's loopback for somebody who listens there, goes, and comes back: none
/// that the kernel gives to connections, which would take it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Other processes of this kind begin elsewhere.
    let first = std::process::id().wrapping_mul(61);
    loop {
        let port = 12_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port as u16)).is_ok() {
            return port as u16;
        }
    }
}
