//! Refuses empty values on the command line.
//!
//! `--database-url "$UNSET"` is a mistake, and differs from leaving `--database-url` out. So every
//! flag, argument and variable that takes text refuses an empty value unless it is listed below.

use std::{
    any::TypeId,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{
    Arg, Command, Error,
    builder::{OsStringValueParser, PathBufValueParser, StringValueParser, TypedValueParser},
    error::ErrorKind,
};

/// Arguments that may be empty: an empty description removes a topic's description, and the others remove a
/// subscription's filter and its dead-letter topic.
const MAY_BE_EMPTY: [&str; 3] = ["description", "filter", "dead_letter_topic"];

/// Arguments that may consist of white space: a blank is a sensible key separator.
const MAY_BE_BLANK: [&str; 1] = ["key_separator"];

/// The same command, which refuses empty values in all its subcommands.
pub(super) fn refuse_empty_values(command: Command) -> Command {
    command.mut_args(refuse_empty_value).mut_subcommands(refuse_empty_values)
}

fn refuse_empty_value(arg: Arg) -> Arg {
    let id = arg.get_id().as_str();
    let kind = arg.get_value_parser().type_id();
    if MAY_BE_EMPTY.contains(&id) {
        return arg;
    }
    let may_be_blank = MAY_BE_BLANK.contains(&id);
    if kind == TypeId::of::<String>() {
        arg.value_parser(NotEmpty { parser: StringValueParser::new(), may_be_blank })
    } else if kind == TypeId::of::<OsString>() {
        // A file's name may be blank.
        arg.value_parser(NotEmpty { parser: OsStringValueParser::new(), may_be_blank: true })
    } else if kind == TypeId::of::<PathBuf>() {
        arg.value_parser(NotEmpty { parser: PathBufValueParser::new(), may_be_blank })
    } else {
        // The parsers of addresses, numbers and the like refuse an empty value themselves.
        arg
    }
}

/// Parses a value unless it is empty.
#[derive(Clone)]
struct NotEmpty<P> {
    parser: P,
    /// Whether a value that consists of white space alone is accepted.
    may_be_blank: bool,
}

impl<P: TypedValueParser> TypedValueParser for NotEmpty<P> {
    type Value = P::Value;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<P::Value, Error> {
        let is_blank = !self.may_be_blank && value.to_string_lossy().trim().is_empty();
        if value.is_empty() || is_blank {
            return Err(empty(command, arg));
        }
        self.parser.parse_ref(command, arg, value)
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
