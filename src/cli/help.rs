//! Arranges the help of the command: examples at its foot, and no flag where it means nothing.

pub(super) mod examples;

use clap::Command;

/// Subcommands that call no broker, by their names from the root on.
pub(super) const WITHOUT_BROKER: [&[&str]; 5] =
    [&["serve"], &["migrate"], &["token", "bootstrap"], &["completions"], &["man"]];

/// Flags that choose a broker, which mean nothing to the subcommands of `context`.
const CHOICE: [&str; 2] = ["endpoint", "context"];

/// The same command with its help arranged.
pub(super) fn arrange(mut command: Command) -> Command {
    let globals: Vec<_> =
        command.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    let hide = |command: Command, is_meant: fn(&str) -> bool| {
        let meant = globals.iter().filter(|arg| is_meant(arg.get_id().as_str()));
        // An argument of the same id takes the place of the global one.
        meant.fold(command, |command, arg| command.arg(arg.clone().hide(true)))
    };
    for path in WITHOUT_BROKER {
        command = at(command, path, &|command| hide(command, |_| true));
    }
    command = at(command, &["context"], &|command| hide(command, |id| CHOICE.contains(&id)));
    for name in ["add", "use", "list", "remove"] {
        let is_add = name == "add";
        command = at(command, &["context", name], &|command| match is_add {
            true => hide(command, |id| CHOICE.contains(&id)),
            false => hide(command, |_| true),
        });
    }
    for (group, id) in
        [("consumer", "CONSUMER"), ("producer", "PRODUCER"), ("subscription", "SUBSCRIPTION")]
    {
        command = at(command, &[group], &|command| name_arguments(command, id));
    }
    for (path, lines) in examples::EXAMPLES {
        let path: Vec<&str> = path.split(' ').collect();
        let text = format!("Examples:\n  {}", lines.join("\n  "));
        command = at(command, &path, &|command| command.after_help(text.clone()));
    }
    command
}

/// Has the usage of the subcommands for consumers, producers or subscriptions say what is required. By
/// itself, it would show arguments as optional that are not, as they may also follow `--topic`.
fn name_arguments(mut group: Command, id: &'static str) -> Command {
    for (name, arguments) in [
        ("describe", format!("<TOPIC> <{id}>")),
        ("unregister", format!("<TOPIC> <{id}>")),
        ("seek", format!("--to <START> <TOPIC> <{id}>")),
        ("assign", format!("<TOPIC> <{id}> <PRINCIPAL>")),
        ("register", format!("<TOPIC> [{id}]")),
        ("create", format!("<TOPIC> [{id}]")),
        ("update", format!("<TOPIC> <{id}>")),
        ("delete", format!("<TOPIC> <{id}>")),
        ("parked", format!("<TOPIC> <{id}>")),
    ] {
        if group.find_subcommand(name).is_some() {
            let usage = format!("trunkline {} {name} [OPTIONS] {arguments}", group.get_name());
            group = at(group, &[name], &|command| {
                let command = command.override_usage(usage.clone());
                command.mut_args(|arg| match arg.get_id() == "second" {
                    true => arg.value_name(id),
                    false => arg,
                })
            });
        }
    }
    group
}

/// Changes the subcommand at a path.
fn at(command: Command, path: &[&str], change: &dyn Fn(Command) -> Command) -> Command {
    match path.split_first() {
        None => change(command),
        Some((name, rest)) => command.mut_subcommand(name, |command| at(command, rest, change)),
    }
}
