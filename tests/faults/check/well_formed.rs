//! C0: the history does not contradict itself. A violation is a fault of its writer, not of the
//! brokers.

use super::{findings::Findings, index::Index};

pub fn every_line_belongs_to_its_operation(index: &Index<'_>, findings: &mut Findings) {
    for contradiction in &index.contradictions {
        findings.report(|| contradiction.clone());
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        check::story::Story,
        history::{Stage, What},
    };

    #[test]
    fn an_operation_that_ends_twice_is_found() {
        let mut story = Story::new();
        let publish = story.publish("p", 0, 1, None);
        story.stored(publish, 0);
        story.table(0, 1, &[(0, "p", 0, 1)]);
        story.assert_clean();
        story.stored(publish, 0);
        story.assert_only("C0", "operation 1: it ends again");
    }

    #[test]
    fn an_end_without_a_start_is_found() {
        let mut story = Story::new();
        story.stored(7, 0);
        story.assert_only("C0", "operation 7: it ends without having started");
    }

    #[test]
    fn two_operations_with_the_same_number_are_found() {
        let mut story = Story::new();
        let trim = story.trim(0);
        let again = What::Trim { topic: "t".into(), before: 0 };
        story.write("run", trim, Stage::Invoke, again);
        story.table(0, 0, &[]);
        story.assert_only("C0", "another operation has the same number");
    }

    #[test]
    fn an_answer_to_another_kind_of_operation_is_found() {
        let mut story = Story::new();
        let seek = story.seek("c");
        story.committed(seek);
        story.assert_only("C0", "the answer is for another kind of operation");
    }

    #[test]
    fn a_frame_without_a_stream_is_found() {
        let mut story = Story::new();
        let seek = story.seek("c");
        story.attached(seek, 0, 1);
        story.assert_only("C0", "a frame belongs to no stream");
    }

    #[test]
    fn a_line_with_an_impossible_stage_is_found() {
        let mut story = Story::new();
        story.write("run", 1, Stage::Invoke, What::Left);
        story.write("run", 2, Stage::Note, What::Committed);
        story.assert_only("C0", "no operation starts like this");
        story.assert_only("C0", "this cannot be a note");
    }

    #[test]
    fn a_delivery_without_a_worker_is_found() {
        let mut story = Story::new();
        let stream = story.consume("c", true);
        story.handed(stream, 1, &[]);
        story.table(0, 0, &[]);
        story.assert_only("C0", "a delivery belongs to no worker");
        let mut story = Story::new();
        let work = story.work("s");
        story.settled(work, 0);
        story.table(0, 0, &[]);
        story.assert_only("C0", "the answer is for another kind of operation");
    }

    #[test]
    fn a_second_table_of_a_topic_is_found() {
        let mut story = Story::new();
        story.table(0, 0, &[]);
        story.table(0, 0, &[]);
        story.subscription("s", 0, &[], &[]);
        story.subscription("s", 0, &[], &[]);
        story.assert_finds("C0", "the subscription was noted before");
        story.assert_only("C0", "the table of the topic was noted before");
    }
}
