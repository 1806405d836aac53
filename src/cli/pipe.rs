//! The pipe that standard output may be, as its reader on the other end uses it.

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

/// How often a pipe is asked for its reader while nothing is written, which alone would tell.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Standard output, if it is a pipe.
pub(super) struct Pipe(Option<File>);

impl Pipe {
    pub(super) fn of_standard_output() -> io::Result<Self> {
        let file = standard_output()?;
        let is_pipe = file.metadata()?.file_type().is_fifo();
        Ok(Self(is_pipe.then_some(file)))
    }

    /// Bytes that were written, but not read yet. Those of other programs that write to the same
    /// pipe count too.
    pub(super) fn unread(&self) -> u64 {
        // Where a system cannot tell, what is written counts as read.
        self.0.as_ref().and_then(|pipe| ioctl_fionread(pipe).ok()).unwrap_or(0)
    }

    /// Whether nobody can read what is written.
    pub(super) fn is_reader_gone(&self) -> bool {
        let Some(pipe) = &self.0 else { return false };
        // An error shows itself without being asked for.
        let mut asked = [PollFd::new(pipe, PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut asked, Some(&at_once)).is_ok() && asked[0].revents().contains(PollFlags::ERR)
    }

    /// Waits until the reader has gone; for ever, if there is none.
    pub(super) async fn reader_gone(&self) {
        if self.0.is_none() {
            std::future::pending().await
        }
        while !self.is_reader_gone() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Standard output without a buffer: what is written is taken by the system, or was not written.
pub(super) fn standard_output() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}
