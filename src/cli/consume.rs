//! `trunkline consume`: prints messages, and commits only what it has written out.

use std::io::{self, BufWriter, Write as _};

use super::{
    Consume, catalog,
    failure::{Failure, say},
    render,
};
use crate::{
    client::{self, Client, Event, Subscription},
    proto::Message,
};

pub(super) async fn run(client: Client, options: Consume) -> Result<(), Failure> {
    let Consume { topic, consumer, .. } = &options;
    if options.register {
        catalog::ensure_topic(&client, topic).await?;
        catalog::ensure_consumer(&client, topic, consumer, options.from).await?;
    }
    let mut subscription = Subscription::new(client, topic, consumer);
    let ended = tokio::select! {
        ended = print_all(&mut subscription, &options) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    // However it ended, what was written out is committed.
    let closed = subscription.close().await.map_err(Failure::from);
    ended.and(closed)
}

async fn print_all(subscription: &mut Subscription, options: &Consume) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(256 * 1024, io::stdout());
    let mut left = options.count.unwrap_or(u64::MAX);
    let mut waiting = false;
    while left > 0 {
        match subscription.next().await? {
            Event::Attached => {
                if std::mem::take(&mut waiting) {
                    say("attached");
                }
            }
            Event::Standby { holder } => {
                waiting = true;
                say(&format!("waiting as standby: the lease is held by {holder}"));
            }
            Event::Messages(mut messages) => {
                messages.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                print(&mut out, &messages, options.json)?;
                left -= messages.len() as u64;
                if let Some(last) = messages.last() {
                    subscription.commit(last.offset + 1);
                }
            }
            Event::CaughtUp if options.until_caught_up => return Ok(()),
            Event::CaughtUp => {}
            Event::Broken(status) => {
                if !std::mem::replace(&mut waiting, true) {
                    say(&format!("lost the broker, trying again: {}", client::explain(&status)));
                }
            }
        }
    }
    Ok(())
}

fn print(out: &mut BufWriter<io::Stdout>, messages: &[Message], as_json: bool) -> io::Result<()> {
    for message in messages {
        match as_json {
            true => render::json(out, message)?,
            false => render::line(out, message)?,
        }
    }
    out.flush()
}
