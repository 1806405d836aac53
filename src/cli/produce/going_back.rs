//! What becomes of a line whose message only the broker can refuse.
//!
//! A header's text may hold a character that the database's encoding lacks. The request that it is
//! in is refused as a whole, and what was sent after it does not follow what is stored any more. So
//! a file is read again from its first line that is not stored, and by then the line is known as one
//! that cannot be a message.

use tonic::Code;

use super::{
    super::{failure::Failure, lines::Line},
    problem::Problem,
    sent::Mark,
    shipping::Shipping,
};
use crate::client::{Error, Refusal};

/// Lines of the current file that the broker has refused.
#[derive(Default)]
pub(super) struct Refused {
    lines: Vec<RefusedLine>,
}

struct RefusedLine {
    number: u64,
    problem: Problem,
}

impl Refused {
    /// What is wrong with a line that was refused; said once for each reading of it.
    pub(super) fn take(&mut self, number: u64) -> Option<Problem> {
        let at = self.lines.iter().position(|line| line.number == number)?;
        Some(self.lines.swap_remove(at).problem)
    }
}

impl Shipping {
    /// Goes back to the first line that is not stored, if the broker refused one of those behind it
    /// for its value; returns whether it did.
    pub(super) async fn go_back(&mut self) -> Result<bool, Failure> {
        // What is under way is answered before it is known which line it was.
        _ = self.producer.flush().await;
        let Err(Error::Refused(refusal)) = self.sent.take_answers() else { return Ok(false) };
        let Some(index) = refused_message(&refusal) else { return Ok(false) };
        let Some((first, refused)) = self.sent.refused(index) else { return Ok(false) };
        // Of the request, the user knows nothing.
        let text = refusal.message.replace(&format!("messages[{index}]."), "");
        if self.is_of_flag(&text) {
            return Err(Failure::usage(format!("--header: {text}")));
        }
        let problem = Problem::new(&text);
        self.read_again_from(&first, &refused, &problem)?;
        self.bad_lines.flush().await?;
        self.refused.lines.push(RefusedLine { number: refused.number, problem });
        self.open_again().await?;
        Ok(true)
    }

    /// Whether headers that all messages have are at fault, as every line would be refused for them.
    fn is_of_flag(&self, text: &str) -> bool {
        let is_named = |c: char| text.contains(&format!("(U+{:04X})", u32::from(c)));
        let mut headers = self.rule.headers.iter();
        headers.any(|(name, value)| name.chars().chain(value.chars()).any(is_named))
    }

    fn read_again_from(
        &mut self,
        first: &Mark,
        refused: &Mark,
        problem: &Problem,
    ) -> Result<(), Failure> {
        let name = &self.names[refused.file];
        let (number, from) = (refused.number, first.number);
        let source = &mut self.sources[refused.file];
        let limit = self.limit;
        let is_read = first.file == refused.file
            && source.go_back(first.start, from, limit).map_err(|error| {
                Failure::refused(format!("read {name} again from line {from} on: {error}"))
            })?;
        match is_read {
            true => Ok(()),
            false => Err(Failure::refused(format!(
                "line {number} of {name}: {problem}; nothing is stored of the lines from {from} \
                 on, as they cannot be read again"
            ))),
        }
    }

    /// Opens the producer again, which goes on behind what is stored.
    async fn open_again(&mut self) -> Result<(), Failure> {
        let expected = self.sequence();
        self.producer = super::open(&self.client, &self.options).await?;
        self.sent.forget_waiting();
        self.current.has_begun = false;
        match self.producer.first_sequence() == expected {
            true => Ok(()),
            false => Err(Failure::refused(
                "another program has published as this producer meanwhile: give each an id of its own",
            )),
        }
    }

    /// A line that the broker has refused before. All before it is stored first: by the rule alone it
    /// could be a message, so nothing may have to be counted off across it.
    pub(super) async fn take_refused(
        &mut self,
        line: &Line,
        problem: &Problem,
        mark: Mark,
    ) -> Result<(), Failure> {
        self.producer.flush().await?;
        self.sent.take_answers()?;
        if self.rule.on_bad_line.stops() {
            return Err(self.told(line.number, problem));
        }
        self.skip(line, problem, mark, false).await?;
        self.bad_lines.flush().await?;
        self.sent.take_answers()?;
        self.current.has_begun = false;
        Ok(())
    }

    /// Whether a bad line is one that is kept already, as its file is read again.
    pub(super) fn is_kept(&mut self, number: u64) -> bool {
        let place = (self.current.index, number);
        let is_kept = self.dealt_with.is_some_and(|last| place <= last);
        self.dealt_with = self.dealt_with.max(Some(place));
        is_kept
    }
}

/// Which message of its request was refused for its value.
fn refused_message(refusal: &Refusal) -> Option<usize> {
    if refusal.code != Code::InvalidArgument {
        return None;
    }
    let field = refusal.metadata.get("field")?.strip_prefix("messages[")?;
    field.split_once(']')?.0.parse().ok()
}
