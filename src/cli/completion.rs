//! Completes commands in a shell: subcommands, flags, and names that the broker or the configuration
//! file knows.
//!
//! The script of `trunkline completions` has the shell call this program with a variable that names
//! the shell. Whatever goes wrong on the way to a name, nothing is offered and nothing is printed.

use std::{
    env,
    ffi::{OsStr, OsString},
    time::Duration,
};

use clap::{Arg, ArgMatches, Command, FromArgMatches as _, ValueHint};
use clap_complete::{
    CompleteEnv, Shell,
    engine::{ArgValueCompleter, CompletionCandidate},
    env::Shells,
};

use super::{
    context::Contexts,
    endpoint::EndpointArgs,
    failure::{Failure, Unknown},
    suggestion,
};

/// The variable by which a shell asks for completions.
const VARIABLE: &str = "TRUNKLINE_COMPLETE";

/// How long a broker may take: people wait for it at every press of the key.
const DEADLINE: Duration = Duration::from_millis(700);

/// Makes the command line anew.
type Factory = fn() -> Command;

/// Answers a shell that asks for completions, and exits; returns if none does.
pub(super) fn answer_shell(command: Factory) {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// A script that makes a shell complete this command.
pub(super) fn script(shell: Shell) -> Result<Vec<u8>, Failure> {
    let mut script = Vec::new();
    let name = "trunkline";
    match Shells::builtins().completer(&shell.to_string()) {
        Some(completer) => {
            completer.write_registration(VARIABLE, name, name, name, &mut script)?;
            Ok(script)
        }
        None => Err(Failure::usage(format!("{shell} has no completions"))),
    }
}

/// What a name stands for.
#[derive(Clone, Copy)]
enum Kind {
    Topic,
    Consumer,
    Producer,
    Subscription,
    Context,
}

/// The same command, which completes names.
pub(super) fn complete_names(command: Command, factory: Factory) -> Command {
    command
        .mut_arg("context", |arg| completed(arg, Kind::Context, factory))
        .mut_subcommands(|command| attach(command, None, factory))
}

fn attach(command: Command, group: Option<&str>, factory: Factory) -> Command {
    let name = command.get_name().to_owned();
    let within = group.unwrap_or(&name).to_owned();
    let command = command.mut_args(|arg| {
        let kind = match (within.as_str(), name.as_str(), arg.get_id().as_str()) {
            (_, "produce", "files") => return arg.value_hint(ValueHint::AnyPath),
            ("context", "use" | "remove", "name") => Kind::Context,
            // A new name has no completions.
            ("topic", "create", _)
            | ("consumer" | "producer", "register", "second")
            | ("subscription", "create", "second") => return arg,
            ("topic" | "tail", _, "name") | (_, "copy", "source") => Kind::Topic,
            (_, _, "topic" | "topics" | "bad_lines_topic") => Kind::Topic,
            ("consumer" | "producer" | "subscription", _, "first") => Kind::Topic,
            ("subscription", _, "second") | (_, _, "subscription") => Kind::Subscription,
            ("consumer", _, "second") | (_, "consume", "consumer") => Kind::Consumer,
            ("producer", _, "second") | (_, "produce" | "pub", "producer") => Kind::Producer,
            _ => return arg,
        };
        completed(arg, kind, factory)
    });
    command.mut_subcommands(|command| attach(command, Some(&within), factory))
}

fn completed(arg: Arg, kind: Kind, factory: Factory) -> Arg {
    arg.add(ArgValueCompleter::new(move |current: &OsStr| candidates(kind, current, factory)))
}

fn candidates(kind: Kind, current: &OsStr, factory: Factory) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let names = names(kind, factory).unwrap_or_default().into_iter();
    names.filter(|name| name.starts_with(current)).map(CompletionCandidate::new).collect()
}

fn names(kind: Kind, factory: Factory) -> Option<Vec<String>> {
    let topic = |matches: &ArgMatches| topic(matches).unwrap_or_default();
    let matches = typed(factory)?;
    let unknown = match kind {
        Kind::Context => {
            return Some(Contexts::load().ok()?.names().map(str::to_owned).collect());
        }
        Kind::Topic => Unknown::Topic(String::new()),
        Kind::Consumer => Unknown::Consumer { topic: topic(&matches), id: String::new() },
        Kind::Producer => Unknown::Producer { topic: topic(&matches), id: String::new() },
        Kind::Subscription => Unknown::Subscription { topic: topic(&matches), id: String::new() },
    };
    let endpoint = EndpointArgs::from_arg_matches(&matches).ok()?.resolve().ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let found = runtime.block_on(async {
        let asking = async {
            let client = endpoint.connect().await?;
            suggestion::names(&client, unknown).await
        };
        tokio::time::timeout(DEADLINE, asking).await.ok()?.ok()
    });
    // Does not wait for a resolver that hangs.
    runtime.shutdown_background();
    found
}

/// The words before the one to complete, as far as they can be parsed.
fn typed(factory: Factory) -> Option<ArgMatches> {
    let mut words: Vec<OsString> = env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let index = env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|index| index.parse().ok());
    words.truncate(index.unwrap_or(words.len().saturating_sub(1)));
    factory().ignore_errors(true).try_get_matches_from(words).ok()
}

/// The topic that was typed before.
fn topic(matches: &ArgMatches) -> Option<String> {
    let mut leaf = matches;
    while let Some((_, subcommand)) = leaf.subcommand() {
        leaf = subcommand;
    }
    let value = |id| leaf.try_get_one::<String>(id).ok().flatten().cloned();
    value("topic").or_else(|| value("first"))
}
