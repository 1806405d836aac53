//! Whether the lines that are stored already are those of the inputs, before an older instance of
//! the producer is shut out for them.

use super::{
    super::{
        failure::Failure,
        lines::{Line, Piece},
    },
    input::{Input, Source},
    ledger::Place,
    passing::{Origin, Passing},
};
use crate::proto::Message;

/// Passes over what is to be passed over, and sends nothing. Of a stream nothing can be told, as it
/// can be read only once.
pub(super) async fn rehearse(
    inputs: &[Input],
    places: &[Place],
    mut passing: Option<Passing>,
    last_message: Option<&Message>,
) -> Result<(), Failure> {
    let names: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
    for (input, place) in inputs.iter().zip(places) {
        if let Some(unsettled) = place.unsettled.clone() {
            passing = Some(Passing::of_file(unsettled, last_message.cloned()));
        }
        let Some(current) = &mut passing else { continue };
        let failed = |error| Failure::refused(format!("read {}: {error}", input.name));
        let Some(input) = input.reopened().map_err(failed)? else { return Ok(()) };
        let source = input.read_from(&place.position, current.rule().max_line_bytes())?;
        if pass(source, current).await? {
            passing = None;
        } else if let Origin::File = current.origin {
            return Err(current.ended_early(&names));
        }
    }
    passing.map_or(Ok(()), |passing| Err(passing.ended_early(&names)))
}

/// Passes over lines of an input; returns whether the last one was among them.
async fn pass(mut source: Source, passing: &mut Passing) -> Result<bool, Failure> {
    let mut is_inside_line = source.take_inside_line();
    let name = source.name.clone();
    let mut is_last = |line: &Line| {
        let is_end = std::mem::take(&mut is_inside_line) && line.length == 0;
        match passing.rule().shape(line) {
            Ok(shaped) if !is_end => passing.pass(&shaped.message, line.number, &name),
            _ => Ok(false),
        }
    };
    loop {
        let read = source.fill().await;
        let read =
            read.map_err(|error| Failure::refused(format!("read {}: {error}", source.name)))?;
        while let Some(piece) = source.next_piece() {
            if let Piece::Line(line) = piece
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
