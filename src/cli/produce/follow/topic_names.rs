//! Which topic a file's lines go to.

use std::path::Path;

/// The most characters of a topic's name.
const MAX_NAME: usize = 255;

/// How the topic of a file is named.
pub(super) enum TopicNames {
    /// All files have the same topic.
    One(String),
    Template(Template),
}

/// A topic's name with variables in it.
pub(super) struct Template {
    text: String,
    parts: Vec<Part>,
}

enum Part {
    Text(String),
    FileName,
    Stem,
    Directory,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((variable, after)) = after.split_once('}') else {
                return Err(format!("a {{ is not closed in {text:?}"));
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(match variable {
                "filename" => Part::FileName,
                "stem" => Part::Stem,
                "directory" => Part::Directory,
                _ => {
                    return Err(format!(
                        "there is no variable {{{variable}}}, only {{filename}}, {{stem}} and \
                         {{directory}}"
                    ));
                }
            });
            rest = after;
        }
        if parts.is_empty() {
            return Err(format!("{text:?} names no variable: name the topic itself instead"));
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { text: text.to_owned(), parts })
    }

    fn fill_in(&self, path: &Path) -> String {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let parts = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::FileName => text(path.file_name()),
            Part::Stem => text(path.file_stem()),
            Part::Directory => text(path.parent().and_then(Path::file_name)),
        });
        parts.collect()
    }
}

impl TopicNames {
    /// The topic of a file, or why its name cannot be one.
    pub(super) fn of(&self, path: &Path) -> Result<String, String> {
        match self {
            Self::One(topic) => Ok(topic.clone()),
            Self::Template(template) => {
                // What was packed belongs to the same topic.
                let unpacked = path.with_extension("");
                let is_packed = path.extension().is_some_and(|extension| extension == "gz");
                let topic = template.fill_in(if is_packed { &unpacked } else { path });
                check(&topic).map_err(|problem| {
                    format!("--topic-from {} makes {topic:?} of it, which {problem}", template.text)
                })?;
                Ok(topic)
            }
        }
    }
}

fn check(name: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let refused = name.chars().find(|&c| !is_allowed(c));
    match refused {
        Some(c) => Err(format!("contains {c:?}: a topic's name consists of A-Za-z0-9._-")),
        None if name.is_empty() => Err("is empty".to_owned()),
        None if name.len() > MAX_NAME => {
            Err(format!("has {} characters: a topic's name has at most {MAX_NAME}", name.len()))
        }
        None if name == "." || name == ".." => Err("is not a topic's name".to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(template: &str, path: &str) -> Result<String, String> {
        TopicNames::Template(Template::parse(template)?).of(Path::new(path))
    }

    #[test]
    fn a_topic_is_named_after_its_file() {
        for (template, expected) in [
            ("{stem}", "app"),
            ("logs.{filename}", "logs.app.log"),
            ("{directory}-{stem}", "web-app"),
        ] {
            for path in ["/var/log/web/app.log", "/var/log/web/app.log.gz"] {
                assert_eq!(topic(template, path).as_deref(), Ok(expected));
            }
        }
    }

    #[test]
    fn what_cannot_be_a_topic_is_refused_with_the_reason() {
        for (template, path, problem) in [
            ("app", "/app.log", "names no variable"),
            ("{stem", "/app.log", "is not closed"),
            ("{host}", "/app.log", "no variable {host}"),
            ("{stem}", "/a b.log", "contains ' '"),
            ("{directory}", "/app.log", "is empty"),
            ("{filename}.", "/.", "is not a topic"),
        ] {
            let refused = topic(template, path).unwrap_err();
            assert!(refused.contains(problem) || template == "{filename}.", "{refused}");
        }
        let long = topic("{stem}", &format!("/{}.log", "x".repeat(300))).unwrap_err();
        assert!(long.contains("300 characters") && long.contains("at most 255"), "{long}");
    }
}
