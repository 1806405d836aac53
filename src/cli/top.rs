//! `trunkline top`: what moves, who is behind, and what is wrong, on a terminal.

mod keys;
mod print;
mod rows;
mod screen;
mod wanted;

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use clap::Args;
use crossterm::event::EventStream;
use futures::StreamExt as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, sleep_until, timeout},
};

use super::{
    failure::{Failure, print_notice},
    output::{OutputArgs, OutputFormat},
};
use crate::{
    client::Client,
    proto::{GetOverviewRequest, GetOverviewResponse},
};

use keys::Asked;
use screen::Screen;
use wanted::{ConsumersBy, TopicsBy, Wanted};

/// How long a broker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What to watch, and how.
#[derive(Args, Debug)]
pub(super) struct TopArgs {
    /// Only topics whose name contains this text, whatever the case, and their consumers.
    #[arg(value_name = "TEXT")]
    contains: Option<String>,
    /// What the topics are sorted by.
    #[arg(long, value_name = "ORDER", value_enum, default_value_t)]
    topics_by: TopicsBy,
    /// What the consumers are sorted by.
    #[arg(long, value_name = "ORDER", value_enum, default_value_t)]
    consumers_by: ConsumersBy,
    /// How many topics, and how many consumers, to list; a terminal shows as many as it has room for.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    limit: u16,
    /// How often to ask the broker: from 1s to 1h.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_interval)]
    interval: Duration,
    /// Print the lists once, and end. Rates are 0 if nobody has asked the broker before.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match interval.as_secs() {
        1..=3_600 => Ok(interval),
        _ => Err("must be from 1s to 1h".to_owned()),
    }
}

pub(super) async fn run(client: &Client, url: &str, args: TopArgs) -> Result<(), Failure> {
    let TopArgs { contains, topics_by, consumers_by, limit, interval, once, output } = args;
    let contains = contains.unwrap_or_default();
    let wanted = Wanted { contains, topics_by, consumers_by, limit };
    if once {
        let overview = ask(client, &wanted).await?;
        return Ok(print::print(&mut io::stdout(), &overview, output)?);
    }
    if output.format == OutputFormat::Json {
        return tokio::select! {
            ended = print_lines(client, &wanted, interval) => ended,
            _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
        };
    }
    if !io::stdout().is_terminal() {
        return Err(Failure::usage(
            "standard output is not a terminal: --once prints the lists once, --output json a line \
             for each interval",
        ));
    }
    watch(client, url, wanted, interval).await
}

async fn ask(client: &Client, wanted: &Wanted) -> Result<GetOverviewResponse, Failure> {
    let request = GetOverviewRequest {
        topic_contains: wanted.contains.clone(),
        topic_order: wanted.topics_by.order().into(),
        max_topics: wanted.limit.into(),
        consumer_order: wanted.consumers_by.order().into(),
        max_consumers: wanted.limit.into(),
    };
    match timeout(TIMEOUT, client.overview().get_overview(request)).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Failure::unavailable(format!("the broker did not answer in {TIMEOUT:?}"))),
    }
}

/// Prints an overview as a line of JSON, again and again.
async fn print_lines(client: &Client, wanted: &Wanted, interval: Duration) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match ask(client, wanted).await {
            Ok(overview) => print::print_line(&mut io::stdout(), &overview)?,
            Err(failure) if failure.is_unavailable() => print_notice(failure.message()),
            Err(failure) => return Err(failure),
        }
    }
}

/// Shows overviews on the terminal until a key ends it.
async fn watch(
    client: &Client,
    url: &str,
    mut wanted: Wanted,
    interval: Duration,
) -> Result<(), Failure> {
    // A terminal is never so high that it would show more.
    wanted.limit = 200;
    let mut ending = Ending::new().map_err(of_terminal)?;
    let _restored = Restored;
    let mut terminal = ratatui::try_init().map_err(of_terminal)?;
    let mut keys = EventStream::new();
    let mut screen = Screen::new(url, wanted);
    let mut next = Instant::now();
    // What keys have changed is asked for also during a pause.
    let mut has_changed = true;
    let mut asking = None;
    loop {
        terminal.draw(|frame| screen.draw(frame)).map_err(of_terminal)?;
        tokio::select! {
            () = sleep_until(next), if asking.is_none() && (has_changed || !screen.is_paused) => {
                let (client, wanted) = (client.clone(), screen.wanted.clone());
                asking = Some(Box::pin(async move { ask(&client, &wanted).await }));
                (next, has_changed) = (Instant::now() + interval, false);
            }
            answer = answered(&mut asking) => {
                asking = None;
                screen.show(answer)?;
            }
            () = ending.signalled() => return Ok(()),
            event = keys.next() => {
                let Some(event) = event else { return Ok(()) };
                match screen.take(&event.map_err(of_terminal)?) {
                    Asked::Nothing => {}
                    Asked::Again => (asking, next, has_changed) = (None, Instant::now(), true),
                    Asked::Pause => asking = None,
                    Asked::End => return Ok(()),
                }
            }
        }
    }
}

fn of_terminal(error: io::Error) -> Failure {
    Failure::refused(format!("use the terminal: {error}"))
}

/// The signals that end the command. On a terminal, Ctrl-C is a key.
struct Ending([Signal; 3]);

impl Ending {
    fn new() -> io::Result<Self> {
        let [hangup, interrupt, terminate] =
            [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        Ok(Self([hangup?, interrupt?, terminate?]))
    }

    async fn signalled(&mut self) {
        let [hangup, interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Waits for an answer; for ever if nothing was asked.
async fn answered<F: Future + Unpin>(asking: &mut Option<F>) -> F::Output {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// Puts the terminal back as it was when it is dropped, also if the command panics or its set-up fails.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_limits() {
        assert_eq!(parse_interval("1500ms"), Ok(Duration::from_millis(1_500)));
        for out_of_range in ["999ms", "2h", "500000000years"] {
            assert_eq!(parse_interval(out_of_range), Err("must be from 1s to 1h".to_owned()));
        }
        assert!(parse_interval("soon").is_err());
    }
}
