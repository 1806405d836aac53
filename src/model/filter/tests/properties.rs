//! Filters are read as they are written, and no text does harm.

use proptest::{collection::vec, prelude::*, sample::select};

use crate::model::filter::{
    Filter,
    expression::{Expression, Test},
    parse::parse,
};

/// Writes an expression in one of the ways in which it can be written: `style` chooses which.
fn print(expression: &Expression, style: usize) -> String {
    let headers = ["headers", "attributes"][style % 2];
    let inner = |expression: &Expression| {
        let text = print(expression, style / 2 + 1);
        let is_list = matches!(expression, Expression::All(_) | Expression::Any(_));
        if is_list || style.is_multiple_of(5) { format!("( {text})") } else { text }
    };
    let join = |expressions: &[Expression], operator: &str| {
        expressions.iter().map(inner).collect::<Vec<_>>().join(operator)
    };
    match expression {
        Expression::Header { name, test } => {
            let is_word = name.chars().all(|c| c.is_ascii_alphanumeric());
            let name =
                if is_word && style.is_multiple_of(3) { name.clone() } else { quote(name, style) };
            match test {
                Test::Present => format!("{headers}:{name}"),
                Test::Equals(value) => format!("{headers}.{name}={}", quote(value, style)),
                Test::StartsWith(text) => {
                    format!("hasPrefix({headers}.{name},{})", quote(text, style))
                }
            }
        }
        Expression::Not(negated) => match &**negated {
            Expression::Header { name, test: Test::Equals(value) } if style.is_multiple_of(7) => {
                format!("{headers}.{} != {}", quote(name, style), quote(value, style))
            }
            negated => format!("{}{}", ["NOT ", "-"][style % 2], inner(negated)),
        },
        Expression::All(terms) => join(terms, " AND "),
        Expression::Any(terms) => join(terms, "\nOR "),
    }
}

fn quote(text: &str, style: usize) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        _ if c.is_control() || style.is_multiple_of(4) => format!(r"\U{:08x}", u32::from(c)),
        _ => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

fn text(least: usize) -> impl Strategy<Value = String> {
    let character = prop_oneof![any::<char>(), select(vec!['a', 'Z', '0', '"', '\\', '\0'])];
    vec(character, least..6).prop_map(String::from_iter)
}

fn expression() -> impl Strategy<Value = Expression> {
    let test = prop_oneof![
        Just(Test::Present),
        text(0).prop_map(Test::Equals),
        text(0).prop_map(Test::StartsWith)
    ];
    let name = prop_oneof!["[A-Za-z0-9]{1,8}", text(1)];
    let header = (name, test).prop_map(|(name, test)| Expression::Header { name, test });
    header.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|negated| Expression::Not(Box::new(negated))),
            vec(inner.clone(), 2..4).prop_map(Expression::All),
            vec(inner, 2..4).prop_map(Expression::Any),
        ]
    })
}

/// Text that is nearly a filter.
fn fragments() -> impl Strategy<Value = String> {
    let fragments = r#"headers|attributes|hasPrefix|NOT|-|(|)|:|.|,|=|!=|!| |"|"a"|é|\|\u00|\1"#;
    let larger = r#"headers:a|headers.a="b"|hasPrefix(headers.a, "b")| AND | OR "#;
    let fragment = prop_oneof![
        select(fragments.split('|').collect::<Vec<_>>()),
        select(larger.split('|').collect::<Vec<_>>()),
    ];
    vec(fragment, 0..60).prop_map(|fragments| fragments.concat())
}

proptest! {
    #[test]
    fn an_expression_is_read_as_it_is_written(expression in expression(), style in 0_usize..1_000) {
        prop_assert_eq!(parse(&print(&expression, style)), Ok(expression));
    }

    #[test]
    fn any_text_is_a_filter_or_refused_at_a_place_in_it(
        text in prop_oneof![".{0,200}", fragments()],
    ) {
        match Filter::parse(&text) {
            Ok(filter) => {
                filter.matches(|_| Some("b"));
                prop_assert_eq!(filter.as_str(), text);
            }
            Err(refused) => prop_assert!(refused.position <= text.chars().count()),
        }
    }
}
