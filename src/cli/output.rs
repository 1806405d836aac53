//! Lists and descriptions, for people and for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::Value;

use super::escape::{printable, write_pretty_json};

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Aligned columns.
    #[default]
    Table,
    /// A JSON array of objects; of one thing, an object.
    Json,
}

/// Rows under a header, each column as wide as its widest cell; and the same as JSON objects.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    objects: Vec<Value>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        let header = header.iter().map(|&name| name.to_owned()).collect();
        Self { rows: vec![header], objects: Vec::new() }
    }

    /// Adds a row, and the object that says the same.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N], object: Value) {
        self.rows.push(cells.iter().map(|cell| printable(cell).into_owned()).collect());
        self.objects.push(object);
    }

    pub(super) fn print(self, out: &mut impl Write, output: Output) -> io::Result<()> {
        match output {
            Output::Json => print_json(out, &Value::from(self.objects)),
            Output::Table => self.print_rows(out),
        }
    }

    fn print_rows(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(out, "{}", line.trim_end())?;
        }
        out.flush()
    }
}

/// Prints what there is to say of one thing: a line each, or an object.
pub(super) fn describe(
    out: &mut impl Write,
    output: Output,
    lines: &[(&str, String)],
    object: &Value,
) -> io::Result<()> {
    if output == Output::Json {
        return print_json(out, object);
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 3;
    for (name, value) in lines {
        let line = format!("{:width$}{}", format!("{name}:"), printable(value));
        writeln!(out, "{}", line.trim_end())?;
    }
    out.flush()
}

/// Says that something was done.
pub(super) fn tell(out: &mut impl Write, what: &str) -> io::Result<()> {
    writeln!(out, "{}", printable(what))
}

fn print_json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    write_pretty_json(out, value)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn print(output: Output) -> String {
        let mut table = Table::new(&["NAME", "HEAD"]);
        table.row(["orders".to_owned(), "5".to_owned()], json!({ "name": "orders" }));
        table.row(["a".to_owned(), "12".to_owned()], json!({ "name": "a" }));
        let mut out = Vec::new();
        table.print(&mut out, output).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(print(Output::Table), "NAME    HEAD\norders  5\na       12\n");
    }

    #[test]
    fn a_list_is_an_array_of_objects() {
        let list: Value = serde_json::from_str(&print(Output::Json)).unwrap();
        assert_eq!(list, json!([{ "name": "orders" }, { "name": "a" }]));
    }

    #[test]
    fn what_a_terminal_would_act_upon_is_shown_as_what_it_is() {
        let mut table = Table::new(&["CONSUMER", "HOLDER"]);
        table.row(["c".to_owned(), "\u{1b}[2J\nfake  row".to_owned()], Value::Null);
        table.row(["long-name".to_owned(), "h".to_owned()], Value::Null);
        let mut out = Vec::new();
        table.print(&mut out, Output::Table).unwrap();
        let expected = "CONSUMER   HOLDER\nc          \\u{1b}[2J\\nfake  row\nlong-name  h\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut out = Vec::new();
        let lines = [("description", "one\u{9b}\n two\t".to_owned())];
        describe(&mut out, Output::Table, &lines, &Value::Null).unwrap();
        let expected = "description:  one\\u{9b}\\n two\\t\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn values_of_a_description_are_aligned() {
        let mut out = Vec::new();
        let lines = [("name", "orders".to_owned()), ("first offset", "7".to_owned())];
        describe(&mut out, Output::Table, &lines, &Value::Null).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name:          orders\nfirst offset:  7\n");
    }
}
