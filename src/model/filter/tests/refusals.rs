//! What is refused, where, and why.

use crate::model::filter::{
    Filter,
    parse::{MAX_DEPTH, parse},
};

#[test]
fn a_bad_filter_is_refused_where_it_is_wrong() {
    const TERM: &str = r#"expected "headers", "attributes", "hasPrefix", "NOT", "-" or "(""#;
    let at_a_term = |found: &str| format!("{TERM}, found {found}");
    for (filter, position, problem) in [
        ("", 0, at_a_term("the end of the filter")),
        ("  ", 2, at_a_term("the end of the filter")),
        (r#""com" = headers.name"#, 0, at_a_term("a string in double quotes")),
        ("not headers:a", 0, at_a_term(r#""not""#)),
        ("!headers:a", 0, at_a_term(r#""!""#)),
        ("header:a", 0, at_a_term(r#""header""#)),
        ("é", 0, at_a_term(r#""é""#)),
        ("()", 1, at_a_term(r#"")""#)),
        ("headers:a AND", 13, at_a_term("the end of the filter")),
        (r#"headers.a = "é" AND ("b" OR "c")"#, 21, at_a_term("a string in double quotes")),
    ] {
        check_refused(filter, position, &problem);
    }
    for (filter, position, problem) in [
        ("headers", 7, r#"expected ":" or ".", found the end of the filter"#),
        ("headers = \"a\"", 8, r#"expected ":" or ".", found "=""#),
        ("headers:", 8, "expected the name of a header, found the end of the filter"),
        ("headers:-a", 8, r#"expected the name of a header, found "-""#),
        ("headers:\"\"", 8, "expected the name of a header, found an empty string"),
        (r"headers:\u307F", 8, r#"expected the name of a header, found "\\""#),
        (
            "headers:iana.org",
            12,
            "expected the end of the header's name, found \".\": \
             put a name that has this in double quotes",
        ),
        ("headers.a", 9, r#"expected "=" or "!=", found the end of the filter"#),
        ("headers.a > \"b\"", 10, r#"expected "=" or "!=", found ">""#),
        ("headers.a == \"b\"", 11, r#"expected a string in double quotes, found "=""#),
        ("headers.a = 'b'", 12, r#"expected a string in double quotes, found "'""#),
        ("headers.a = headers.b", 12, r#"expected a string in double quotes, found "headers""#),
        ("hasPrefix headers.a", 10, r#"expected "(", found "headers""#),
        ("hasPrefix(a, \"b\")", 10, r#"expected "headers" or "attributes", found "a""#),
        ("hasPrefix(headers:a, \"b\")", 17, r#"expected ".", found ":""#),
        ("hasPrefix(headers.a \"b\")", 20, r#"expected ",", found a string in double quotes"#),
        ("hasPrefix(headers.a, \"b\"", 24, r#"expected ")", found the end of the filter"#),
        (
            "headers:a headers:b",
            10,
            r#"expected "AND", "OR" or the end of the filter, found "headers""#,
        ),
        (
            "headers:a and headers:b",
            10,
            r#"expected "AND", "OR" or the end of the filter, found "and""#,
        ),
        ("(headers:a", 10, r#"expected "AND", "OR" or ")", found the end of the filter"#),
        ("headers:a)", 9, r#"expected "AND", "OR" or the end of the filter, found ")""#),
        ("headers:a OR headers:b)", 22, r#"expected "OR" or the end of the filter, found ")""#),
        (
            "headers:a AND headers:b OR headers:c",
            24,
            "expected \"AND\" or the end of the filter, found \"OR\": \
             combine \"AND\" and \"OR\" with parentheses",
        ),
        (
            "(headers:a OR headers:b AND headers:c)",
            24,
            "expected \"OR\" or \")\", found \"AND\": combine \"AND\" and \"OR\" with parentheses",
        ),
    ] {
        check_refused(filter, position, problem);
    }
}

#[test]
fn a_bad_string_is_refused_where_it_is_wrong() {
    let escape = |found: &str| {
        format!(r#"expected an escape (\" \\ \n \r \t \u \U \x or 3 octal digits), found {found}"#)
    };
    let ascii = |found: &str| {
        format!(
            r"expected the code of an ASCII character, found {found}: use \u for other characters"
        )
    };
    let end = "the end of the filter";
    for (string, position, problem) in [
        ("\"é", 2, format!("expected the closing quote of the string at character 0, found {end}")),
        (r#""\"#, 2, escape(end)),
        (r#""é\a""#, 3, escape(r#""a""#)),
        (r#""\'""#, 2, escape(r#""'""#)),
        ("\"a\n\"", 2, r"expected an escape such as \u000a, found a control character".to_owned()),
        ("\"\0\"", 1, r"expected an escape such as \u0000, found a control character".to_owned()),
        (r#""\u30""#, 5, r#"expected a hexadecimal digit, found "\"""#.to_owned()),
        (r#""\x+1""#, 3, r#"expected a hexadecimal digit, found "+""#.to_owned()),
        (r#""\x"#, 3, format!("expected a hexadecimal digit, found {end}")),
        (r#""\08""#, 3, r#"expected an octal digit, found "8""#.to_owned()),
        (r#""\xe9""#, 2, ascii("0xe9")),
        (r#""\777""#, 2, ascii("0x1ff")),
        (
            r#""\ud83d""#,
            2,
            "expected the code of a character, found 0xd83d: \
             use \\U and 8 digits for the whole character"
                .to_owned(),
        ),
        (r#""\Uffffffff""#, 2, "expected the code of a character, found 0xffffffff".to_owned()),
    ] {
        // A string may be a value or a name.
        for before in ["headers.a=", "headers:"] {
            let start = before.len();
            let problem = problem.replace("at character 0", &format!("at character {start}"));
            check_refused(&format!("{before}{string}"), start + position, &problem);
        }
    }
}

fn check_refused(filter: &str, position: usize, problem: &str) {
    let refused = Filter::parse(filter).expect_err(filter);
    assert_eq!((refused.position, refused.problem.as_str()), (position, problem), "{filter}");
}

#[test]
fn an_error_says_where_it_is_and_shortens_what_it_shows() {
    let refused = Filter::parse(&format!("headers:a {}", "b".repeat(500))).unwrap_err();
    let expected = format!(
        r#"at character 10: expected "AND", "OR" or the end of the filter, found "{}…""#,
        "b".repeat(40)
    );
    assert_eq!(refused.to_string(), expected);
}

#[test]
fn length_and_depth_are_limited() {
    let padded = |length: usize| format!("headers:{:é<1$}", '"', length - 9) + "\"";
    assert!(Filter::parse(&padded(1_024)).is_ok());
    check_refused(&padded(1_025), 1_024, "expected at most 1024 characters, found 1025");

    let too_deep =
        "expected at most 32 parentheses and negations within each other, found one more";
    for opening in ["(", "-", "NOT "] {
        let nested = |depth| {
            let closing = if opening == "(" { ")".repeat(depth) } else { String::new() };
            format!("{}headers:a{closing}", opening.repeat(depth))
        };
        assert!(Filter::parse(&nested(MAX_DEPTH)).is_ok());
        check_refused(&nested(MAX_DEPTH + 1), opening.len() * MAX_DEPTH, too_deep);
        assert!(parse(&opening.repeat(1_000_000)).is_err());
    }
    // What is closed does not count.
    let many = vec!["(-headers:a)"; 60].join(" AND ");
    assert!(Filter::parse(&many).is_ok());
}
