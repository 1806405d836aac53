//! `trunkline produce --follow`: ships files as they grow, each line exactly once.
//!
//! # How a line is shipped once
//!
//! The broker numbers a producer's messages on a topic, and says how many it has stored. The journal
//! says which bytes of which content each number is. Lines of several files are interleaved in one
//! topic in whatever order they come, so the journal has to know that order before the broker does.
//!
//! 1. A *content* is what a file has in it, from its first byte on. It has an id, and a *place*: the
//!    offset after the last message that is in the journal. A content keeps its id when its file is
//!    renamed, and when it is copied and the original is truncated.
//! 2. A *portion* is consecutive messages of one content. It says where they begin, and how many bytes
//!    of the content each of them takes. So where messages end need not be found out again: that may
//!    depend on time, for messages of several lines and for lines that were shipped unfinished.
//! 3. The journal has a portion, and the place after it, on disk before the first message of the
//!    portion is sent. Portions of a topic follow each other: each begins with the sequence after the
//!    last one of the portion before.
//! 4. Messages are sent in the order of their sequences. When a producer is opened, older instances
//!    are fenced, so the number `n` of messages that are stored is final. All portions from `n` on are
//!    undone, the newest first: the content goes back to the place where the portion began, or to the
//!    end of the last message of it that is stored.
//! 5. Therefore each byte before a content's place is in a message that is stored or on its way, or in
//!    a line that was skipped as a bad one, and no byte after it is in any.
//!
//! A kill at any moment leaves the journal at or before what was sent, and the broker at or before
//! that: step 4 finds out where, and nothing needs to be written when the command ends. Portions are
//! remembered for a minute after they are stored, so that messages which the database loses are
//! shipped again.
//!
//! # What it does not guarantee
//!
//! What a file loses before it is read is not shipped: lines that are written between the copy and the
//! truncation of `copytruncate`, and files that are deleted or compressed while no shipper runs.

mod content;
mod copies;
mod destination;
mod folders;
mod follower;
mod gather;
mod gunzip;
mod hints;
mod journal;
mod message_rules;
mod notices;
mod options;
mod patterns;
mod place;
mod reader;
mod records;
mod recover;
mod rotated;
mod scan;
mod send;
mod signals;
mod stored;
mod topic_names;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use etcetera::BaseStrategy as _;
use nix::sys::resource::{Resource, getrlimit};

use super::{
    super::failure::Failure,
    bad_lines::{BadLines, Sink},
    checks,
    identity::Inode,
    options::ProduceArgs,
};
use crate::client::Client;
use follower::{Follower, LastScan, MIN_OPEN};
use hints::Hints;
use journal::Journal;
use message_rules::MessageRules;
use notices::Notices;
pub(super) use options::FollowArgs;
use patterns::Patterns;
use records::Cutter;
use topic_names::{Template, TopicNames};

/// Open files that are not followed ones: connections, the state file and the like.
const OTHER_FILES: u64 = 64;

pub(super) async fn run(client: &Client, options: &ProduceArgs) -> Result<(), Failure> {
    checks::options(options)?;
    options.follow.check(options.r#final)?;
    if options.followed_files().is_empty() {
        return Err(Failure::usage("--follow names no file"));
    }
    let rule = options.rule()?;
    let start = options.follow.multiline_start()?;
    let cutter = Cutter { start, limit: rule.max_line_bytes() };
    let topic_names = topic_names(options)?;
    let patterns = Patterns::parse(&options.followed_files(), options.follow.gzip)?;
    let bad_lines_file = options.bad_lines_file.clone().map(Sink::file).transpose()?;
    check_written_files(options, &patterns)?;
    let journal = open_journal(options)?;
    let excluded = excluded(options, &journal);
    let sink = match bad_lines_file {
        Some(file) => file,
        None => options.open_bad_lines_topic(client).await?.map_or(Sink::Nowhere, Sink::Topic),
    };
    let mut follower = Follower {
        client,
        options,
        patterns,
        topic_names,
        rules: MessageRules::new(rule, options.follow.file_headers),
        cutter,
        contents: BTreeMap::new(),
        next_id: 1,
        undecided: HashMap::new(),
        destinations: BTreeMap::new(),
        excluded,
        left_out: HashSet::new(),
        forgotten: Vec::new(),
        journal,
        bad_lines: BadLines::new(sink, Vec::new()),
        refused: BTreeMap::new(),
        notices: Notices::default(),
        hints: Hints::new(),
        max_open: max_open(),
        last_read: 0,
        has_started: false,
        scan_due: None,
        last_scan: LastScan { ended: Instant::now(), took: Duration::ZERO },
        started: Instant::now(),
        is_torn: false,
    };
    if let TopicNames::One(topic) = &follower.topic_names {
        let topic = topic.clone();
        follower.want_destination(&topic);
    }
    follower.run().await
}

fn topic_names(options: &ProduceArgs) -> Result<TopicNames, Failure> {
    let Some(template) = &options.follow.topic_from else {
        return Ok(TopicNames::One(options.topic.clone()));
    };
    let template = Template::parse(template)
        .map_err(|problem| Failure::usage(format!("--topic-from: {problem}")))?;
    Ok(TopicNames::Template(template))
}

/// Refuses files that would be both written to and followed.
fn check_written_files(options: &ProduceArgs, patterns: &Patterns) -> Result<(), Failure> {
    let written = [("--bad-lines-file", &options.bad_lines_file), ("--state", &options.state)];
    for (flag, path) in written {
        let Some(path) = path.as_ref().filter(|path| patterns.names(path)) else { continue };
        let path = path.display();
        return Err(Failure::usage(format!("{flag} names the followed file {path} itself")));
    }
    match &options.state {
        Some(state) => checks::bad_lines_file(options, state),
        None => Ok(()),
    }
}

/// The files that are written to: a pattern that matches them does not stand for them.
fn excluded(options: &ProduceArgs, journal: &Journal) -> HashSet<Inode> {
    let written = [options.bad_lines_file.as_deref(), Some(journal.path())];
    written.into_iter().flatten().filter_map(checks::inode).collect()
}

fn open_journal(options: &ProduceArgs) -> Result<Journal, Failure> {
    let (producer, topic) = (&options.producer, &options.topic);
    let (owner, name) = match &options.follow.topic_from {
        None => (format!("producer {producer} on topic {topic}"), format!("{topic}.state")),
        Some(template) => {
            (format!("producer {producer} on topics {template}"), "{topics}.state".to_owned())
        }
    };
    let path = match &options.state {
        Some(path) => path.clone(),
        None => {
            let folders = etcetera::choose_base_strategy().map_err(|error| {
                Failure::refused(format!("find the home folder: {error}; --state names a file"))
            })?;
            let folder = folders.state_dir().unwrap_or_else(|| folders.data_dir());
            folder.join("trunkline/follow").join(producer).join(name)
        }
    };
    Journal::open(path, &owner, options.restart)
}

/// How many followed files may be open, within the limit of the process.
fn max_open() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
    usize::try_from(limit.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(MIN_OPEN)
}
