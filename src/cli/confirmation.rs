//! Asks before something is deleted.

use std::io::{self, IsTerminal as _, Write as _};

use super::{escape::printable, failure::Failure};

/// Whether somebody would see a question and could answer it, which is not so in a script.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question that must be answered with yes.
pub(super) fn ask(question: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::refused(format!("ask on the terminal: {error}"));
    let mut terminal = io::stderr();
    write!(terminal, "{} [y/N] ", printable(question)).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::refused("nothing was done")),
    }
}
