package io.trunkline.examples;

import static io.trunkline.examples.Refusals.assertRefused;
import static io.trunkline.examples.TestTopic.BILLING;
import static io.trunkline.examples.TestTopic.numbered;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.trunkline.v1.CommitMode;
import io.trunkline.v1.CommitRequest;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.Message;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Test;

class ConsumeTest {
    @Test
    void orderedConsume() throws Exception {
        var topic = TestTopic.create();
        for (var request = 0; request < 10; request++) topic.publish(numbered(request * 100, 100));

        try (var stream = topic.consume(ConsumeRequest.newBuilder().setUntilCaughtUp(true))) {
            var frames = stream.rest();
            assertTrue(frames.get(0).hasAttached());
            assertTrue(frames.get(frames.size() - 1).hasCaughtUp());
            var messages = frames.stream()
                    .flatMap(frame -> frame.getBatch().getMessagesList().stream())
                    .toList();
            assertEquals(
                    LongStream.range(0, 1_000).boxed().toList(),
                    messages.stream().map(Message::getOffset).toList());
            assertEquals("message 999", messages.get(999).getPayload().toStringUtf8());
        }
        assertEquals(1_000, topic.billing().getPosition());
        assertEquals(0, topic.billing().getLag());
    }

    @Test
    void manualCommitAndResume() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 10));
        var manual = ConsumeRequest.newBuilder().setCommitMode(CommitMode.COMMIT_MODE_MANUAL);
        var commit = CommitRequest.newBuilder().setTopic(topic.name()).setConsumerId(BILLING);

        try (var stream = topic.consume(manual)) {
            commit.setEpoch(stream.attached().getEpoch());
            var fourth = stream.messages(10).get(3);
            commit.setPosition(fourth.getOffset() + 1);
            assertEquals(4, topic.consumers().commit(commit.build()).getPosition());
        }
        try (var resumed = topic.consume(manual)) {
            assertEquals(4, resumed.attached().getPosition());
            assertEquals(4, resumed.messages(1).get(0).getOffset());
            assertRefused(Code.ABORTED, "LEASE_LOST", assertThrows(
                    StatusException.class,
                    () -> topic.consumers().commit(commit.setPosition(5).build())));
        }
    }

    @Test
    void deadline() throws Exception {
        var topic = TestTopic.create();
        var hasty = topic.consumers().withDeadlineAfter(500, MILLISECONDS);
        try (var stream = topic.consume(hasty, ConsumeRequest.newBuilder())) {
            stream.attached();
            // The client may notice first, and then the error has no details.
            assertEquals(Code.DEADLINE_EXCEEDED, stream.end().getStatus().getCode());
        }
        try (var next = topic.consume(ConsumeRequest.newBuilder())) {
            next.attached();
        }
    }
}
