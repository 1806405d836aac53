//! The violations that one check found, limited to a readable number.

use super::Violation;

/// The maximum per check, as a broken promise usually affects many messages.
const LIMIT: usize = 10;

/// Collects the violations of one check.
pub struct Findings {
    check: &'static str,
    violations: Vec<Violation>,
    /// How many were omitted.
    more: u64,
}

impl Findings {
    pub fn of(check: &'static str) -> Self {
        Self { check, violations: Vec::new(), more: 0 }
    }

    /// Adds a violation; formats the sentence only if it is kept.
    pub fn report(&mut self, sentence: impl FnOnce() -> String) {
        if self.violations.len() < LIMIT {
            self.violations.push(Violation { check: self.check, text: sentence() });
        } else {
            self.more += 1;
        }
    }

    /// The violations, and how many were omitted.
    pub fn into_violations(mut self) -> Vec<Violation> {
        if self.more > 0 {
            let text = format!("and {} more of this kind", self.more);
            self.violations.push(Violation { check: self.check, text });
        }
        self.violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_over_the_limit_are_counted() {
        let mut findings = Findings::of("C1");
        (0..LIMIT).for_each(|number| findings.report(|| number.to_string()));
        findings.report(|| unreachable!());
        findings.report(|| unreachable!());
        let violations = findings.into_violations();
        assert_eq!(violations.len(), LIMIT + 1);
        assert_eq!(violations[LIMIT].text, "and 2 more of this kind");
    }
}
