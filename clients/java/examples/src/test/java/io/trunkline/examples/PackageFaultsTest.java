package io.trunkline.examples;

import static io.trunkline.examples.TestTopic.BILLING;
import static io.trunkline.examples.TestTopic.SHOP;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import io.grpc.Status.Code;
import io.trunkline.client.Receipt;
import io.trunkline.client.TrunklineClient;
import io.trunkline.client.TrunklineConsumer;
import io.trunkline.client.TrunklineException;
import io.trunkline.client.TrunklineProducer;
import io.trunkline.v1.GetTopicRequest;
import io.trunkline.v1.Message;
import io.trunkline.v1.NewMessage;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeoutException;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Test;

class PackageFaultsTest {
    private static final int MIB = 1 << 20;

    @Test
    void packageSurvivesAKill() throws Exception {
        var topic = TestTopic.createEmpty();
        var count = 20_000;
        try (var broker = new TestBroker();
                var client = TrunklineClient.connect(broker.target());
                var producer = client.producer(topic.name(), SHOP).open();
                var consumer = client.consumer(topic.name(), BILLING).open()) {
            var reading = CompletableFuture.supplyAsync(() -> read(consumer, count));
            var receipts = publish(producer, 0, 10_000);
            receipts.get(2_000).offset();
            broker.kill();
            receipts.addAll(publish(producer, 10_000, 5_000));
            broker.start();
            receipts.addAll(publish(producer, 15_000, 5_000));

            var offsets = LongStream.range(0, count).boxed().toList();
            assertEquals(offsets, receipts.stream().map(Receipt::offset).toList());
            var messages = reading.get(30, SECONDS);
            assertEquals(offsets, messages.stream().map(Message::getOffset).toList());
            assertEquals(
                    offsets.stream().map(offset -> "message " + offset).toList(),
                    messages.stream().map(message -> message.getPayload().toStringUtf8()).toList());
        }
        var stored = topic.topics().getTopic(GetTopicRequest.newBuilder().setTopic(topic.name()).build());
        assertEquals(count, stored.getTopic().getHead());
    }

    private static List<Receipt> publish(TrunklineProducer producer, int first, int count) {
        var receipts = new ArrayList<Receipt>();
        for (var i = first; i < first + count; i++) receipts.add(producer.publish("message " + i));
        return receipts;
    }

    private static List<Message> read(TrunklineConsumer consumer, int count) {
        var messages = new ArrayList<Message>();
        while (messages.size() < count) messages.add(consumer.next());
        return messages;
    }

    @Test
    void packageBoundedMemory() throws Exception {
        var topic = TestTopic.createEmpty();
        var message = NewMessage.newBuilder().setPayload(ByteString.copyFrom(new byte[100_000])).build();
        // 100,150 bytes each.
        var fits = 2 * MIB / 100_150;
        try (var broker = new TestBroker();
                var client = TrunklineClient.connect(broker.target());
                var producer = client.producer(topic.name(), SHOP).maxBufferedBytes(2 * MIB).open()) {
            producer.publish("the connection is open").offset();
            broker.pause();
            var accepted = new CountDownLatch(fits);
            var receipts = new ArrayList<Receipt>();
            var publishing = CompletableFuture.runAsync(() -> {
                for (var i = 0; i < 2 * fits; i++) {
                    receipts.add(producer.publish(message));
                    accepted.countDown();
                }
            });
            assertTrue(accepted.await(20, SECONDS));
            assertThrows(TimeoutException.class, () -> publishing.get(500, MILLISECONDS));
            assertEquals(fits, receipts.size());

            broker.proceed();
            publishing.get(20, SECONDS);
            producer.flush();
            assertEquals(
                    LongStream.rangeClosed(1, 2 * fits).boxed().toList(),
                    receipts.stream().map(Receipt::offset).toList());
        }
    }

    @Test
    void aProducerWhoseBrokerStaysAwayFailsItsMessages() throws Exception {
        var topic = TestTopic.createEmpty();
        try (var broker = new TestBroker();
                var client = TrunklineClient.connect(broker.target())) {
            var patience = Duration.ofSeconds(1);
            var silent = client.producer(topic.name(), "silent").retryFor(patience).open();
            broker.pause();
            assertGivesUp(silent);
            broker.proceed();

            var lost = client.producer(topic.name(), "lost").retryFor(patience).open();
            broker.kill();
            assertGivesUp(lost);
        }
    }

    private static void assertGivesUp(TrunklineProducer producer) {
        var receipt = producer.publish("nobody answers");
        var lost = assertThrows(TrunklineException.class, receipt::offset);
        assertEquals(Code.UNAVAILABLE, lost.code());
        assertTrue(lost.getMessage().contains("the broker did not answer for 1000 ms"), lost::getMessage);
        assertThrows(TrunklineException.class, () -> producer.publish("it has failed"));
        assertThrows(TrunklineException.class, producer::close);
    }
}
