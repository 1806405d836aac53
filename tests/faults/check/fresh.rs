//! C12: a new consumer on any broker gets exactly what the table holds.

use super::{
    findings::Findings,
    index::{FreshRead, Index},
    piece::{Piece, join},
};

pub fn fresh_reads_equal_the_table(index: &Index<'_>, findings: &mut Findings) {
    for (topic, contents) in &index.topics {
        let Some(log) = &contents.log else { continue };
        for FreshRead { line, broker, pieces } in &contents.fresh_reads {
            let read = join(pieces.iter().copied());
            let same = read.iter().zip(&log.pieces).take_while(|(read, held)| read == held).count();
            let (read, held) = (read.get(same), log.pieces.get(same));
            if read != held {
                findings.report(|| {
                    let describe = |piece: Option<&Piece<'_>>| {
                        piece.map_or("nothing more".to_owned(), Piece::to_string)
                    };
                    format!(
                        "a fresh read of {topic} from broker {broker}, in line {line}, got {} \
                         where the table has {}",
                        describe(read),
                        describe(held)
                    )
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    /// Twelve messages, the first two of which were trimmed.
    fn trimmed() -> Story {
        let mut story = Story::new();
        story.publish_at("p", 0, 10, 0);
        story.publish_at("q", 0, 2, 10);
        story.trim(2);
        story.table(2, 12, &[(2, "p", 2, 8), (10, "q", 0, 2)]);
        story
    }

    #[test]
    fn runs_may_be_split_anywhere() {
        let mut story = trimmed();
        story.fresh("a", &[(2, "p", 2, 8), (10, "q", 0, 2)]);
        story.fresh("b", &[(2, "p", 2, 3), (5, "p", 5, 5), (10, "q", 0, 1), (11, "q", 1, 1)]);
        story.assert_clean();
    }

    #[test]
    fn a_missing_end_is_found() {
        let mut story = trimmed();
        story.fresh("a", &[(2, "p", 2, 8)]);
        story.assert_only(
            "C12",
            "from broker a, in line 7, got nothing more where the table has values 0",
        );
    }

    #[test]
    fn a_missing_start_is_found() {
        let mut story = trimmed();
        story.fresh("a", &[(3, "p", 3, 7), (10, "q", 0, 2)]);
        story.assert_only(
            "C12",
            "got values 3 to 9 of p at offsets 3 to 9 where the table has values 2",
        );
    }

    #[test]
    fn more_messages_than_in_the_table_are_found() {
        let mut story = trimmed();
        story.fresh("b", &[(1, "p", 1, 9), (10, "q", 0, 2)]);
        story.assert_only("C12", "from broker b, in line 7, got values 1 to 9");
        let mut story = trimmed();
        story.fresh("b", &[(2, "p", 2, 8), (10, "q", 0, 2), (12, "q", 1, 1)]);
        story.assert_finds("C12", "got value 1 of q at offset 12 where the table has nothing more");
    }

    #[test]
    fn another_value_is_found() {
        let mut story = trimmed();
        story.fresh("a", &[(2, "p", 2, 8), (10, "q", 1, 1), (11, "q", 0, 1)]);
        story
            .assert_finds("C12", "got value 1 of q at offset 10 where the table has values 0 to 1");
    }
}
