//! C16: each delivery of a subscription has a number of its own, and consecutive messages, each of
//! which was delivered once at least.

use std::collections::HashMap;

use super::{findings::Findings, index::Index, operations::Handed};

pub fn deliveries_are_well_formed(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        let mut known = HashMap::new();
        for handed in &consumer.handed {
            let Handed { line, delivery, .. } = handed;
            let who = || format!("delivery {delivery} of subscription {name} on {topic}");
            if let Some(earlier) = known.insert(delivery, line) {
                findings.report(|| format!("{} came in lines {earlier} and {line}", who()));
            }
            if let Some(problem) = problem(handed) {
                findings.report(|| format!("{} in line {line} {problem}", who()));
            }
        }
    }
}

fn problem(handed: &Handed<'_>) -> Option<&'static str> {
    let Handed { runs, attempts, .. } = handed;
    let messages: i64 = runs.iter().map(|run| run.values.count).sum();
    let counted: i64 = attempts.iter().map(|(_, count)| count).sum();
    if messages == 0 {
        return Some("has no messages");
    }
    if runs.windows(2).any(|pair| pair[0].end() != pair[1].offset) {
        return Some("has messages that do not follow each other");
    }
    if counted != messages {
        return Some("does not say of each message how often it was delivered");
    }
    // They may begin at one again after each end of the broker that counts them.
    attempts.iter().any(|(attempts, _)| *attempts < 1).then_some("has a message without an attempt")
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    /// Ten messages, and a worker.
    fn published() -> (Story, u64) {
        let mut story = Story::new();
        story.publish_at("p", 0, 10, 0);
        story.table(0, 10, &[(0, "p", 0, 10)]);
        let work = story.work("s");
        (story, work)
    }

    /// A delivery of the first four messages with these attempts.
    fn with_attempts(attempts: &[(i32, i64)]) -> Story {
        let (mut story, work) = published();
        story.handed_again(work, 1, &[(0, "p", 0, 4)], attempts);
        story
    }

    #[test]
    fn deliveries_of_consecutive_messages_pass() {
        let (mut story, work) = published();
        story.handed(work, 1, &[(0, "p", 0, 2), (2, "p", 2, 3)]);
        story.handed(work, 7, &[(8, "p", 8, 2)]);
        story.assert_clean();
        with_attempts(&[(1, 1), (5, 2), (1, 1)]).assert_clean();
    }

    #[test]
    fn a_number_that_two_deliveries_have_is_found() {
        let (mut story, work) = published();
        story.handed(work, 1, &[(0, "p", 0, 2)]);
        story.handed(work, 1, &[(2, "p", 2, 2)]);
        story.assert_only("C16", "delivery 1 of subscription s on t came in lines 5 and 6");
    }

    #[test]
    fn messages_that_do_not_follow_each_other_are_found() {
        let (mut story, work) = published();
        story.handed(work, 1, &[(0, "p", 0, 2), (3, "p", 3, 2)]);
        story.assert_only("C16", "in line 5 has messages that do not follow each other");
    }

    #[test]
    fn a_delivery_without_messages_is_found() {
        let (mut story, work) = published();
        story.handed(work, 1, &[]);
        story.assert_only("C16", "has no messages");
    }

    #[test]
    fn attempts_that_do_not_fit_the_messages_are_found() {
        let words = "does not say of each message";
        with_attempts(&[(1, 3)]).assert_only("C16", words);
        with_attempts(&[(1, 4), (2, 1)]).assert_only("C16", words);
        with_attempts(&[(1, 3), (0, 1)]).assert_only("C16", "has a message without an attempt");
    }
}
