//! Messages read without a consumer.

use std::io::{self, Write as _};

use super::{failure::Failure, format::FormatArgs, pipe::Pipe, render};
use crate::{
    client::{Client, Message, Start},
    proto::{self, Topic},
};

/// Describes a topic.
pub(super) async fn topic(client: &Client, name: &str) -> Result<Topic, Failure> {
    let request = proto::GetTopicRequest { topic: name.to_owned() };
    let found = client.topics().get_topic(request).await?.into_inner().topic;
    Ok(found.unwrap_or_default())
}

/// Prints until the reader of standard output has gone. While nothing is written, as a page is
/// waited for, nothing else would tell.
pub(super) async fn while_read(
    printing: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let pipe = Pipe::of_standard_output()?;
    tokio::select! {
        ended = printing => ended,
        () = pipe.reader_gone() => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
    }
}

/// Prints messages up to the head, page by page, and moves `from` behind those it has printed.
pub(super) async fn print(
    client: &Client,
    topic: &str,
    from: &mut Start,
    left: &mut u64,
    format: &FormatArgs,
) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout());
    while *left > 0 {
        let request = proto::ReadMessagesRequest {
            topic: topic.to_owned(),
            start: Some((*from).into()),
            max_messages: i32::try_from(*left).unwrap_or(i32::MAX),
        };
        let page = client.topics().read_messages(request).await?.into_inner();
        let next = Start::Offset(page.next_offset);
        if page.messages.is_empty() {
            *from = next;
            break;
        }
        *left -= page.messages.len() as u64;
        let messages: Vec<_> = page.messages.into_iter().map(Message::from).collect();
        render::messages(&mut out, topic, &messages, format)?;
        out.flush()?;
        *from = next;
    }
    Ok(())
}
