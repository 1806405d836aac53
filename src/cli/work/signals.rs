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
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::refused(format!("listen for signals: {error}")))
        };
        let (interrupt, terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
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
