//! The signals that stop a worker.

use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

use super::super::failure::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Interrupt,
    Terminate,
}

pub(super) struct Signals {
    interrupt: Listener,
    terminate: Listener,
    /// The terminal is gone.
    hang_up: Listener,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::refused(format!("listen for signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.hang_up.recv() => Signal::Terminate,
        }
    }
}

impl Signal {
    /// How a worker ends that has done all that it had to do. A service manager's stop is no failure.
    pub(super) fn outcome(self) -> Result<(), Failure> {
        match self {
            Self::Interrupt => Err(Failure::interrupted()),
            Self::Terminate => Ok(()),
        }
    }
}
