//! Rereads a file after the broker has refused one of its lines.
//!
//! Only the broker can refuse some lines: a header may contain a character that the database's
//! encoding lacks. The broker then refuses the whole request, and the sequences of later
//! requests no longer follow the stored ones. So the file is read again from its first line that is
//! not stored, and this time the line is treated as a bad line.

use tonic::Code;

use super::{super::failure::Failure, problem::Problem, sent::RefusedRequest, shipping::Shipping};
use crate::client::{Error, Refusal};

/// Whether a file is read again.
pub(super) enum Reread {
    /// It is read again from its first line that is not stored.
    Begun,
    /// The failure is not the refusal of a line.
    NotPossible,
}

impl Shipping {
    /// Goes back to the first line that is not stored, if the broker has refused that line or a
    /// later one for its value.
    pub(super) async fn reread_after_refusal(&mut self) -> Result<Reread, Failure> {
        // Which line was refused is known only once all requests in flight are answered.
        _ = self.producer.flush().await;
        let Err(Error::Refused(refusal)) = self.sent.take_answers() else {
            return Ok(Reread::NotPossible);
        };
        let Some(index) = refused_message(&refusal) else { return Ok(Reread::NotPossible) };
        let Some(request) = self.sent.refused(index) else { return Ok(Reread::NotPossible) };
        // The user does not know about the request.
        let text = refusal.message.replace(&format!("messages[{index}]."), "");
        if self.is_about_flag(&text) {
            return Err(Failure::usage(format!("--header: {text}")));
        }
        let problem = Problem::new(&text);
        self.go_back(&request, &problem)?;
        self.bad_lines.flush().await?;
        self.refused.add(request.refused.id.number, problem);
        self.reopen().await?;
        Ok(Reread::Begun)
    }

    /// Whether the refusal is about a header that all messages have, so that every line would be
    /// refused.
    fn is_about_flag(&self, text: &str) -> bool {
        let is_named = |c: char| text.contains(&format!("(U+{:04X})", u32::from(c)));
        let mut headers = self.rule.headers.iter();
        headers.any(|(name, value)| name.chars().chain(value.chars()).any(is_named))
    }

    fn go_back(&mut self, request: &RefusedRequest, problem: &Problem) -> Result<(), Failure> {
        let RefusedRequest { first, refused } = request;
        let (file, number, from) = (refused.id.file, refused.id.number, first.id.number);
        let name = &self.names[file];
        let source = &mut self.sources[file];
        let has_gone_back = first.id.file == file
            && source.go_back(first.start, from, self.limit).map_err(|error| {
                Failure::refused(format!("read {name} again from line {from} on: {error}"))
            })?;
        match has_gone_back {
            true => Ok(()),
            false => Err(Failure::refused(format!(
                "line {number} of {name}: {problem}; no line is stored from line {from} on, as the \
                 lines cannot be read again"
            ))),
        }
    }

    /// Opens the producer again, which continues after what is stored.
    async fn reopen(&mut self) -> Result<(), Failure> {
        let expected = self.sequence();
        self.producer = self.options.open_producer(&self.client).await?;
        self.sent.forget_waiting();
        self.current.has_begun = false;
        match self.producer.first_sequence() == expected {
            true => Ok(()),
            false => Err(Failure::refused(
                "another program has also published as this producer: give each program its own \
                 producer id",
            )),
        }
    }
}

/// The index in its request of the message that was refused for its value.
fn refused_message(refusal: &Refusal) -> Option<usize> {
    if refusal.code != Code::InvalidArgument {
        return None;
    }
    let field = refusal.metadata.get("field")?.strip_prefix("messages[")?;
    field.split_once(']')?.0.parse().ok()
}
