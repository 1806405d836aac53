//! What the help of every subcommand has.

use clap::Command;

use super::{
    command_line::command,
    help::{WITHOUT_BROKER, examples::EXAMPLES},
};

/// Calls `check` for every subcommand but `help`, with its path.
fn walk(command: &Command, path: &str, check: &mut impl FnMut(&Command, &str)) {
    for subcommand in command.get_subcommands().filter(|it| it.get_name() != "help") {
        let path = format!("{path} {}", subcommand.get_name());
        check(subcommand, path.trim_start());
        walk(subcommand, &path, check);
    }
}

#[test]
fn every_subcommand_has_examples_that_can_be_parsed() {
    walk(&command(), "", &mut |_, path| {
        let found = EXAMPLES.iter().find(|(of, _)| *of == path);
        let (_, lines) = found.unwrap_or_else(|| panic!("{path} has no examples"));
        for line in *lines {
            let (_, call) = line.rsplit_once("trunkline ").unwrap_or_else(|| panic!("{line}"));
            let call = call.split(" > ").next().unwrap_or_default();
            let call = call.split(" | ").next().unwrap_or_default();
            assert!(call.starts_with(path), "{path}: {line}");
            let words = ["trunkline"].into_iter().chain(call.split_whitespace());
            let parsed = command().try_get_matches_from(words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    });
}

#[test]
fn global_flags_come_last_and_only_where_they_mean_something() {
    let mut command = command();
    command.build();
    let mut shown = 0;
    walk(&command, "", &mut |command, path| {
        let help = command.clone().render_long_help().to_string();
        let own = help.find("\nOptions:").unwrap_or_else(|| panic!("{path}: {help}"));
        let means_nothing = WITHOUT_BROKER.iter().any(|it| it.join(" ") == path)
            || path.starts_with("context ") && path != "context add";
        match help.find("\nConnection:") {
            Some(connection) => assert!(own < connection && !means_nothing, "{path}: {help}"),
            None => assert!(means_nothing, "{path}: {help}"),
        }
        shown += usize::from(!means_nothing);
    });
    assert!(shown > 40, "{shown}");
    let words = ["trunkline", "serve", "--endpoint", "localhost"];
    assert!(command.try_get_matches_from(words).is_ok(), "what is hidden is still accepted");
}
