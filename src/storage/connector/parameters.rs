//! The parameters of a database URL, in both of its forms: after the question mark of a URL, and in
//! a list of `NAME=VALUE`.

use std::{iter::Peekable, ops::Range, str::CharIndices};

use percent_encoding::percent_decode_str;

/// A parameter, and where its text lies.
pub(crate) struct Parameter<'a> {
    pub name: &'a str,
    /// The value without quotes and escapes.
    pub value: String,
    span: Range<usize>,
}

/// The parameters of a URL. What cannot be read ends them: the driver then says what is wrong.
pub(crate) fn parameters(url: &str) -> Vec<Parameter<'_>> {
    match url.split_once("://") {
        Some((scheme, _)) => of_url(url, scheme.len() + "://".len()),
        None => of_list(url),
    }
}

/// A URL without the parameters that have one of these names, and those parameters.
pub(crate) fn take<'a>(url: &'a str, names: &[&str]) -> (String, Vec<Parameter<'a>>) {
    let mut taken = parameters(url);
    taken.retain(|parameter| names.contains(&parameter.name));
    let mut rest = url.to_owned();
    for parameter in taken.iter().rev() {
        rest.replace_range(parameter.span.clone(), "");
    }
    (rest, taken)
}

fn of_url(url: &str, authority: usize) -> Vec<Parameter<'_>> {
    // The driver takes everything up to the first @ for the user and the password.
    let host = url[authority..].find('@').map_or(authority, |at| authority + at);
    let Some(query) = url[host..].find('?').map(|at| host + at + 1) else { return Vec::new() };
    let (mut start, mut found) = (query, Vec::new());
    while start < url.len() {
        let end = url[start..].find('&').map_or(url.len(), |at| start + at);
        // The & behind a parameter is a part of it, so that what remains can be read.
        let span = start..(end + 1).min(url.len());
        if let Some((name, value)) = url[start..end].split_once('=') {
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            found.push(Parameter { name, value, span });
        }
        start = end + 1;
    }
    found
}

fn of_list(list: &str) -> Vec<Parameter<'_>> {
    let (mut characters, mut found) = (list.char_indices().peekable(), Vec::new());
    loop {
        skip_white_space(&mut characters);
        let Some(&(start, _)) = characters.peek() else { return found };
        let is_name = |&(_, c): &(usize, char)| c != '=' && !c.is_whitespace();
        while characters.next_if(is_name).is_some() {}
        let name = &list[start..position(&mut characters, list)];
        skip_white_space(&mut characters);
        if characters.next_if(|(_, c)| *c == '=').is_none() {
            return found;
        }
        skip_white_space(&mut characters);
        let Some(value) = value(&mut characters) else { return found };
        found.push(Parameter { name, value, span: start..position(&mut characters, list) });
    }
}

/// A value, in quotes or up to the next white space; a backslash escapes the character behind it.
fn value(characters: &mut Peekable<CharIndices<'_>>) -> Option<String> {
    let is_quoted = characters.next_if(|(_, c)| *c == '\'').is_some();
    let mut value = String::new();
    loop {
        match characters.next_if(|(_, c)| is_quoted || !c.is_whitespace()) {
            Some((_, '\'')) if is_quoted => return Some(value),
            Some((_, '\\')) => value.push(characters.next()?.1),
            Some((_, c)) => value.push(c),
            None => return (!is_quoted).then_some(value),
        }
    }
}

fn skip_white_space(characters: &mut Peekable<CharIndices<'_>>) {
    while characters.next_if(|(_, c)| c.is_whitespace()).is_some() {}
}

fn position(characters: &mut Peekable<CharIndices<'_>>, text: &str) -> usize {
    characters.peek().map_or(text.len(), |(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(url: &str) -> (String, Vec<(String, String)>) {
        let (rest, taken) = take(url, &["sslmode", "sslkey"]);
        (rest, taken.into_iter().map(|one| (one.name.to_owned(), one.value)).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn parameters_are_taken_out_of_both_forms() {
        for (url, rest, parameters) in [
            ("postgresql://h/d", "postgresql://h/d", &[][..]),
            ("postgresql://h/d?sslmode=require", "postgresql://h/d?", &[("sslmode", "require")]),
            (
                "postgresql://u:?sslmode=x@h/d?a=1&sslkey=%2Fa%20b&c=2&sslmode=disable",
                "postgresql://u:?sslmode=x@h/d?a=1&c=2&",
                &[("sslkey", "/a b"), ("sslmode", "disable")],
            ),
            (
                r"host=h sslkey = '/it\'s a' sslmode=\d\'x dbname=d",
                "host=h   dbname=d",
                &[("sslkey", "/it's a"), ("sslmode", "d'x")],
            ),
            ("host=h sslmode", "host=h sslmode", &[]),
            ("host=h sslmode='x", "host=h sslmode='x", &[]),
            ("host=h password='sslmode=x'", "host=h password='sslmode=x'", &[]),
            ("sslmode=", "", &[("sslmode", "")]),
        ] {
            assert_eq!(taken(url), (rest.to_owned(), pairs(parameters)), "{url}");
        }
    }
}
