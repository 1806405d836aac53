//! Forms: what a browser sends, and what was wrong with it.

use std::collections::{BTreeMap, HashMap};

use axum::Form;
use maud::{Markup, html};

use super::{layout::field_error, problem::Problem, visitor::Visitor};

/// What a form sent, by field.
pub(super) type Sent = Form<HashMap<String, String>>;

/// A form as it is shown: what its fields hold, and what is wrong with them.
#[derive(Default)]
pub(super) struct Shown<'a> {
    values: Option<&'a HashMap<String, String>>,
    problem: Option<&'a Problem>,
}

impl<'a> Shown<'a> {
    /// A form that was sent, and was wrong.
    pub(super) fn again(values: &'a HashMap<String, String>, problem: &'a Problem) -> Self {
        Self { values: Some(values), problem: Some(problem) }
    }

    /// What a field holds; `usual` before the form was sent.
    pub(super) fn value(&self, field: &str, usual: &str) -> String {
        match self.values {
            // Another form of the page does not send it.
            Some(values) => values.get(field).cloned().unwrap_or_else(|| usual.to_owned()),
            None => usual.to_owned(),
        }
    }

    /// Whether a box is ticked, of a form that has the field `beside` too; `usual` before that form
    /// was sent.
    pub(super) fn checked(&self, field: &str, beside: &str, usual: bool) -> bool {
        match self.values {
            Some(values) if values.contains_key(beside) => values.contains_key(field),
            _ => usual,
        }
    }

    /// What is wrong with a field.
    pub(super) fn problem(&self, field: &str) -> Option<&str> {
        let problem = self.problem.filter(|problem| problem.field.as_deref() == Some(field));
        problem.map(Problem::text)
    }

    /// A field of one line.
    pub(super) fn field(&self, id: &str, label: &str, usual: &str, hint: &str) -> Markup {
        let problem = self.problem(id);
        html! {
            div.field {
                label for=(id) { (label) }
                input id=(id) name=(id) value=(self.value(id, usual)) autocomplete="off"
                    spellcheck="false" aria-invalid=[problem.map(|_| "true")]
                    aria-describedby=(described_by(id, problem));
                (field_error(id, problem))
                p.hint id=(format!("{id}-hint")) { (hint) }
            }
        }
    }

    /// A field of several lines.
    pub(super) fn area(&self, id: &str, label: &str, usual: &str, hint: &str, rows: u8) -> Markup {
        let problem = self.problem(id);
        html! {
            div.field {
                label for=(id) { (label) }
                textarea id=(id) name=(id) rows=(rows) spellcheck="false"
                    aria-invalid=[problem.map(|_| "true")]
                    aria-describedby=(described_by(id, problem)) { (self.value(id, usual)) }
                (field_error(id, problem))
                p.hint id=(format!("{id}-hint")) { (hint) }
            }
        }
    }

    /// What is wrong with the form as a whole, or with a field that it does not have.
    pub(super) fn elsewhere(&self, fields: &[&str]) -> Markup {
        let is_elsewhere = |problem: &&Problem| {
            problem.field.as_deref().is_none_or(|field| !fields.contains(&field))
        };
        html! {
            @if let Some(problem) = self.problem.filter(is_elsewhere) { (problem.part()) }
        }
    }
}

fn described_by(id: &str, problem: Option<&str>) -> String {
    match problem {
        Some(_) => format!("{id}-error {id}-hint"),
        None => format!("{id}-hint"),
    }
}

/// What each form that changes something sends along.
pub(super) fn proof(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="csrf" value=(visitor.csrf); }
}

/// Refuses a form that this broker has not served to this visitor.
pub(super) fn check_proof(
    visitor: &Visitor,
    sent: &HashMap<String, String>,
) -> Result<(), Problem> {
    let is_ours = sent.get("csrf").is_some_and(|sent| {
        let (sent, ours) = (sent.as_bytes(), visitor.csrf.as_bytes());
        bool::from(subtle::ConstantTimeEq::ct_eq(sent, ours))
    });
    match is_ours {
        true => Ok(()),
        false => Err(Problem::outdated()),
    }
}

/// Refuses what must be confirmed by typing a name, unless it was typed.
pub(super) fn check_confirmation(
    sent: &HashMap<String, String>,
    field: &str,
    name: &str,
) -> Result<(), Problem> {
    match sent.get(field).is_some_and(|typed| typed == name) {
        true => Ok(()),
        false => Err(Problem::invalid(field, &format!("type {name} to confirm"))),
    }
}

/// Names and values, one pair a line: `team=shop`.
pub(super) fn pairs(field: &str, text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let pair = |line: &str| match line.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
        None => {
            let text = format!("write one pair a line, such as team=shop, and not {line:?}");
            Err(Problem::invalid(field, &text))
        }
    };
    lines.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_line_by_line() {
        let read = pairs("labels", "team=shop\n\n env = a=b \n").unwrap();
        assert_eq!(read["team"], "shop");
        assert_eq!(read["env"], "a=b");
        let problem = pairs("labels", "team").unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("labels"));
        assert!(problem.text().contains("\"team\""));
    }
}
