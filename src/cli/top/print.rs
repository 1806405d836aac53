//! An overview for pipes and files: two lists, or a JSON object.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use serde_json::{Value, json};

use super::{
    super::{
        escape::printable,
        output::{OutputArgs, OutputFormat, Table, print_json},
        timestamp::json_time,
    },
    rows::{self, CONSUMER_COLUMNS, TOPIC_COLUMNS, std_duration},
};
use crate::proto::{
    ConsumerActivity, GetOverviewResponse, Problem, TopicActivity, problem::Severity,
};

/// Prints an overview.
pub(super) fn print(
    out: &mut impl Write,
    overview: &GetOverviewResponse,
    output: OutputArgs,
) -> io::Result<()> {
    if output.format == OutputFormat::Json {
        return print_json(out, &object(overview));
    }
    writeln!(out, "{}", rows::summary(overview))?;
    for problem in &overview.problems {
        let severity = severity_name(problem);
        writeln!(out, "{severity}: {}", printable(&problem_line(problem)))?;
    }
    writeln!(out)?;
    let now = SystemTime::now();
    let mut topics = Table::new(&TOPIC_COLUMNS);
    overview.topics.iter().for_each(|it| topics.row(rows::topic(it, now), Value::Null));
    topics.print(out, output)?;
    writeln!(out)?;
    let mut consumers = Table::new(&CONSUMER_COLUMNS);
    overview.consumers.iter().for_each(|it| consumers.row(rows::consumer(it), Value::Null));
    consumers.print(out, output)
}

/// Prints an overview as one line of JSON.
pub(super) fn print_line(out: &mut impl Write, overview: &GetOverviewResponse) -> io::Result<()> {
    writeln!(out, "{}", object(overview))?;
    out.flush()
}

/// What is wrong, and what to do about it.
pub(super) fn problem_line(problem: &Problem) -> String {
    let Problem { description, advice, topic, consumer_id, .. } = problem;
    let of = match (topic.as_str(), consumer_id.as_str()) {
        ("", _) => String::new(),
        (topic, "") => format!(" (such as {topic})"),
        (topic, consumer) => format!(" (such as {topic}/{consumer})"),
    };
    format!("{description}{of}. {advice}")
}

fn severity_name(problem: &Problem) -> &'static str {
    match problem.severity() {
        Severity::Error => "error",
        _ => "warning",
    }
}

fn object(overview: &GetOverviewResponse) -> Value {
    let broker = overview.broker.clone().unwrap_or_default();
    json!({
        "broker": {
            "version": broker.version,
            "uptime_seconds": std_duration(broker.uptime).as_secs_f64(),
            "streams": broker.streams,
            "max_streams": broker.max_streams,
            "notified": broker.notified,
            "draining": broker.draining,
        },
        "topic_count": overview.topic_count,
        "consumer_count": overview.consumer_count,
        "consumers_behind": overview.consumers_behind,
        "publish_rate": overview.publish_rate,
        "consume_rate": overview.consume_rate,
        "incomplete": overview.incomplete,
        "topics": overview.topics.iter().map(topic_object).collect::<Vec<_>>(),
        "consumers": overview.consumers.iter().map(consumer_object).collect::<Vec<_>>(),
        "problems": overview.problems.iter().map(problem_object).collect::<Vec<_>>(),
    })
}

fn topic_object(it: &TopicActivity) -> Value {
    json!({
        "topic": it.topic,
        "first_offset": it.first_offset,
        "head": it.head,
        "bytes": it.bytes,
        "publish_rate": it.publish_rate,
        "last_publish_time": json_time(it.last_publish_time),
    })
}

fn consumer_object(it: &ConsumerActivity) -> Value {
    json!({
        "topic": it.topic,
        "consumer_id": it.consumer_id,
        "position": it.position,
        "lag": it.lag,
        "behind_seconds": std_duration(it.time_behind).as_secs_f64(),
        "idle_seconds": std_duration(it.idle_time).as_secs_f64(),
        "consume_rate": it.consume_rate,
        "held": it.held,
        "holder": (!it.holder.is_empty()).then_some(&it.holder),
    })
}

fn problem_object(it: &Problem) -> Value {
    let or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "severity": severity_name(it),
        "description": it.description,
        "advice": it.advice,
        "topic": or_null(&it.topic),
        "consumer_id": or_null(&it.consumer_id),
    })
}
