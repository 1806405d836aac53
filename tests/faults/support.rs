//! Waits with a deadline, and ports that nobody uses.

use std::{net::TcpListener, time::Duration};

/// How long a run waits for what must come.
pub const DEADLINE: Duration = Duration::from_secs(30);

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
pub async fn until_within(time: Duration, what: &str, mut asked: impl AsyncFnMut() -> bool) {
    within(time, what, async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if asked().await {
                return;
            }
        }
    })
    .await;
}

/// A port of this machine's loopback that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
