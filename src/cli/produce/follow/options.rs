//! The options of `trunkline produce --follow`.

use std::time::Duration;

use clap::Args;
use regex::bytes::Regex;

use super::super::super::failure::Failure;

/// How files are followed.
#[derive(Args, Debug)]
pub(in super::super) struct FollowArgs {
    /// Follow the files: ship what is in them, and then what is appended, until the command is
    /// stopped. A FILE may be a pattern such as '/var/log/app/*.log', in quotes; files that match
    /// later are picked up. Rotated files are read to their end.
    #[arg(long, group = "continues")]
    pub(in super::super) follow: bool,
    /// Name the topic of each file after the file: {filename}, {stem} (the name up to its last dot)
    /// and {directory} stand for its parts. There is no TOPIC then, only FILEs.
    #[arg(long, value_name = "TEMPLATE", requires = "follow")]
    pub(in super::super) topic_from: Option<String>,
    /// End once all that is in the files is shipped.
    #[arg(long, requires = "follow")]
    pub(in super::super) exit_at_end: bool,
    /// Give each message the headers `host` and `file`.
    #[arg(long, requires = "follow")]
    pub(in super::super) file_headers: bool,
    /// Let patterns match files that end in .gz, and unpack them. A .gz file that is named, or
    /// matched by a pattern that ends in .gz, is unpacked without this flag.
    #[arg(long, requires = "follow")]
    pub(in super::super) gzip: bool,
    /// Ship a last line without a line end if it has not grown for this long. Without this flag, it
    /// waits for its end, unless its file was rotated away.
    #[arg(long, value_name = "DURATION", requires = "follow", value_parser = humantime::parse_duration)]
    pub(in super::super) flush_unfinished_after: Option<Duration>,
    /// Lines that match begin a message, and lines that do not match continue it.
    #[arg(long, value_name = "REGEX", requires = "follow")]
    multiline_start: Option<String>,
    /// How long a message of several lines waits for more lines, with --follow.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(in super::super) multiline_timeout: Duration,
    /// How long a file that was rotated away must not have grown before it counts as complete, with
    /// --follow.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(in super::super) rotate_wait: Duration,
    /// How often to look for new files and for growth that the system has not announced, with
    /// --follow.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    pub(in super::super) poll_interval: Duration,
}

/// The range of `--poll-interval`.
const POLL_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3600);

impl FollowArgs {
    /// The pattern of lines that begin a message, if messages have several lines.
    pub(in super::super) fn multiline_start(&self) -> Result<Option<Regex>, Failure> {
        let compile = |pattern: &String| {
            Regex::new(pattern).map_err(|error| {
                // The lines before the last one point at the place in the pattern.
                let text = error.to_string();
                let problem = text.lines().last().unwrap_or_default();
                let problem = problem.trim_start_matches("error: ");
                Failure::usage(format!("--multiline-start {pattern:?}: {problem}"))
            })
        };
        self.multiline_start.as_ref().map(compile).transpose()
    }

    /// Whether messages may have several lines.
    pub(in super::super) fn has_multiline(&self) -> bool {
        self.multiline_start.is_some()
    }

    /// Refuses values out of their range, and options that do not fit together.
    pub(in super::super) fn check(&self, is_final: bool) -> Result<(), Failure> {
        if is_final && !self.exit_at_end {
            return Err(Failure::usage("with --follow, --final needs --exit-at-end"));
        }
        match POLL_INTERVALS.contains(&self.poll_interval) {
            true => Ok(()),
            false => Err(Failure::usage("--poll-interval must be 10 ms to 1 hour")),
        }
    }
}
