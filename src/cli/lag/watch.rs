//! `trunkline lag --watch`: lists the consumers again and again.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use crossterm::{
    cursor::MoveTo,
    queue,
    style::Print,
    terminal::{Clear, ClearType, size},
};
use tokio::time::MissedTickBehavior;

use super::super::{
    escape::printable,
    failure::{Failure, print_notice},
    output::{OutputArgs, OutputFormat, Table},
    reading,
    top::parse_interval,
};

/// The consumers as they are printed.
pub(super) struct LagList {
    pub(super) table: Table,
    /// The number of rows.
    pub(super) shown: usize,
    /// What to say beside the list.
    pub(super) notice: Option<String>,
}

/// Parses the value of `--watch`. What looks like a topic's name gets a hint, as the value is
/// optional and topics follow.
pub(super) fn parse_watch(text: &str) -> Result<Duration, String> {
    parse_interval(text).map_err(|problem| {
        format!("{problem}: give an interval such as 5s, or put --watch after the topics")
    })
}

/// Lists the consumers until Ctrl-C.
pub(super) async fn watch(
    output: OutputArgs,
    interval: Duration,
    list: impl AsyncFn() -> Result<LagList, Failure>,
) -> Result<(), Failure> {
    tokio::select! {
        ended = reading::while_read(list_again(output, interval, list)) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

async fn list_again(
    output: OutputArgs,
    interval: Duration,
    list: impl AsyncFn() -> Result<LagList, Failure>,
) -> Result<(), Failure> {
    let mut display = Display::new(output);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match list().await {
            Ok(list) => display.show(list)?,
            Err(failure) if failure.is_unavailable() => display.say(failure.message())?,
            Err(failure) => return Err(failure),
        }
    }
}

/// Where the lists are shown.
enum Display {
    /// A terminal, on which each list takes the place of the one before.
    Terminal,
    /// A file or a pipe, with an empty line between two lists.
    Tables { has_printed: bool },
    /// A line of JSON for each list.
    Lines,
}

impl Display {
    fn new(output: OutputArgs) -> Self {
        match output.format {
            OutputFormat::Json => Self::Lines,
            OutputFormat::Table if io::stdout().is_terminal() => Self::Terminal,
            OutputFormat::Table => Self::Tables { has_printed: false },
        }
    }

    fn show(&mut self, list: LagList) -> io::Result<()> {
        let LagList { table, shown, notice } = list;
        match self {
            Self::Lines => table.print_json_line(&mut io::stdout()),
            Self::Terminal => {
                let mut text = Vec::new();
                if shown > 0 {
                    table.print_rows(&mut text)?;
                }
                let mut text = String::from_utf8_lossy(&text).into_owned();
                text.push_str(notice.as_deref().unwrap_or_default());
                redraw(&text)
            }
            Self::Tables { has_printed } => {
                let mut out = io::stdout();
                if std::mem::replace(has_printed, true) {
                    writeln!(out)?;
                }
                match shown {
                    0 => writeln!(out, "{}", notice.unwrap_or_default())?,
                    _ => table.print_rows(&mut out)?,
                }
                out.flush()
            }
        }
    }

    fn say(&self, problem: &str) -> io::Result<()> {
        match self {
            Self::Terminal => redraw(&printable(problem)),
            _ => {
                print_notice(problem);
                Ok(())
            }
        }
    }
}

/// Replaces what the terminal shows, without clearing it first: that would flicker.
fn redraw(text: &str) -> io::Result<()> {
    // Some terminals do not say how high they are.
    let rows = size().map_or(0, |(_, rows)| rows);
    let height = if rows > 0 { usize::from(rows) } else { 24 };
    let time = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
    let lines = format!("{time}\n\n{text}");
    let mut out = io::stdout().lock();
    queue!(out, MoveTo(0, 0))?;
    for line in lines.lines().take(height.saturating_sub(1)) {
        queue!(out, Print(line), Clear(ClearType::UntilNewLine), Print("\r\n"))?;
    }
    queue!(out, Clear(ClearType::FromCursorDown))?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_in_place_of_the_interval_is_explained() {
        assert_eq!(parse_watch("5s"), Ok(Duration::from_secs(5)));
        assert!(parse_watch("orders").unwrap_err().contains("after the topics"));
    }
}
