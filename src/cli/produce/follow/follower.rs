//! The loop that follows files.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, future};
use tokio::time::{self, MissedTickBehavior};

use super::super::super::plural::count;
use super::{
    super::{
        super::failure::{Failure, print_notice},
        bad_lines::BadLines,
        identity::Inode,
        options::ProduceArgs,
        problem::Problem,
    },
    content::Content,
    destination::Destination,
    hints::{Hint, Hints},
    journal::Journal,
    message_rules::MessageRules,
    notices::{Kind, Notices},
    patterns::Patterns,
    reader::READ_BYTES,
    records::Cutter,
    signals::{Signal, Signals},
    topic_names::TopicNames,
};
use crate::client::Client;

/// How long few lines wait for more, so that a busy log does not make the disk sync for each line.
const GATHER_TIME: Duration = Duration::from_millis(20);

/// How long to wait for acknowledgements when the command is stopped.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// After how long people are told that the broker does not answer.
const STALLED: Duration = Duration::from_secs(10);

/// At least as many followed files can be open.
pub(super) const MIN_OPEN: usize = 16;

/// How many files that have grown are taken note of at once.
const HINTS: usize = 10_000;

/// Looking for files because the system announces others takes a tenth of the time at most.
const SCAN_PAUSE: u32 = 9;

pub(super) struct Follower<'a> {
    pub(super) client: &'a Client,
    pub(super) options: &'a ProduceArgs,
    pub(super) patterns: Patterns,
    pub(super) topic_names: TopicNames,
    pub(super) rules: MessageRules,
    pub(super) cutter: Cutter,
    pub(super) contents: BTreeMap<u64, Content>,
    pub(super) next_id: u64,
    /// Files that may be copies of others, with their sizes and since when they have had them.
    pub(super) undecided: HashMap<Inode, (u64, Instant)>,
    pub(super) destinations: BTreeMap<String, Destination>,
    /// Files that are written to, and therefore not followed.
    pub(super) excluded: HashSet<Inode>,
    /// Files that are not shipped, as their names make no topic.
    pub(super) left_out: HashSet<PathBuf>,
    /// Contents that the journal is to forget.
    pub(super) forgotten: Vec<u64>,
    pub(super) journal: Journal,
    pub(super) bad_lines: BadLines,
    /// Messages that the broker has refused, by content and the offset after them.
    pub(super) refused: BTreeMap<(u64, u64), RefusedMessage>,
    pub(super) notices: Notices,
    pub(super) hints: Hints,
    /// The most files that are open at a time.
    pub(super) max_open: usize,
    /// The content that was read last: the next one is read next.
    pub(super) last_read: u64,
    /// Whether files were looked for.
    pub(super) has_started: bool,
    /// When to look for files again, if that is before the next regular time.
    pub(super) scan_due: Option<Instant>,
    pub(super) last_scan: LastScan,
    pub(super) started: Instant,
    /// Whether what was read may not be kept and in the journal yet.
    pub(super) is_torn: bool,
}

/// What one turn of the loop has done.
struct Pass {
    /// The bytes of the messages that were read.
    gathered: usize,
    /// Whether files can be read now that could not be read before.
    has_more: bool,
    /// Why the run stops here, if it does.
    stop: Option<Failure>,
}

/// A message that the broker has refused.
pub(super) struct RefusedMessage {
    pub(super) problem: Problem,
    /// Whether its line is kept as a bad one.
    pub(super) is_kept: bool,
}

/// When files were looked for.
pub(super) struct LastScan {
    pub(super) ended: Instant,
    pub(super) took: Duration,
}

/// Why the loop ends.
enum End {
    AllIsShipped,
    Stopped(Signal),
}

impl Follower<'_> {
    /// Follows the files until the command is stopped, or all is shipped.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let ended = self.follow(&mut signals).await;
        let is_stopped = matches!(ended, Ok(End::Stopped(_)));
        let patience = async {
            tokio::select! {
                _ = signals.next_stop() => {}
                () = time::sleep(LAST_ANSWERS) => {}
            }
        };
        let settled = tokio::select! {
            settled = self.settle() => settled,
            () = patience => Ok(()),
        };
        let waiting: usize = self.destinations.values().map(|it| it.in_flight).sum();
        // After a failure, or in the middle of a plan, places may be ahead of what is kept.
        let closed = match ended.is_ok() && !self.is_torn {
            true => self.record_settled(),
            false => Ok(()),
        };
        let mut summary = self.summary();
        if waiting > 0 {
            summary.push_str("; what was not acknowledged is sent by the next run");
        }
        let outcome = match ended {
            Ok(End::AllIsShipped | End::Stopped(Signal::Terminate)) => Ok(()),
            Ok(End::Stopped(_)) => Err(Failure::interrupted()),
            Err(failure) => Err(failure),
        };
        // After SIGTERM, the next run sends what this one could not.
        let settled = if is_stopped { Ok(()) } else { settled };
        match outcome.and(settled).and(closed) {
            Ok(()) => {
                print_notice(&summary);
                Ok(())
            }
            Err(failure) => Err(failure.after(&summary)),
        }
    }

    async fn follow(&mut self, signals: &mut Signals) -> Result<End, Failure> {
        self.restore()?;
        self.scan()?;
        self.check_restored();
        for pattern in self.patterns.unmatched() {
            print_notice(&format!("no file is {pattern} yet"));
        }
        let interval = self.options.follow.poll_interval;
        let mut tick = time::interval_at(time::Instant::now() + interval, interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut few_gathered = false;
        loop {
            if let Some(signal) = signals.next().now_or_never()
                && let Some(end) = self.heed(signal)?
            {
                return Ok(end);
            }
            self.is_torn = true;
            let pass = tokio::select! {
                pass = self.pass(few_gathered) => pass?,
                signal = signals.next_stop() => return Ok(End::Stopped(signal)),
            };
            self.is_torn = false;
            if let Some(failure) = pass.stop {
                return Err(failure);
            }
            few_gathered = pass.gathered > 0 && pass.gathered < READ_BYTES as usize;
            if pass.gathered > 0 || pass.has_more {
                self.take_hints(None);
                self.scan_if_due()?;
                self.look_at_rests();
                if tick.tick().now_or_never().is_some() {
                    self.look_at_all()?;
                }
                continue;
            }
            if self.options.follow.exit_at_end && self.is_all_shipped() {
                return self.unreadable().map_or(Ok(End::AllIsShipped), Err);
            }
            let wake = [self.scan_due, self.retry_due(), self.rest_due()];
            let wake = wake.into_iter().flatten().min();
            tokio::select! {
                signal = signals.next() => {
                    if let Some(end) = self.heed(signal)? {
                        return Ok(end);
                    }
                }
                hint = self.hints.next() => {
                    self.take_hints(Some(hint));
                    self.scan_if_due()?;
                }
                () = until(wake) => {
                    self.scan_if_due()?;
                    self.look_at_rests();
                }
                () = answered(&self.destinations) => {}
                _ = tick.tick() => self.look_at_all()?,
            }
        }
    }

    /// Reads and sends what is there.
    async fn pass(&mut self, few_gathered: bool) -> Result<Pass, Failure> {
        self.take_answers()?;
        self.open_destinations().await?;
        if few_gathered && !self.options.follow.exit_at_end {
            time::sleep(GATHER_TIME).await;
        }
        let plan = tokio::task::block_in_place(|| self.gather())?;
        let (gathered, has_more) = (plan.bytes, plan.has_more);
        let stop = self.carry_out(plan).await?;
        Ok(Pass { gathered, has_more, stop })
    }

    /// What a signal asks for.
    fn heed(&mut self, signal: Signal) -> Result<Option<End>, Failure> {
        if signal != Signal::HangUp {
            return Ok(Some(End::Stopped(signal)));
        }
        print_notice("looking for files again, and opening them again");
        self.scan()?;
        // A file that has just been moved out of sight is read to its end first.
        let open = self.contents.values_mut();
        for content in open.filter(|content| content.may_be_reopened() && content.is_at_path()) {
            content.file = None;
        }
        Ok(None)
    }

    /// Looks for new files, at all known ones, and at what has waited for long.
    fn look_at_all(&mut self) -> Result<(), Failure> {
        self.scan()?;
        self.retire();
        self.tell_of_stalls();
        if self.contents.values().any(|content| content.is_changed) {
            self.record_settled()?;
        }
        Ok(())
    }

    /// Takes all hints that are there.
    fn take_hints(&mut self, first: Option<Hint>) {
        let mut grown = HashSet::new();
        let mut next = first.or_else(|| self.hints.next().now_or_never());
        while let Some(hint) = next.take() {
            match hint {
                Hint::File(path) => _ = grown.insert(path),
                Hint::Folder => {
                    let pause = self.last_scan.took * SCAN_PAUSE;
                    self.scan_by(self.last_scan.ended + pause);
                }
            }
            if grown.len() < HINTS {
                next = self.hints.next().now_or_never();
            }
        }
        if grown.is_empty() {
            return;
        }
        // The path of a deleted file may lead to another one by now.
        let contents = self.contents.values_mut().filter(|content| content.has_path());
        for content in contents.filter(|content| grown.contains(&content.path)) {
            content.is_dirty |= !content.is_gzip;
        }
    }

    /// Looks for files at this time at the latest.
    pub(super) fn scan_by(&mut self, due: Instant) {
        self.scan_due = Some(self.scan_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Looks for files, if it is time to.
    fn scan_if_due(&mut self) -> Result<(), Failure> {
        match self.scan_due {
            Some(due) if due <= Instant::now() => self.scan(),
            _ => Ok(()),
        }
    }

    /// When the next producer that is not open is to be opened.
    fn retry_due(&self) -> Option<Instant> {
        let closed = self.destinations.values().filter(|it| it.producer.is_none());
        closed.filter(|it| self.is_wanted(it)).map(|it| it.retry_at).min()
    }

    /// When the next rest of a file has waited for long enough.
    fn rest_due(&self) -> Option<Instant> {
        self.contents.values().filter_map(|content| content.rest_due(&self.options.follow)).min()
    }

    /// Has the rests of files read that have waited for long enough.
    fn look_at_rests(&mut self) {
        let now = Instant::now();
        let follow = &self.options.follow;
        for content in self.contents.values_mut() {
            content.is_dirty |= content.rest_due(follow).is_some_and(|due| due <= now);
        }
    }

    /// The failure of a run that ends although some files could not be read.
    fn unreadable(&self) -> Option<Failure> {
        let mut failed = self.contents.values().filter_map(|content| content.failure.as_ref());
        let first = failed.next()?;
        Some(Failure::refused(match failed.count() {
            0 => first.clone(),
            more => format!("{first}, and {more} other files could not be read"),
        }))
    }

    fn tell_of_stalls(&mut self) {
        for destination in self.destinations.values_mut() {
            let stalled = destination.stalled().filter(|stalled| *stalled > STALLED);
            match (stalled, destination.is_stalled) {
                (Some(stalled), _) => {
                    let text = format!(
                        "the broker has acknowledged nothing on topic {} for {} s: trying again \
                         until it does",
                        destination.topic,
                        stalled.as_secs()
                    );
                    if !destination.is_stalled {
                        self.notices.tell(Kind::Lost, &text);
                    }
                    destination.is_stalled = true;
                }
                (None, true) => {
                    destination.is_stalled = false;
                    let text =
                        format!("the broker acknowledges again on topic {}", destination.topic);
                    self.notices.tell(Kind::Lost, &text);
                }
                (None, false) => {}
            }
        }
    }

    /// Whether all that is in the files is acknowledged.
    fn is_all_shipped(&self) -> bool {
        self.scan_due.is_none()
            && self.undecided.is_empty()
            && self.contents.values().all(|content| !content.is_dirty)
            && self.destinations.values().all(|it| match it.producer {
                Some(_) => it.in_flight == 0,
                None => !self.is_wanted(it),
            })
    }

    fn summary(&self) -> String {
        let acknowledged: u64 = self.destinations.values().map(Destination::acknowledged).sum();
        let files = self.contents.values().filter(|content| content.is_followed()).count();
        let seconds = self.started.elapsed().as_secs_f64();
        let mut summary = match acknowledged {
            0 => "no message was acknowledged".to_owned(),
            messages => format!(
                "{} acknowledged in {seconds:.2} s ({:.0}/s)",
                count(messages, "message"),
                messages as f64 / seconds.max(0.000_001)
            ),
        };
        summary.push_str(&format!(", {} followed", count(files as u64, "file")));
        if let [destination] = &self.destinations.values().collect::<Vec<_>>()[..]
            && destination.last_offset >= 0
        {
            summary.push_str(&format!(", last offset {}", destination.last_offset));
        }
        let unfinished = self.contents.values().filter(|it| it.has_rest() && !it.is_dirty);
        let unfinished: Vec<_> = unfinished.collect();
        if let Some(first) = unfinished.first() {
            let (files, name) = (unfinished.len() as u64, &first.name);
            summary.push_str(&format!(
                "; not shipped, as its end is missing: the last line of {}, such as {name}",
                count(files, "file")
            ));
        }
        if let Some(bad_lines) = self.bad_lines.summary() {
            summary.push_str(&format!("; {bad_lines}"));
        }
        summary
    }
}

/// Waits until a time; for ever without one.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => time::sleep_until(time.into()).await,
        None => future::pending().await,
    }
}

/// Waits until the next message of any topic is acknowledged or refused; for ever if none is
/// awaited.
async fn answered(destinations: &BTreeMap<String, Destination>) {
    let awaited: Vec<_> = destinations.values().filter_map(Destination::awaited).collect();
    if awaited.is_empty() {
        return future::pending().await;
    }
    let answers = awaited.iter().map(|answer| Box::pin(answer.offset()));
    _ = future::select_all(answers).await;
}
