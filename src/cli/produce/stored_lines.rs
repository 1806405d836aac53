//! Lines that are stored already, and a check that the inputs still have the same lines.

use super::super::plural::count;
use super::{super::failure::Failure, message::Rule, problem::excerpt, resume_points::Unsettled};
use crate::{
    client::Client,
    proto::{Message, NewMessage, Producer, ReadMessagesRequest, read_messages_request::Start},
};

/// How many characters of a message are shown.
const SHOWN: usize = 60;

/// Lines to pass over, as they are stored already.
#[derive(Clone)]
pub(super) struct StoredLines {
    /// The number of lines that are left.
    left: u64,
    rule: Rule,
    /// The producer's last message, if it is known to be the last of the lines.
    last_message: Option<Message>,
    pub(super) origin: Origin,
}

/// How the number of stored lines is known.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// Only from the number of messages that the producer has stored.
    AllInputs { stored: u64 },
    /// From the state of a file, and the number of messages stored after it was written.
    File,
}

impl StoredLines {
    /// The first lines of all inputs together, the last of which is `last_message`.
    pub(super) fn of_all_inputs(stored: u64, rule: Rule, last_message: Message) -> Self {
        let origin = Origin::AllInputs { stored };
        Self { left: stored, rule, last_message: Some(last_message), origin }
    }

    /// Lines of a file that were stored after its state was written.
    pub(super) fn of_file(unsettled: Unsettled, last_message: Option<Message>) -> Self {
        let Unsettled { count, rule, is_last } = unsettled;
        let last_message = last_message.filter(|_| is_last);
        Self { left: count, rule, last_message, origin: Origin::File }
    }

    /// How lines became the stored messages.
    pub(super) fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Whether bad lines among them are to be kept, as the earlier run may not have kept them.
    pub(super) fn keeps_bad_lines(&self) -> bool {
        matches!(self.origin, Origin::File)
    }

    /// Counts off a line; returns whether it was the last one. Fails if the last one is not the
    /// producer's last message.
    pub(super) fn count_off(
        &mut self,
        message: &NewMessage,
        number: u64,
        name: &str,
    ) -> Result<bool, Failure> {
        self.left -= 1;
        if self.left > 0 {
            return Ok(false);
        }
        match &self.last_message {
            Some(last) if (&last.payload, &last.key) != (&message.payload, &message.key) => {
                let show = |bytes: &[u8]| excerpt(&String::from_utf8_lossy(bytes), SHOWN);
                Err(Failure::refused(format!(
                    "line {number} of {name} ({:?}) is not the last message that producer {} \
                     published ({:?}, at offset {}): nothing was sent, as these are not the files \
                     that it began with; --restart ships them from their beginning",
                    show(&message.payload),
                    last.producer_id,
                    show(&last.payload),
                    last.offset
                )))
            }
            _ => Ok(true),
        }
    }

    /// The failure of a run whose inputs have fewer lines than are stored.
    pub(super) fn ended_early(&self, names: &[String]) -> Failure {
        let problem = match self.origin {
            Origin::AllInputs { stored } => format!(
                "the input has {}, and this producer has published {stored} before",
                count(stored - self.left, "line")
            ),
            Origin::File => format!(
                "{} more messages of this producer are stored than there are lines in {}",
                self.left,
                names.join(", ")
            ),
        };
        Failure::refused(format!(
            "{problem}: these are not the files that it began with; --restart ships them from \
             their beginning"
        ))
    }
}

/// A producer's last message, if it is still kept.
pub(super) async fn last_message(
    client: &Client,
    producer: &Producer,
) -> Result<Option<Message>, Failure> {
    let Some(offset) = producer.last_offset else { return Ok(None) };
    let start = Some(Start::Offset(offset));
    let request = ReadMessagesRequest { topic: producer.topic.clone(), start, max_messages: 1 };
    let read = match client.topics().read_messages(request).await {
        Ok(page) => page.into_inner().messages.into_iter().next(),
        Err(status) => match Failure::from(status) {
            failure if failure.reason() == Some("OFFSET_OUT_OF_RANGE") => None,
            failure => return Err(failure),
        },
    };
    Ok(read
        .filter(|message| message.offset == offset && message.producer_id == producer.producer_id))
}
