//! The last line that a command writes to standard error.

use tokio::{io::AsyncReadExt as _, process::ChildStderr};

use super::super::notices::Notices;

/// How much of the end is kept.
const KEPT_BYTES: usize = 8 * 1024;

/// What to say of a command that says nothing.
const NOTHING: &str = "the command rejected it and gave no reason";

/// Passes standard error on, and keeps its end.
#[derive(Default)]
pub(super) struct LastLine {
    end: Vec<u8>,
}

impl LastLine {
    /// Passes on what a command writes, until the command closes it.
    pub(super) async fn copy(&mut self, stderr: Option<ChildStderr>, notices: &Notices) {
        let Some(mut stderr) = stderr else { return };
        let mut piece = vec![0; KEPT_BYTES];
        while let Ok(count @ 1..) = stderr.read(&mut piece).await {
            self.keep(&piece[..count]);
            notices.pass_on(&piece[..count]).await;
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        self.end.extend_from_slice(piece);
        let surplus = self.end.len().saturating_sub(KEPT_BYTES);
        self.end.drain(..surplus);
    }

    /// The last line that is not blank.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.end);
        let mut lines = text.lines().map(str::trim).rev();
        lines.find(|line| !line.is_empty()).unwrap_or(NOTHING).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_is_not_blank_is_the_reason() {
        let text = |pieces: &[&str]| {
            let mut last_line = LastLine::default();
            pieces.iter().for_each(|piece| last_line.keep(piece.as_bytes()));
            last_line.text()
        };
        assert_eq!(text(&[]), NOTHING);
        assert_eq!(text(&["one\ntw", "o \n \n"]), "two");
        let long = "x".repeat(KEPT_BYTES);
        assert_eq!(text(&["one\n", &long, "\nend"]), "end");
        assert_eq!(text(&["one\n", &long]), long);
    }
}
