//! The command line, on which no value is empty by accident.
//!
//! `--database-url "$UNSET"` is a mistake, and not the same as no `--database-url`. So every flag,
//! argument and variable that takes text refuses an empty value, unless it is on the list below.

use std::{
    any::TypeId,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{
    Arg, Command, CommandFactory as _, Error, FromArgMatches as _,
    builder::{OsStringValueParser, PathBufValueParser, StringValueParser, TypedValueParser},
    error::ErrorKind,
};

use super::Cli;

/// Arguments for which an empty text means something: it removes a topic's description.
const MAY_BE_EMPTY: [&str; 1] = ["description"];

/// Arguments that may consist of white space: a blank can well stand between a key and a payload.
const MAY_BE_BLANK: [&str; 1] = ["key_separator"];

/// Reads the command line, or says what is wrong with it and ends the process.
pub fn parse() -> Cli {
    let mut command = command();
    let matches = command.get_matches_mut();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

/// The command with all its arguments.
pub(super) fn command() -> Command {
    refuse_empty_values(Cli::command())
}

fn refuse_empty_values(command: Command) -> Command {
    command.mut_args(refuse_empty_value).mut_subcommands(refuse_empty_values)
}

fn refuse_empty_value(arg: Arg) -> Arg {
    let id = arg.get_id().as_str();
    let kind = arg.get_value_parser().type_id();
    if MAY_BE_EMPTY.contains(&id) {
        arg
    } else if kind == TypeId::of::<String>() {
        let blank = MAY_BE_BLANK.contains(&id);
        arg.value_parser(Text { blank })
    } else if kind == TypeId::of::<OsString>() {
        arg.value_parser(FileName)
    } else if kind == TypeId::of::<PathBuf>() {
        arg.value_parser(FilePath)
    } else {
        // What is parsed further, as an address or a number, is not parsed from nothing.
        arg
    }
}

/// Text that is not empty.
#[derive(Clone)]
struct Text {
    /// Whether it may consist of white space alone.
    blank: bool,
}

impl TypedValueParser for Text {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, Error> {
        let text = StringValueParser::new().parse_ref(command, arg, value)?;
        let missing = if self.blank { text.is_empty() } else { text.trim().is_empty() };
        if missing { Err(empty(command, arg)) } else { Ok(text) }
    }
}

/// A file's name that is not empty.
#[derive(Clone)]
struct FileName;

impl TypedValueParser for FileName {
    type Value = OsString;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<OsString, Error> {
        let name = OsStringValueParser::new().parse_ref(command, arg, value)?;
        if name.is_empty() { Err(empty(command, arg)) } else { Ok(name) }
    }
}

/// A path that is not blank: a folder of that name would hardly be meant.
#[derive(Clone)]
struct FilePath;

impl TypedValueParser for FilePath {
    type Value = PathBuf;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<PathBuf, Error> {
        if value.to_string_lossy().trim().is_empty() {
            return Err(empty(command, arg));
        }
        PathBufValueParser::new().parse_ref(command, arg, value)
    }
}

fn empty(command: &Command, arg: Option<&Arg>) -> Error {
    let name = arg.map_or_else(|| "an argument".to_owned(), ToString::to_string);
    let variable = arg.and_then(Arg::get_env).map(|name| format!(", or {},", name.display()));
    let problem = format!(
        "{name}{} is given but empty: give it a value, or leave it out\n",
        variable.unwrap_or_default()
    );
    Error::raw(ErrorKind::ValueValidation, problem).with_cmd(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the parser says to an empty value of an argument of the subcommand at `path`.
    fn with_empty_value(path: &[&str], arg: &Arg) -> Result<(), Error> {
        let mut words: Vec<String> = path.iter().map(|word| (*word).to_owned()).collect();
        match (arg.get_long(), arg.get_index()) {
            (Some(long), _) => words.push(format!("--{long}=")),
            (None, Some(index)) => {
                words.extend((1..index).map(|_| "x".to_owned()));
                words.push(String::new());
            }
            (None, None) => {
                let short = arg.get_short().unwrap_or_else(|| panic!("{arg} has no name"));
                words.extend([format!("-{short}"), String::new()]);
            }
        }
        command().try_get_matches_from(words).map(|_| ())
    }

    /// Calls `check` for every argument that takes a value, with the words of its subcommand.
    fn walk(command: &Command, path: &[&str], check: &mut impl FnMut(&[&str], &Arg)) {
        for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
            check(path, arg);
        }
        for subcommand in command.get_subcommands() {
            walk(subcommand, &[path, &[subcommand.get_name()]].concat(), check);
        }
    }

    #[test]
    fn no_argument_takes_an_empty_value_but_those_that_are_listed() {
        let (mut refused, mut taken) = (0, Vec::new());
        let mut command = command();
        command.build();
        walk(&command, &["trunkline"], &mut |path, arg| {
            if path.contains(&"help") {
                return;
            }
            match with_empty_value(path, arg) {
                // Values are parsed before anything that is missing is noticed.
                Err(error)
                    if [ErrorKind::ValueValidation, ErrorKind::InvalidValue]
                        .contains(&error.kind()) =>
                {
                    let told = error.to_string();
                    let long = arg.get_long().map(|long| format!("--{long}"));
                    let name = long.unwrap_or_else(|| arg.to_string());
                    assert!(told.contains(&name), "{path:?} {arg}: {told}");
                    refused += 1;
                }
                _ => taken.push(format!("{} {}", path.join(" "), arg.get_id())),
            }
        });
        assert_eq!(
            taken,
            ["trunkline topic create description", "trunkline topic update description"]
        );
        assert!(refused > 60, "{refused}");
    }

    #[test]
    fn a_blank_is_empty_but_for_what_may_be_blank() {
        let parse = |words: &[&str]| {
            let words = [&["trunkline"], words].concat();
            command().try_get_matches_from(words).map(|_| ())
        };
        for blank in ["", " ", "\n", "\t "] {
            let told = parse(&["serve", "--database-url", blank]).unwrap_err().to_string();
            assert!(told.contains("--database-url") && told.contains("empty"), "{told}");
            assert!(told.contains("TRUNKLINE_DATABASE_URL"), "{told}");
            let told = parse(&["serve", "--data-dir", blank]).unwrap_err().to_string();
            assert!(told.contains("--data-dir") && told.contains("TRUNKLINE_DATA_DIR"), "{told}");
        }
        parse(&["produce", "t", "--producer", "p", "--key-separator", " "]).unwrap();
        parse(&["produce", "t", "--producer", "p", "--key-separator", "\t"]).unwrap();
        parse(&["topic", "update", "t", "--description", ""]).unwrap();
    }
}
