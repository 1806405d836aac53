//! Lists and descriptions, for people and for programs.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use super::escape::{printable, write_pretty_json};

/// How to print a list or a description.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct OutputArgs {
    /// The output format.
    #[arg(short = 'o', long = "output", value_name = "OUTPUT", value_enum, default_value_t)]
    pub(super) format: OutputFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// Aligned columns, or a line that says what was done.
    #[default]
    Table,
    /// A JSON array of objects for a list, otherwise an object.
    Json,
}

/// Rows under a header, with aligned columns; and the same rows as JSON objects.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    objects: Vec<Value>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        let header = header.iter().map(|&name| name.to_owned()).collect();
        Self { rows: vec![header], objects: Vec::new() }
    }

    /// A table whose rows begin with the name of a topic if the list spans several topics.
    pub(super) fn of_topics(several: bool, header: &[&str]) -> Self {
        let first = if several { &["TOPIC"][..] } else { &[] };
        Self::new(&[first, header].concat())
    }

    /// Adds a row of a table from [`Self::of_topics`].
    pub(super) fn topic_row<const N: usize>(
        &mut self,
        topic: Option<&str>,
        cells: [String; N],
        object: Value,
    ) {
        self.row(cells, object);
        if let (Some(topic), Some(row)) = (topic, self.rows.last_mut()) {
            row.insert(0, printable(topic).into_owned());
        }
    }

    /// Adds a row, and the same row as an object.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N], object: Value) {
        self.rows.push(cells.iter().map(|cell| printable(cell).into_owned()).collect());
        self.objects.push(object);
    }

    pub(super) fn print(self, out: &mut impl Write, output: OutputArgs) -> io::Result<()> {
        match output.format {
            OutputFormat::Json => print_json(out, &Value::from(self.objects)),
            OutputFormat::Table => self.print_rows(out),
        }
    }

    /// Prints the objects on one line.
    pub(super) fn print_json_line(self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", Value::from(self.objects))?;
        out.flush()
    }

    pub(super) fn print_rows(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.width()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| pad(cell, *width));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(out, "{}", line.trim_end())?;
        }
        out.flush()
    }
}

/// Text followed by blanks, so that it takes as many columns of a terminal.
fn pad(text: &str, width: usize) -> String {
    text.to_owned() + &" ".repeat(width.saturating_sub(text.width()))
}

/// Prints a description: a line for each name and value, or the object.
pub(super) fn describe(
    out: &mut impl Write,
    output: OutputArgs,
    lines: &[(&str, String)],
    object: &Value,
) -> io::Result<()> {
    if output.format == OutputFormat::Json {
        return print_json(out, object);
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 3;
    for (name, value) in lines {
        let line = format!("{:width$}{}", format!("{name}:"), printable(value));
        writeln!(out, "{}", line.trim_end())?;
    }
    out.flush()
}

/// The name of a value of an enum of the protos as it is given on the command line; its number if
/// this version does not know the name.
pub(super) fn argument_name(name: Option<&str>, prefix: &str, number: i32) -> String {
    match name {
        Some(name) => name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', "-"),
        None => number.to_string(),
    }
}

/// Prints that something was done: a line, or the object.
pub(super) fn confirm(
    out: &mut impl Write,
    output: OutputArgs,
    line: &str,
    object: &Value,
) -> io::Result<()> {
    match output.format {
        OutputFormat::Json => print_json(out, object),
        OutputFormat::Table => print_line(out, line),
    }
}

/// Prints one line, such as a secret.
pub(super) fn print_line(out: &mut impl Write, line: &str) -> io::Result<()> {
    writeln!(out, "{}", printable(line))
}

/// Prints an object.
pub(super) fn print_json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    write_pretty_json(out, value)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TABLE: OutputArgs = OutputArgs { format: OutputFormat::Table };
    const JSON: OutputArgs = OutputArgs { format: OutputFormat::Json };

    fn print(output: OutputArgs) -> String {
        let mut table = Table::new(&["NAME", "HEAD"]);
        table.row(["orders".to_owned(), "5".to_owned()], json!({ "name": "orders" }));
        table.row(["a".to_owned(), "12".to_owned()], json!({ "name": "a" }));
        let mut out = Vec::new();
        table.print(&mut out, output).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(print(TABLE), "NAME    HEAD\norders  5\na       12\n");
    }

    #[test]
    fn a_wide_character_counts_as_two_columns() {
        let mut table = Table::new(&["NAME", "HEAD"]);
        table.row(["日本語".to_owned(), "5".to_owned()], Value::Null);
        let mut out = Vec::new();
        table.print(&mut out, TABLE).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME    HEAD\n日本語  5\n");
    }

    #[test]
    fn a_list_is_an_array_of_objects() {
        let list: Value = serde_json::from_str(&print(JSON)).unwrap();
        assert_eq!(list, json!([{ "name": "orders" }, { "name": "a" }]));
    }

    #[test]
    fn control_characters_are_shown_escaped() {
        let mut table = Table::new(&["CONSUMER", "HOLDER"]);
        table.row(["c".to_owned(), "\u{1b}[2J\nfake  row".to_owned()], Value::Null);
        table.row(["long-name".to_owned(), "h".to_owned()], Value::Null);
        let mut out = Vec::new();
        table.print(&mut out, TABLE).unwrap();
        let expected = "CONSUMER   HOLDER\nc          \\u{1b}[2J\\nfake  row\nlong-name  h\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut out = Vec::new();
        let lines = [("description", "one\u{9b}\n two\t".to_owned())];
        describe(&mut out, TABLE, &lines, &Value::Null).unwrap();
        let expected = "description:  one\\u{9b}\\n two\\t\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_values_of_a_description_are_aligned() {
        let mut out = Vec::new();
        let lines = [("name", "orders".to_owned()), ("first offset", "7".to_owned())];
        describe(&mut out, TABLE, &lines, &Value::Null).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name:          orders\nfirst offset:  7\n");
    }
}
