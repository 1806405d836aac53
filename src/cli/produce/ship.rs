//! Ships all inputs, and sums up the run.

use std::time::Duration;

use super::super::plural::count;
use super::{
    super::failure::{Failure, print_notice},
    refused_lines::RefusedLines,
    reread::Reread,
    shipping::Shipping,
    stored_lines::StoredLines,
};

/// How long to wait for answers after Ctrl-C.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

impl Shipping {
    /// Ships all inputs, one after the other.
    pub(super) async fn ship(&mut self) -> Result<(), Failure> {
        for index in 0..self.sources.len() {
            self.current.index = index;
            self.current.has_begun = false;
            self.lines_before += self.resume_points[index].position.lines;
            if let Some(unsettled) = self.resume_points[index].unsettled.take() {
                self.stored_lines =
                    Some(StoredLines::of_file(unsettled, self.last_message.clone()));
            }
            self.refused = RefusedLines::default();
            let unfinished = self.unfinished.len();
            while let Err(failure) = self.ship_current().await {
                match self.reread_after_refusal().await? {
                    Reread::Begun => self.unfinished.truncate(unfinished),
                    Reread::NotPossible => return Err(failure),
                }
            }
        }
        match &self.stored_lines {
            Some(lines) => Err(lines.ended_early(&self.names)),
            None => Ok(()),
        }
    }

    async fn ship_current(&mut self) -> Result<(), Failure> {
        self.ship_lines().await?;
        self.end_input().await
    }

    /// Waits for the answers to what was sent, and prints how far it was acknowledged.
    pub(super) async fn finish(mut self, shipped: Result<(), Failure>) -> Result<(), Failure> {
        let interrupted = shipped.as_ref().is_err_and(Failure::is_interruption);
        let patience = async {
            match interrupted {
                true => tokio::time::sleep(LAST_ANSWERS).await,
                false => _ = tokio::signal::ctrl_c().await,
            }
        };
        // Lines that were sent before a bad line are acknowledged all the same.
        let flush = async {
            let flushed = self.producer.flush().await.map_err(Failure::from);
            self.bad_lines.flush().await.and(flushed)
        };
        let answered = tokio::select! {
            flushed = flush => flushed,
            () = patience => Err(Failure::interrupted()),
        };
        let answered = answered.and(self.sent.take_answers().map_err(Failure::from));
        let closed = self.close_ledger();
        self.progress.finish();
        let summary = self.summary();
        match shipped.and(answered).and(closed) {
            Ok(()) => {
                print_notice(&summary);
                Ok(())
            }
            Err(failure) => Err(failure.after(&summary)),
        }
    }

    fn summary(&self) -> String {
        let mut summary = self.sent.summary(&self.names, self.progress.elapsed());
        if self.lines_before > 0 {
            summary = format!("{} published before; {summary}", count(self.lines_before, "line"));
        }
        if let Some(bad_lines) = self.bad_lines.summary() {
            summary = format!("{summary}; {bad_lines}");
        }
        if !self.unfinished.is_empty() {
            let lines = self.unfinished.join(", ");
            summary = format!("{summary}; not shipped, as its end is missing: {lines}");
        }
        summary
    }
}
