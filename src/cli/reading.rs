//! Prints messages without a consumer.

use std::io::{self, Write as _};

use super::{escape::Data, failure::Failure, format::FormatArgs, pipe::Pipe, render};
use crate::{
    client::{Client, Message, Start},
    proto::{self, Topic},
};

/// A topic's description.
pub(super) async fn topic(client: &Client, name: &str) -> Result<Topic, Failure> {
    let request = proto::GetTopicRequest { topic: name.to_owned() };
    let found = client.topics().get_topic(request).await?.into_inner().topic;
    Ok(found.unwrap_or_default())
}

/// Prints until done, or until standard output has lost its reader. While nothing is written, as
/// when waiting for a page, nothing else would reveal that.
pub(super) async fn while_read(
    printing: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let pipe = Pipe::of_standard_output()?;
    tokio::select! {
        ended = printing => ended,
        () = pipe.reader_gone() => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
    }
}

/// Prints messages of a topic, from one page to the next.
pub(super) struct PageReader<'a> {
    pub(super) topic: &'a str,
    pub(super) format: &'a FormatArgs,
    /// Where the next page starts.
    pub(super) from: Start,
    /// The number of messages to print at most.
    pub(super) left: u64,
}

impl PageReader<'_> {
    /// Prints messages up to the head, and moves on after each page.
    pub(super) async fn print(&mut self, client: &Client) -> Result<(), Failure> {
        let mut out = io::BufWriter::new(io::stdout());
        let data = Data::of_standard_output();
        while self.left > 0 {
            let request = proto::ReadMessagesRequest {
                topic: self.topic.to_owned(),
                start: Some(self.from.into()),
                max_messages: i32::try_from(self.left).unwrap_or(i32::MAX),
            };
            let page = client.topics().read_messages(request).await?.into_inner();
            let is_last = page.messages.is_empty();
            self.left -= page.messages.len() as u64;
            let messages: Vec<_> = page.messages.into_iter().map(Message::from).collect();
            render::messages(&mut out, self.topic, &messages, self.format, data)?;
            out.flush()?;
            self.from = Start::Offset(page.next_offset);
            if is_last {
                break;
            }
        }
        Ok(())
    }
}
