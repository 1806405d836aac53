//! `trunkline consume`: prints messages, and commits only what it has written out.

use std::io::{self, BufWriter, Write as _};

use super::{
    Consume, catalog,
    failure::{Failure, say},
    render,
};
use crate::client::{self, Client, Event, Stop, Subscription};

pub(super) async fn run(client: Client, options: Consume) -> Result<(), Failure> {
    let Consume { topic, consumer, .. } = &options;
    if options.register {
        catalog::ensure_topic(&client, topic).await?;
        catalog::ensure_consumer(&client, topic, consumer, options.from).await?;
    }
    let stop = match (options.count, options.until_offset) {
        (Some(count), _) => Some(Stop::Messages(count)),
        (None, Some(end)) => Some(Stop::Offset(end)),
        (None, None) => options.until_caught_up.then_some(Stop::CaughtUp),
    };
    let client_name = options.client_name.clone().unwrap_or_default();
    let asked = client::Options { take_over: options.take_over, client_name, stop };
    let mut subscription = Subscription::new(client, topic, consumer, asked);
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
    let mut waiting = false;
    loop {
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
            Event::Messages(messages) => {
                render::messages(&mut out, &messages, options.json)?;
                out.flush()?;
                if let Some(last) = messages.last() {
                    subscription.commit(last.offset + 1);
                }
            }
            Event::Repositioned { position } => {
                say(&format!("a seek moved the position: going on at offset {position}"));
            }
            Event::Gap { from, to } => {
                say(&format!("offsets {from} to {} are not kept any more", to - 1));
            }
            Event::CaughtUp => {}
            Event::End => return Ok(()),
            Event::Broken(status) => {
                if !std::mem::replace(&mut waiting, true) {
                    say(&format!("lost the broker, trying again: {}", client::explain(&status)));
                }
            }
        }
    }
}
