package io.trunkline.examples;

import static io.trunkline.examples.TestTopic.BILLING;
import static io.trunkline.examples.TestTopic.numbered;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.grpc.StatusException;
import io.trunkline.client.TrunklineClient;
import io.trunkline.v1.SeekRequest;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Test;

class ResumeTest {
    @Test
    void resumeAfterARestart() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 100));
        var offsets = new ArrayList<Long>();
        try (var broker = new TestBroker();
                var client = TrunklineClient.connect(broker.target());
                var consumer = client.consumer(topic.name(), BILLING).open()) {
            for (var message : consumer) {
                offsets.add(message.getOffset());
                if (offsets.size() == 50) {
                    // In the middle of a batch.
                    broker.stop();
                    broker.start();
                    publish(topic, 100, 100);
                }
                if (offsets.size() == 200) {
                    consumer.commit(message);
                    consumer.stop();
                }
            }
        }
        assertEquals(LongStream.range(0, 200).boxed().toList(), offsets);
        assertEquals(200, topic.billing().getPosition());
    }

    @Test
    void resumeAtTheTargetOfASeek() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 10));
        var offsets = new ArrayList<Long>();
        try (var broker = new TestBroker();
                var client = TrunklineClient.connect(broker.target());
                var consumer = client.consumer(topic.name(), BILLING).open()) {
            for (var message : consumer) {
                offsets.add(message.getOffset());
                if (offsets.size() == 5) seek(topic, 2);
                if (offsets.size() == 15) {
                    // Between two streams: the first one has already delivered later messages.
                    broker.stop();
                    seek(topic, 4);
                    broker.start();
                }
                if (offsets.size() == 24) consumer.stop();
            }
        }
        assertEquals(
                List.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9, 4, 5, 6, 7, 8, 9),
                offsets.stream().map(Long::intValue).toList());
        assertEquals(10, topic.billing().getPosition());
    }

    private static void publish(TestTopic topic, long first, int count) {
        try {
            topic.publish(numbered(first, count));
        } catch (StatusException refused) {
            throw new AssertionError(refused);
        }
    }

    private static void seek(TestTopic topic, long offset) {
        try {
            topic.consumers().seek(SeekRequest.newBuilder()
                    .setTopic(topic.name())
                    .setConsumerId(BILLING)
                    .setOffset(offset)
                    .build());
        } catch (StatusException refused) {
            throw new AssertionError(refused);
        }
    }
}
