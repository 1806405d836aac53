//! Says on standard error what happens, and passes on what commands write there. A thread of its own writes, so
//! nothing else waits for whoever reads it.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::super::{
    failure::notice_line,
    notices::{NoticeLimits, held_back_before},
};

/// How many pieces wait to be written. Beyond that, notices are left out, and commands wait.
const WAITING: usize = 64;

/// How long to wait at the end until everything is written.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Connection,
    Stalled,
    Failed,
    Rejected,
    End,
}

/// What is to be done by the thread that writes.
enum Piece {
    Text(Vec<u8>),
    /// Everything before is written.
    Flush(oneshot::Sender<()>),
}

/// The way to standard error. Cheap to clone.
#[derive(Clone)]
pub(super) struct Notices {
    pieces: mpsc::Sender<Piece>,
    limits: Arc<Mutex<NoticeLimits<Kind>>>,
}

impl Notices {
    pub(super) fn start() -> Self {
        let (pieces, waiting) = mpsc::channel(WAITING);
        // It ends with the last sender. A reader that has stalled keeps it until the process ends.
        tokio::task::spawn_blocking(|| write(waiting));
        Self { pieces, limits: Arc::new(Mutex::new(NoticeLimits::new())) }
    }

    /// Prints a notice, unless many of its kind were printed within a minute, or nobody reads them.
    pub(super) fn print(&self, kind: Kind, text: &str) {
        let Some(held_back) = self.limits.lock().admit(kind, Instant::now()) else { return };
        let before = held_back_before(held_back);
        for line in before.as_deref().into_iter().chain([text]) {
            // If there is no room for it, nobody reads.
            let _ = self.pieces.try_send(Piece::Text(notice_line(line).into_bytes()));
        }
    }

    /// Passes on what a command writes, once there is room for it.
    pub(super) async fn pass_on(&self, piece: &[u8]) {
        // Fails if the thread that writes could not be started.
        let _ = self.pieces.send(Piece::Text(piece.to_vec())).await;
    }

    /// Waits until everything is written, but not for long.
    pub(super) async fn finish(&self) {
        let held_back = self.limits.lock().held_back();
        if held_back > 0 {
            self.print(Kind::End, &format!("{held_back} notices were held back"));
        }
        let (flushed, is_flushed) = oneshot::channel();
        let flush = async {
            if self.pieces.send(Piece::Flush(flushed)).await.is_ok() {
                let _ = is_flushed.await;
            }
        };
        // What a stalled reader does not take is lost.
        let _ = timeout(LAST_WRITES, flush).await;
    }
}

fn write(mut pieces: mpsc::Receiver<Piece>) {
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            // Standard error may be closed.
            Piece::Text(text) => drop(io::stderr().write_all(&text)),
            // Nobody waits for it any more if it took too long.
            Piece::Flush(flushed) => drop(flushed.send(())),
        }
    }
}
