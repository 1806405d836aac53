//! Checks that the stored lines are those of the inputs, before the producer is opened: a run that
//! is refused must not fence a live instance.

use super::{
    super::{
        failure::Failure,
        lines::{Line, LinePiece},
    },
    input::{Input, Source},
    resume_points::ResumePoint,
    stored_lines::{Origin, StoredLines},
};
use crate::proto::Message;

/// Passes over the stored lines without sending anything. A stream cannot be checked, as it can be
/// read only once.
pub(super) async fn dry_run(
    inputs: &[Input],
    resume_points: &[ResumePoint],
    mut stored_lines: Option<StoredLines>,
    last_message: Option<&Message>,
) -> Result<(), Failure> {
    let names: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
    for (input, point) in inputs.iter().zip(resume_points) {
        if let Some(unsettled) = point.unsettled.clone() {
            stored_lines = Some(StoredLines::of_file(unsettled, last_message.cloned()));
        }
        let Some(current) = &mut stored_lines else { continue };
        let failed = |error| Failure::refused(format!("read {}: {error}", input.name));
        let Some(input) = input.reopened().map_err(failed)? else { return Ok(()) };
        let source = input.read_from(&point.position, current.rule().max_line_bytes())?;
        if pass_over(source, current).await? {
            stored_lines = None;
        } else if let Origin::File = current.origin {
            return Err(current.ended_early(&names));
        }
    }
    stored_lines.map_or(Ok(()), |lines| Err(lines.ended_early(&names)))
}

/// Passes over lines of an input; returns whether the last stored one was among them.
async fn pass_over(mut source: Source, stored_lines: &mut StoredLines) -> Result<bool, Failure> {
    let mut is_inside_line = source.take_inside_line();
    let name = source.name.clone();
    let mut is_last = |line: &Line| {
        // The line end of a line that was shipped unfinished is not a line.
        let is_line_end = std::mem::take(&mut is_inside_line) && line.length == 0;
        match stored_lines.rule().shape(line) {
            Ok(shaped) if !is_line_end => {
                stored_lines.count_off(&shaped.message, line.number, &name)
            }
            _ => Ok(false),
        }
    };
    loop {
        let read = source.fill().await;
        let read =
            read.map_err(|error| Failure::refused(format!("read {}: {error}", source.name)))?;
        while let Some(piece) = source.next_piece() {
            if let LinePiece::Line(line) = piece
                && is_last(&line)?
            {
                return Ok(true);
            }
        }
        if read == 0 {
            return source.last_line().map_or(Ok(false), |line| is_last(&line));
        }
    }
}
