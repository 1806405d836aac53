//! What filters match.

mod properties;
mod refusals;

use std::collections::BTreeMap;

use super::Filter;

/// The headers that conditions are tried on.
fn headers() -> BTreeMap<String, String> {
    let headers = [
        ("region", "eu-west"),
        ("empty", ""),
        ("x-priority", "high"),
        ("iana.org/language_tag", "en"),
        ("みな", "say \"hi\"\\\n"),
        ("1st", "é😀"),
        ("AND", "NOT"),
    ];
    headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn matches(filter: &str) -> bool {
    let headers = headers();
    let filter = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    filter.matches(|name| headers.get(name).map(String::as_str))
}

#[test]
fn a_condition_is_about_a_header_and_its_value() {
    for (filter, expected) in [
        ("headers:region", true),
        ("attributes:region", true),
        ("headers:Region", false),
        ("headers:empty", true),
        (r#"headers.region = "eu-west""#, true),
        (r#"headers.region = "EU-west""#, false),
        (r#"headers.region = "eu""#, false),
        (r#"headers.missing = """#, false),
        (r#"headers.region != "eu-west""#, false),
        (r#"headers.region != "us""#, true),
        (r#"headers.missing != "us""#, true),
        (r#"hasPrefix(headers.region, "eu")"#, true),
        (r#"hasPrefix(attributes.region, "us")"#, false),
        (r#"hasPrefix(headers.empty, "")"#, true),
        (r#"hasPrefix(headers.missing, "")"#, false),
    ] {
        assert_eq!(matches(filter), expected, "{filter}");
    }
}

#[test]
fn conditions_are_combined() {
    for (filter, expected) in [
        ("NOT headers:region", false),
        ("-headers:region", false),
        ("NOT -headers:region", true),
        ("--headers:region", true),
        (r#"NOT hasPrefix(headers.missing, "x")"#, true),
        ("headers:region AND headers:empty", true),
        ("headers:region AND headers:empty AND headers:missing", false),
        ("headers:missing OR headers:region", true),
        ("headers:missing OR headers:gone OR headers:region", true),
        ("headers:missing OR headers:gone", false),
        // NOT applies to the first condition alone.
        ("NOT headers:region OR headers:empty", true),
        ("NOT (headers:region OR headers:empty)", false),
        ("-(headers:region AND headers:missing)", true),
        ("headers:missing AND (headers:region OR headers:empty)", false),
        ("(headers:missing AND headers:region) OR headers:empty", true),
        ("((headers:region))", true),
    ] {
        assert_eq!(matches(filter), expected, "{filter}");
    }
}

#[test]
fn names_and_values_are_words_or_strings_with_escapes() {
    for filter in [
        r#"headers.x-priority="high""#,
        "headers:\t1st\r\n AND(headers:x-priority)AND NOT(headers:missing)",
        r#"hasPrefix ( headers . region , "eu" )"#,
        r#"headers:"region" AND headers:"1st" AND headers."iana.org/language_tag" = "en""#,
        // A keyword can be a name.
        r#"headers:AND AND headers.AND = "NOT""#,
        r#"headers:"\u307F\u306a" AND headers:"みな""#,
        r#"headers."みな" = "say \"hi\"\\\n""#,
        r#"headers."みな" = "\x73a\171 \042hi\042\134\u000a""#,
        r#"headers.1st = "\u00e9\U0001F600""#,
        r#"headers.1st = "é😀""#,
    ] {
        assert!(matches(filter), "{filter}");
    }
}

#[test]
fn a_filter_is_kept_as_it_was_written() {
    let source = " headers : a ";
    let filter = Filter::parse(source).unwrap();
    assert_eq!(filter.as_str(), source);
    assert_eq!(filter, Filter::parse(source).unwrap());
}
