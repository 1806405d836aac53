package io.trunkline.examples;

import static io.trunkline.examples.TestTopic.SHOP;
import static io.trunkline.examples.TestTopic.numbered;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import io.grpc.Status.Code;
import io.trunkline.v1.PublishReceipt;
import io.trunkline.v1.PublishStreamRequest;
import org.junit.jupiter.api.Test;

class PublishStreamTest {
    private static final int REQUESTS = 100;
    private static final int EACH = 100;

    @Test
    void tenThousandMessagesInAStream() throws Exception {
        var topic = TestTopic.create();
        var stream = topic.producers().publishStream();
        for (var request = 0; request < REQUESTS; request++) stream.write(numberedFrom(request * EACH, topic));
        for (var request = 0; request < REQUESTS; request++) {
            assertEquals(receipt(request * EACH, false), stream.read().getReceipt());
        }

        var last = (REQUESTS - 1) * EACH;
        var next = REQUESTS * EACH;
        stream.write(numberedFrom(last, topic));
        stream.write(numberedFrom(next + EACH, topic));
        stream.write(numberedFrom(next, topic));
        stream.halfClose();
        assertEquals(receipt(last, true), stream.read().getReceipt());
        var refusal = stream.read().getRefusal();
        assertEquals("SEQUENCE_GAP", refusal.getReason());
        assertEquals(Code.OUT_OF_RANGE.value(), refusal.getCode());
        assertEquals(receipt(next, false), stream.read().getReceipt());
        assertNull(stream.read());
    }

    private static PublishStreamRequest numberedFrom(long sequence, TestTopic topic) {
        return PublishStreamRequest.newBuilder()
                .setTopic(topic.name())
                .setProducerId(SHOP)
                .setSequence(sequence)
                .addAllMessages(numbered(sequence, EACH))
                .build();
    }

    private static PublishReceipt receipt(long firstOffset, boolean duplicate) {
        return PublishReceipt.newBuilder()
                .setFirstOffset(firstOffset)
                .setCount(EACH)
                .setDuplicate(duplicate)
                .build();
    }
}
