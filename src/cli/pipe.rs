//! Standard output as a pipe: how much its reader has read, and whether it has closed its end.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::FileTypeExt as _},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionread,
};

/// How often to check that a pipe still has a reader: only a failing write would reveal it
/// otherwise.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Standard output, if it is a pipe.
pub(super) struct Pipe(Option<File>);

impl Pipe {
    pub(super) fn of_standard_output() -> io::Result<Self> {
        let file = standard_output()?;
        let is_pipe = file.metadata()?.file_type().is_fifo();
        Ok(Self(is_pipe.then_some(file)))
    }

    /// The number of bytes that were written but not read yet. Bytes that other programs wrote to
    /// the same pipe are included.
    pub(super) fn unread(&self) -> u64 {
        // If the system cannot tell, written bytes count as read.
        self.0.as_ref().and_then(|pipe| ioctl_fionread(pipe).ok()).unwrap_or(0)
    }

    /// Whether the pipe has no reader left.
    pub(super) fn is_reader_gone(&self) -> bool {
        let Some(pipe) = &self.0 else { return false };
        // `poll` reports errors without being asked for them.
        let mut asked = [PollFd::new(pipe, PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut asked, Some(&at_once)).is_ok() && asked[0].revents().contains(PollFlags::ERR)
    }

    /// Waits until the pipe has no reader left; for ever if standard output is not a pipe.
    pub(super) async fn reader_gone(&self) {
        if self.0.is_none() {
            std::future::pending().await
        }
        while !self.is_reader_gone() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Standard output without a buffer: a write returns how many bytes the system has taken.
pub(super) fn standard_output() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}
