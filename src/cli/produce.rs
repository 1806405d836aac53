//! `trunkline produce`: publishes lines, and reports how far they were acknowledged.

mod bad_lines;
mod checkpoint;
mod checks;
mod delay;
mod dry_run;
mod file_state;
mod follow;
mod foreign_json;
mod identity;
mod input;
mod json;
mod ledger;
mod line_id;
mod line_mark;
mod message;
mod options;
mod problem;
mod progress;
mod refused_lines;
mod reread;
mod resume;
mod resume_points;
mod sent;
mod ship;
mod ship_lines;
mod shipping;
mod state;
mod state_file;
mod stored_lines;

use super::failure::Failure;
use crate::client::Client;
use bad_lines::{BadLines, Sink};
use message::Rule;
pub(super) use options::ProduceArgs;
use progress::ShippingProgress;
use refused_lines::RefusedLines;
use resume::{OpenedProducer, Plan, Resuming};
use sent::SentLines;
use shipping::{CurrentInput, Shipping};

pub(super) async fn run(client: &Client, options: ProduceArgs) -> Result<(), Failure> {
    if options.follow.follow {
        return follow::run(client, &options).await;
    }
    let rule = options.rule()?;
    let inputs = input::open_all(&options.inputs()).await?;
    checks::options(&options)?;
    checks::files(&options, &inputs)?;
    let file = options.bad_lines_file.clone().map(Sink::file).transpose()?;
    let registration = checks::registration(client, &options).await?;
    let resuming = Resuming { client, options: &options, rule: &rule, inputs: &inputs };
    let OpenedProducer { producer, plan } = match options.resume {
        true => resuming.resume(registration).await?,
        false => resuming.start_over().await?,
    };
    let Plan { ledger, resume_points, stored_lines, last_message } = plan;
    // A previous run may have had another rule, which allows longer lines.
    let rules = resume_points.iter().filter_map(|point| Some(&point.unsettled.as_ref()?.rule));
    let limit = rules.chain([&rule]).map(Rule::max_line_bytes).max().unwrap_or(0);
    let names: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
    let sources = inputs.into_iter().zip(&resume_points);
    let sources = sources.map(|(input, point)| input.read_from(&point.position, limit));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let sink = match file {
        Some(file) => file,
        None => options.open_bad_lines_topic(client).await?.map_or(Sink::Nowhere, Sink::Topic),
    };
    let mut shipping = Shipping {
        progress: ShippingProgress::start(&sources),
        bad_lines: BadLines::new(sink, names.clone()),
        leaves_unfinished: options.resume && !options.r#final,
        producer,
        rule,
        suggests_flag: options.on_bad_line.is_none(),
        names,
        sources,
        resume_points,
        ledger,
        stored_lines,
        last_message,
        sent: SentLines::default(),
        lines_before: 0,
        unfinished: Vec::new(),
        refused: RefusedLines::default(),
        last_kept: None,
        current: CurrentInput::default(),
        limit,
        client: client.clone(),
        options,
    };
    let shipped = tokio::select! {
        shipped = shipping.ship() => shipped,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    shipping.finish(shipped).await
}
