//! The formats in which messages are printed.

use std::io::{self, Write};

use clap::Args;

use super::{escape::Data, timestamp};
use crate::client::Message;

/// How to print messages; by default, the payload and a line feed.
#[derive(Args, Debug, Default)]
pub(super) struct FormatArgs {
    /// Print each message as a JSON object with its offset, key, headers, time, producer and
    /// payload.
    #[arg(long, conflicts_with = "format")]
    pub(super) json: bool,

    /// Print each message in this format: %o offset, %t time, %T milliseconds since 1970, %k key,
    /// %h headers, %p payload, %s the payload's size, %P producer, %c topic, %% a percent sign;
    /// \n, \t, \r, \0, \\ and \xHH as usual. The message's parts are printed byte for byte, but
    /// escaped on a terminal.
    #[arg(short, long, value_name = "FORMAT", value_parser = Format::parse)]
    pub(super) format: Option<Format>,
}

/// A parsed `--format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format(Vec<Element>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Element {
    Text(Vec<u8>),
    Offset,
    Time,
    Milliseconds,
    Key,
    Headers,
    Payload,
    Size,
    Producer,
    Topic,
}

impl Format {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut elements = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let element = match c {
                '%' => match rest.next() {
                    Some('%') => {
                        literal.push(b'%');
                        continue;
                    }
                    Some('o') => Element::Offset,
                    Some('t') => Element::Time,
                    Some('T') => Element::Milliseconds,
                    Some('k') => Element::Key,
                    Some('h') => Element::Headers,
                    Some('p') => Element::Payload,
                    Some('s') => Element::Size,
                    Some('P') => Element::Producer,
                    Some('c') => Element::Topic,
                    Some(other) => return Err(format!("%{other} has no meaning; see --help")),
                    None => return Err("write a percent sign as %%".to_owned()),
                },
                '\\' => {
                    literal.push(escaped(&mut rest)?);
                    continue;
                }
                c => {
                    literal.extend(c.encode_utf8(&mut [0; 4]).bytes());
                    continue;
                }
            };
            if !literal.is_empty() {
                elements.push(Element::Text(std::mem::take(&mut literal)));
            }
            elements.push(element);
        }
        if !literal.is_empty() {
            elements.push(Element::Text(literal));
        }
        if elements.is_empty() {
            return Err("an empty format prints nothing; see --help".to_owned());
        }
        Ok(Self(elements))
    }

    pub(super) fn print(
        &self,
        out: &mut impl Write,
        topic: &str,
        message: &Message,
        data: Data,
    ) -> io::Result<()> {
        self.0.iter().try_for_each(|element| match element {
            Element::Text(text) => out.write_all(text),
            Element::Offset => write!(out, "{}", message.offset),
            Element::Time => {
                write!(out, "{}", timestamp::micros(message.publish_time))
            }
            Element::Milliseconds => {
                let since = message.publish_time.duration_since(std::time::SystemTime::UNIX_EPOCH);
                write!(out, "{}", since.unwrap_or_default().as_millis())
            }
            Element::Key => data.write(out, message.key.as_deref().unwrap_or_default()),
            Element::Headers => {
                let headers = message.headers.iter().map(|(name, value)| format!("{name}={value}"));
                data.write(out, headers.collect::<Vec<_>>().join(",").as_bytes())
            }
            Element::Payload => data.write_payload(out, &message.payload),
            Element::Size => write!(out, "{}", message.payload.len()),
            Element::Producer => data.write(out, message.producer_id.as_bytes()),
            Element::Topic => data.write(out, topic.as_bytes()),
        })
    }
}

/// The byte that an escape sequence stands for; `rest` begins after the backslash.
fn escaped(rest: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match rest.next() {
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some('r') => Ok(b'\r'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = rest.take(2).collect();
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2);
            byte.ok_or_else(|| format!("\\x{digits} is not a byte: give two hexadecimal digits"))
        }
        Some(other) => Err(format!("\\{other} has no meaning; see --help")),
        None => Err("write a backslash as \\\\".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::proto;

    fn print(format: &str) -> String {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let message = Message::from(proto::Message {
            offset: 7,
            payload: "hello".into(),
            key: Some("k".into()),
            headers: [("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())].into(),
            publish_time: Some(time.into()),
            producer_id: "shop".to_owned(),
        });
        let mut out = Vec::new();
        Format::parse(format).unwrap().print(&mut out, "orders", &message, Data::Raw).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_message_is_printed_in_the_given_format() {
        assert_eq!(print(r"%o %t %k %p\n"), "7 1970-01-01T00:00:01.500000Z k hello\n");
        assert_eq!(print(r"%c\t%P\t%h\t%s\t%T\\"), "orders\tshop\ta=b,c=d\t5\t1500\\");
        assert_eq!(print(r"100%% ü\x41\0"), "100% üA\0");
    }

    #[test]
    fn an_invalid_format_is_refused() {
        for bad in ["", "%", "%z", r"\", r"\q", r"\x4", r"\xzz"] {
            assert!(Format::parse(bad).is_err(), "{bad}");
        }
    }
}
