//! The signals that a shipper heeds.

use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

use super::super::super::failure::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Terminate,
    Interrupt,
    HangUp,
}

pub(super) struct Signals {
    terminate: Listener,
    interrupt: Listener,
    hang_up: Listener,
    /// Whether SIGHUP came while only the others were awaited.
    was_hung_up: bool,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::refused(format!("listen for signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            was_hung_up: false,
        })
    }

    pub(super) async fn next(&mut self) -> Signal {
        if std::mem::take(&mut self.was_hung_up) {
            return Signal::HangUp;
        }
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.hang_up.recv() => Signal::HangUp,
        }
    }

    /// The next signal that stops the command.
    pub(super) async fn next_stop(&mut self) -> Signal {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Signal::Terminate,
                _ = self.interrupt.recv() => return Signal::Interrupt,
                _ = self.hang_up.recv() => self.was_hung_up = true,
            }
        }
    }
}
