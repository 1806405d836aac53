//! Adds messages to the journal, and then sends them.

use std::time::Instant;

use super::{
    super::super::failure::Failure,
    destination::{JournaledPortion, SentPortion},
    follower::Follower,
    gather::{Plan, PlannedPortion},
    journal::Changes,
    notices::Kind,
};

impl Follower<'_> {
    /// Carries out a plan. Returns the failure with which the run stops after it, if it does.
    pub(super) async fn carry_out(&mut self, plan: Plan) -> Result<Option<Failure>, Failure> {
        let Plan { portions, bad_lines, stop, .. } = plan;
        // Bad lines are kept before the journal passes over them.
        for bad in &bad_lines {
            let file = self.bad_lines.index_of(&bad.name);
            bad.each_piece(|piece| self.bad_lines.overflow(piece))?;
            match &bad.problem {
                Some(problem) => self.bad_lines.skip(file, &bad.line, problem).await?,
                None => self.bad_lines.cut(file, &bad.line).await?,
            };
            let (number, name) = (bad.line.number, &bad.name);
            let text = match &bad.problem {
                Some(problem) => format!("line {number} of {name} is skipped: {problem}"),
                None => format!("line {number} of {name} is cut to the limit"),
            };
            self.notices.tell(Kind::BadLines, &text);
        }
        if !bad_lines.is_empty() {
            self.bad_lines.flush().await?;
        }
        if !portions.is_empty() || !bad_lines.is_empty() {
            self.add_to_journal(&portions)?;
        }
        for portion in portions {
            self.send(portion).await?;
        }
        Ok(stop)
    }

    fn add_to_journal(&mut self, portions: &[PlannedPortion]) -> Result<(), Failure> {
        for portion in portions {
            if let Some(destination) = self.destinations.get_mut(&portion.topic) {
                let messages = portion.messages.len() as u64;
                let journaled = JournaledPortion { first: portion.first, messages, settled: None };
                destination.portions.push_back(journaled);
            }
        }
        let added = portions
            .iter()
            .map(|portion| (portion.topic.as_str(), portion.first, portion.stored.clone()));
        self.commit(added.collect())
    }

    /// Records what has changed besides new messages, and forgets what is settled.
    pub(super) fn record_settled(&mut self) -> Result<(), Failure> {
        self.commit(Vec::new())
    }

    fn commit(
        &mut self,
        portions: Vec<(&str, u64, super::stored::StoredPortion)>,
    ) -> Result<(), Failure> {
        let mut pruned = Vec::new();
        for destination in self.destinations.values_mut() {
            let firsts = destination.prune();
            let topic = &destination.topic;
            pruned.extend(firsts.into_iter().map(|first| (topic.as_str(), first)));
        }
        let changes = Changes {
            contents: self.contents.values().filter(|content| content.is_changed).collect(),
            forgotten_contents: std::mem::take(&mut self.forgotten),
            portions,
            forgotten_portions: pruned,
            topics: Vec::new(),
        };
        tokio::task::block_in_place(|| self.journal.commit(&changes))?;
        self.contents.values_mut().for_each(|content| content.is_changed = false);
        Ok(())
    }

    /// Sends messages that the journal has.
    async fn send(&mut self, portion: PlannedPortion) -> Result<(), Failure> {
        let PlannedPortion { topic, first, messages, stored, bytes, generation } = portion;
        let Some(destination) = self.destinations.get_mut(&topic) else { return Ok(()) };
        if destination.generation != generation {
            // It was undone in the meantime.
            return Ok(());
        }
        let count = messages.len() as u64;
        let mut last = None;
        for message in messages {
            // After a failure, the producer is opened again, and all that is not stored is read again.
            let Some(producer) = &destination.producer else { return Ok(()) };
            match producer.send(message).await {
                Ok(acknowledgement) => last = Some(acknowledgement),
                Err(error) => return self.recover(&topic, error),
            }
        }
        if let Some(last) = last {
            destination.add_sent(SentPortion {
                content: stored.content,
                first,
                messages: count,
                last,
                bytes,
                since: Instant::now(),
            });
        }
        Ok(())
    }

    /// Takes the acknowledgements that have come.
    pub(super) fn take_answers(&mut self) -> Result<(), Failure> {
        let mut failed = Vec::new();
        for destination in self.destinations.values_mut() {
            if let Err(error) = destination.take_answers() {
                failed.push((destination.topic.clone(), error));
            }
        }
        for (topic, error) in failed {
            self.recover(&topic, error)?;
        }
        Ok(())
    }

    /// Waits until all that was sent is acknowledged.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        for destination in self.destinations.values_mut() {
            if let Some(producer) = &destination.producer {
                let flushed = producer.flush().await;
                destination.take_answers().and(flushed)?;
            }
        }
        self.bad_lines.flush().await
    }
}
