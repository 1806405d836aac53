//! Lines out of chunks of bytes, without a copy for each.

use bytes::{Bytes, BytesMut};

/// Cuts what is read into lines. A line ends with `\n`, which is not part of it; a `\r` before it
/// is.
#[derive(Default)]
pub(super) struct Lines {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line's end.
    searched: usize,
}

impl Lines {
    /// Where to read more into.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole line, if there is one.
    pub(super) fn next_line(&mut self) -> Option<Bytes> {
        let rest = &self.buffer[self.searched..];
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let mut line = self.buffer.split_to(self.searched + end + 1);
        self.searched = 0;
        line.truncate(line.len() - 1);
        Some(line.freeze())
    }

    /// Bytes of the line whose end has not been read yet.
    pub(super) fn unfinished(&self) -> usize {
        self.buffer.len()
    }

    /// The last line, if it has no end.
    pub(super) fn last_line(&mut self) -> Option<Bytes> {
        self.searched = 0;
        (!self.buffer.is_empty()).then(|| self.buffer.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&str]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut cut = Vec::new();
        for chunk in chunks {
            lines.buffer().extend_from_slice(chunk.as_bytes());
            cut.extend(std::iter::from_fn(|| lines.next_line()));
        }
        cut.extend(lines.last_line());
        cut.iter().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }

    #[test]
    fn lines_are_cut_wherever_the_chunks_end() {
        assert_eq!(cut(&["a\nb", "c\n", "\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(cut(&["a\r\nb\n"]), ["a\r", "b"]);
        assert_eq!(cut(&["a", "b", "c"]), ["abc"]);
        assert!(cut(&[""]).is_empty());
    }
}
