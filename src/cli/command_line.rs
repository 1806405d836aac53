//! The command line: its global flags and its subcommands.

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

use super::{
    audit::AuditCommand, bench::BenchCommand, completion::complete_names, consume::ConsumeArgs,
    consumer::ConsumerCommand, context::ContextCommand, empty_values::refuse_empty_values,
    endpoint::EndpointArgs, grant::GrantCommand, help::arrange, lag::LagArgs, man::ManArgs,
    output::OutputArgs, produce::ProduceArgs, producer::ProducerCommand, publish::PublishArgs,
    quota::QuotaCommand, subscription::SubscriptionCommand, tail::TailArgs, token::TokenCommand,
    top::TopArgs, topic::TopicCommand, work::WorkArgs,
};
use crate::server::options::{MigrateOptions, ServeOptions};

/// A streaming message broker that lives in PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    propagate_version = true,
    after_help = "Exit codes: 0 success, 1 refused or failed, 2 usage error, 3 another instance of \
                  the producer or consumer has taken over, 69 no broker (for serve and migrate: no \
                  database) is reachable, 130 interrupted by Ctrl-C."
)]
pub struct Cli {
    #[command(flatten)]
    pub(super) endpoint: EndpointArgs,

    #[command(subcommand)]
    pub(super) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a broker.
    Serve(Box<ServeOptions>),
    /// Create the schema of a database, or bring it up to date, and exit.
    ///
    /// A broker does this at its start if its role may. Run it as the role that owns the schema if
    /// the role of the brokers must not change it.
    Migrate(MigrateOptions),
    /// Create, list, describe, change, copy, trim, read and delete topics.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Register, list, describe and assign the producers of a topic.
    #[command(subcommand)]
    Producer(ProducerCommand),
    /// Register, list, describe, move and assign consumers, and see which are behind.
    #[command(subcommand)]
    Consumer(ConsumerCommand),
    /// Create, list, describe, change, move and delete subscriptions, and see what is parked.
    ///
    /// Many workers share the messages of a subscription, and acknowledge each by itself.
    #[command(subcommand)]
    Subscription(SubscriptionCommand),
    /// Publish messages that are given as arguments, and print their offsets.
    ///
    /// It publishes each message once and does not try again. `trunkline produce` is for many
    /// messages, and for those that must be stored exactly once.
    Pub(PublishArgs),
    /// Publish lines, each as a message.
    ///
    /// Messages are numbered, so that each line is stored once even if the broker is lost during the
    /// run. A producer has one live instance: opening another instance of the same id fences the
    /// first one.
    Produce(Box<ProduceArgs>),
    /// Print messages, one a line, and wait for more.
    #[command(visible_alias = "sub")]
    Consume(ConsumeArgs),
    /// Work on the messages of a subscription: print them, or run a command for each.
    ///
    /// A message is acknowledged when it is printed and read, or when its command has succeeded.
    /// Ctrl-C and SIGTERM wait for the commands that run; a second one ends them.
    Work(WorkArgs),
    /// Print a topic's newest messages without a consumer, and optionally those that follow.
    Tail(TailArgs),
    /// List the consumers that are behind, those with the most messages left first.
    ///
    /// LAG is how many messages are left. BEHIND is how long ago the message at the consumer's
    /// position was stored, by the clock of this machine; "-" if it was removed or may not be read.
    Lag(LagArgs),
    /// Watch topics and consumers: what moves, who is behind, and what is wrong.
    Top(TopArgs),
    /// Create, list, rotate and revoke the tokens that prove who calls.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Say what a principal may do.
    #[command(subcommand)]
    Grant(GrantCommand),
    /// Say how much a principal may do and have.
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// Show what was done, and which calls were denied.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print who calls, and what they may do.
    Whoami(OutputArgs),
    /// Check whether the broker is serving.
    Health(OutputArgs),
    /// Measure the performance of a broker.
    #[command(subcommand)]
    Bench(Box<BenchCommand>),
    /// Name brokers, and choose the one to use.
    #[command(subcommand)]
    Context(ContextCommand),
    /// Print a script that makes a shell complete this command: subcommands, flags, and the names of
    /// topics, consumers, producers and contexts.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page of this command.
    Man(ManArgs),
}

/// Parses the command line; if that fails, prints the error and exits.
pub fn parse() -> Cli {
    let mut command = command();
    let matches = command.get_matches_mut();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

/// The command line with all that is set beside the declarations above.
pub(super) fn command() -> clap::Command {
    complete_names(arrange(refuse_empty_values(Cli::command())), command)
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Error, error::ErrorKind};

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    /// Parses an empty value of an argument of the subcommand at `path`.
    fn parse_empty_value(path: &[&str], arg: &Arg) -> Result<(), Error> {
        let mut words: Vec<String> = path.iter().map(|word| (*word).to_owned()).collect();
        match (arg.get_long(), arg.get_index()) {
            (Some(long), _) => words.push(format!("--{long}=")),
            (None, Some(index)) => {
                // Of the arguments before others, some take only the names of operations or limits.
                let before = if path.contains(&"quota") { "streams" } else { "read" };
                words.extend((1..index).map(|_| before.to_owned()));
                words.push(String::new());
            }
            (None, None) => {
                let short = arg.get_short().unwrap_or_else(|| panic!("{arg} has no name"));
                words.extend([format!("-{short}"), String::new()]);
            }
        }
        command().try_get_matches_from(words).map(|_| ())
    }

    /// Calls `check` for every argument that takes a value, with the path of its subcommand.
    fn walk(command: &clap::Command, path: &[&str], check: &mut impl FnMut(&[&str], &Arg)) {
        for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
            check(path, arg);
        }
        for subcommand in command.get_subcommands() {
            walk(subcommand, &[path, &[subcommand.get_name()]].concat(), check);
        }
    }

    #[test]
    fn only_the_listed_arguments_accept_an_empty_value() {
        let (mut refused, mut accepted) = (0, Vec::new());
        let mut command = command();
        command.build();
        walk(&command, &["trunkline"], &mut |path, arg| {
            if path.contains(&"help") {
                return;
            }
            match parse_empty_value(path, arg) {
                // Values are parsed before missing arguments are noticed.
                Err(error)
                    if [ErrorKind::ValueValidation, ErrorKind::InvalidValue]
                        .contains(&error.kind()) =>
                {
                    let text = error.to_string();
                    let long = arg.get_long().map(|long| format!("--{long}"));
                    let name = long.unwrap_or_else(|| arg.to_string());
                    assert!(text.contains(&name), "{path:?} {arg}: {text}");
                    refused += 1;
                }
                _ => accepted.push(format!("{} {}", path.join(" "), arg.get_id())),
            }
        });
        assert_eq!(
            accepted,
            [
                "trunkline topic create description",
                "trunkline topic update description",
                "trunkline subscription create filter",
                "trunkline subscription create dead_letter_topic",
                "trunkline subscription update filter",
                "trunkline subscription update dead_letter_topic",
                "trunkline token create description",
            ]
        );
        assert!(refused > 60, "{refused}");
    }

    #[test]
    fn white_space_counts_as_empty_except_in_a_key_separator() {
        let parse = |words: &[&str]| {
            let words = [&["trunkline"], words].concat();
            command().try_get_matches_from(words).map(|_| ())
        };
        for blank in ["", " ", "\n", "\t "] {
            let text = parse(&["serve", "--database-url", blank]).unwrap_err().to_string();
            assert!(text.contains("--database-url") && text.contains("empty"), "{text}");
            assert!(text.contains("TRUNKLINE_DATABASE_URL"), "{text}");
            let text = parse(&["serve", "--data-dir", blank]).unwrap_err().to_string();
            assert!(text.contains("--data-dir") && text.contains("TRUNKLINE_DATA_DIR"), "{text}");
        }
        parse(&["produce", "t", "--producer", "p", "--key-separator", " "]).unwrap();
        parse(&["produce", "t", "--producer", "p", "--key-separator", "\t"]).unwrap();
        parse(&["topic", "update", "t", "--description", ""]).unwrap();
    }
}
