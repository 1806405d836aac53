//! C0: the history does not contradict itself. A fault of who wrote it, not of the brokers.

use super::{findings::Findings, index::Index};

pub fn every_line_belongs_to_its_operation(index: &Index<'_>, findings: &mut Findings) {
    for misfit in &index.misfits {
        findings.tell(|| misfit.clone());
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        check::story::Story,
        history::{Stage, What},
    };

    #[test]
    fn operations_begin_and_end_once() {
        let mut story = Story::new();
        let publish = story.publish("p", 0, 1, None);
        story.stored(publish, 0);
        story.table(0, 1, &[(0, "p", 0, 1)]);
        story.assert_clean();
        story.stored(publish, 0);
        story.assert_only("C0", "operation 1: it ends once more");
    }

    #[test]
    fn an_end_needs_a_beginning() {
        let mut story = Story::new();
        story.stored(7, 0);
        story.assert_only("C0", "operation 7: it ends without having begun");
    }

    #[test]
    fn a_number_is_of_one_operation() {
        let mut story = Story::new();
        let trim = story.trim(0);
        let again = What::Trim { topic: "t".into(), before: 0 };
        story.write("run", trim, Stage::Invoke, again);
        story.table(0, 0, &[]);
        story.assert_only("C0", "another operation has the number");
    }

    #[test]
    fn an_answer_fits_its_question() {
        let mut story = Story::new();
        let seek = story.seek("c");
        story.committed(seek);
        story.assert_only("C0", "the answer is not one to what was asked");
    }

    #[test]
    fn a_frame_is_a_stream_s() {
        let mut story = Story::new();
        let seek = story.seek("c");
        story.attached(seek, 0, 1);
        story.assert_only("C0", "a frame belongs to no stream");
    }

    #[test]
    fn lines_are_of_a_stage_that_they_can_have() {
        let mut story = Story::new();
        story.write("run", 1, Stage::Invoke, What::Left);
        story.write("run", 2, Stage::Note, What::Committed);
        story.assert_only("C0", "nothing begins with this");
        story.assert_only("C0", "it cannot be noted");
    }

    #[test]
    fn a_topic_has_one_table() {
        let mut story = Story::new();
        story.table(0, 0, &[]);
        story.table(0, 0, &[]);
        story.assert_only("C0", "the topic's table was told before");
    }
}
