package io.trunkline.examples;

import static com.google.protobuf.ByteString.copyFromUtf8;
import static io.trunkline.examples.TestTopic.BILLING;
import static io.trunkline.examples.TestTopic.SHOP;
import static io.trunkline.examples.TestTopic.numbered;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trunkline.client.Receipt;
import io.trunkline.client.TrunklineClient;
import io.trunkline.v1.LogEdge;
import io.trunkline.v1.Message;
import io.trunkline.v1.NewMessage;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.stream.LongStream;
import org.junit.jupiter.api.AutoClose;
import org.junit.jupiter.api.Test;

class PackageTest {
    private static final int MANY = 10_000;

    @AutoClose
    private final TrunklineClient client = TrunklineClient.connect(System.getenv("TRUNKLINE_TARGET"));

    @Test
    void packagePublishAndConsume() {
        var topic = client.ensureTopic("test-" + UUID.randomUUID()).getName();
        assertEquals(topic, client.ensureTopic(topic).getName());
        var sent = new ArrayList<NewMessage>();
        for (var i = 0; i < MANY; i++) {
            sent.add(NewMessage.newBuilder()
                    .setPayload(copyFromUtf8("message " + i))
                    .setKey(copyFromUtf8("key " + i % 10))
                    .putHeaders("number", String.valueOf(i))
                    .build());
        }
        try (var producer = client.producer(topic, SHOP).open()) {
            var receipts = sent.stream().map(producer::publish).toList();
            producer.flush();
            assertTrue(receipts.stream().allMatch(Receipt::isDone));
            assertEquals(
                    LongStream.range(0, MANY).boxed().toList(),
                    receipts.stream().map(Receipt::offset).toList());
        }

        var received = new ArrayList<Message>();
        try (var consumer = client.consumer(topic, BILLING).untilCaughtUp().open()) {
            consumer.forEach(received::add);
        }
        assertEquals(MANY, received.size());
        for (var i = 0; i < MANY; i++) {
            var message = received.get(i);
            assertEquals(i, message.getOffset());
            assertEquals(sent.get(i).getPayload(), message.getPayload());
            assertTrue(message.hasKey());
            assertEquals(sent.get(i).getKey(), message.getKey());
            assertEquals(sent.get(i).getHeadersMap(), message.getHeadersMap());
            assertTrue(message.hasPublishTime());
            assertEquals(SHOP, message.getProducerId());
        }
        try (var consumer = client.consumer(topic, BILLING).untilCaughtUp().open()) {
            assertFalse(consumer.hasNext());
        }
    }

    @Test
    void packageCommitAndResume() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 20));

        try (var consumer = client.consumer(topic.name(), BILLING).commitByHand().open()) {
            var taken = take(10, consumer);
            consumer.commit(taken.get(3));
        }
        try (var consumer = client.consumer(topic.name(), BILLING).commitByHand().open()) {
            assertEquals(4, consumer.next().getOffset());
        }

        var fault = assertThrows(ArithmeticException.class, () -> {
            try (var consumer = client.consumer(topic.name(), BILLING).open()) {
                for (var message : consumer) {
                    if (message.getOffset() == 7) throw new ArithmeticException("of the caller's");
                }
            }
        });
        assertEquals(0, fault.getSuppressed().length);
        try (var consumer = client.consumer(topic.name(), BILLING).open()) {
            assertEquals(7, consumer.next().getOffset());
        }
    }

    @Test
    void aStreamThatWaitsForCommitsGoesOn() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 100));
        try (var consumer = client.consumer(topic.name(), BILLING).maxInFlight(3).untilCaughtUp().open()) {
            for (var expected = 0; expected < 100; expected++) assertEquals(expected, consumer.next().getOffset());
            assertFalse(consumer.hasNext());
        }
        assertEquals(100, topic.billing().getPosition());
    }

    @Test
    void aConsumerThatStartsAtTheLatestMessageSkipsOlderOnes() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 10));
        try (var consumer = client.consumer(topic.name(), "late").startAt(LogEdge.LOG_EDGE_LATEST).open()) {
            topic.publish(numbered(10, 1));
            assertEquals(10, consumer.next().getOffset());
        }
    }

    @Test
    void threadsShareAProducer() throws Exception {
        var topic = TestTopic.createEmpty();
        var threads = new ArrayList<Thread>();
        try (var producer = client.producer(topic.name(), SHOP).maxBatchMessages(7).open()) {
            for (var name : List.of("a", "b", "c")) {
                threads.add(new Thread(() -> {
                    for (var i = 0; i < 500; i++) producer.publish(name + " " + i);
                }));
            }
            threads.forEach(Thread::start);
            for (var thread : threads) thread.join();
        }
        var payloads = new ArrayList<String>();
        try (var consumer = client.consumer(topic.name(), BILLING).untilCaughtUp().open()) {
            consumer.forEach(message -> payloads.add(message.getPayload().toStringUtf8()));
        }
        assertEquals(1_500, payloads.size());
        for (var name : List.of("a", "b", "c")) {
            assertEquals(
                    LongStream.range(0, 500).mapToObj(i -> name + " " + i).toList(),
                    payloads.stream().filter(payload -> payload.startsWith(name)).toList());
        }
    }

    private static List<Message> take(int count, Iterable<Message> messages) {
        var taken = new ArrayList<Message>();
        var iterator = messages.iterator();
        while (taken.size() < count) taken.add(iterator.next());
        return taken;
    }
}
