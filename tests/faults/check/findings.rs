//! What one check found, and only so much of it as somebody would read.

use super::Found;

/// One broken promise mostly breaks for many messages.
const TOLD: usize = 10;

/// Collects the sentences of one check.
pub struct Findings {
    check: &'static str,
    told: Vec<Found>,
    more: u64,
}

impl Findings {
    pub fn of(check: &'static str) -> Self {
        Self { check, told: Vec::new(), more: 0 }
    }

    /// Makes the sentence only if it is going to be told.
    pub fn tell(&mut self, sentence: impl FnOnce() -> String) {
        if self.told.len() < TOLD {
            self.told.push(Found { check: self.check, what: sentence() });
        } else {
            self.more += 1;
        }
    }

    /// The sentences, and how many were left out.
    pub fn told(mut self) -> Vec<Found> {
        if self.more > 0 {
            let what = format!("and {} more of this kind", self.more);
            self.told.push(Found { check: self.check, what });
        }
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_to_read_is_counted() {
        let mut findings = Findings::of("C1");
        (0..TOLD).for_each(|number| findings.tell(|| number.to_string()));
        findings.tell(|| unreachable!());
        findings.tell(|| unreachable!());
        let told = findings.told();
        assert_eq!(told.len(), TOLD + 1);
        assert_eq!(told[TOLD].what, "and 2 more of this kind");
    }
}
