package io.trunkline.examples;

import static io.trunkline.examples.TestTopic.BILLING;
import static io.trunkline.examples.TestTopic.SHOP;
import static io.trunkline.examples.TestTopic.numbered;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import io.trunkline.client.Receipt;
import io.trunkline.client.TrunklineClient;
import io.trunkline.client.TrunklineException;
import io.trunkline.v1.PublishStreamRequest;
import io.trunkline.v1.PublishStreamResponse;
import io.trunkline.v1.SeekRequest;
import java.util.ArrayList;
import java.util.Collections;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What is tried again, what is not, and what becomes of messages and positions meanwhile. */
class PackageRetriesTest {
    private static final java.time.Duration SOON = java.time.Duration.ofSeconds(1);
    private static final java.time.Duration LONG = java.time.Duration.ofMinutes(10);

    @ParameterizedTest
    @CsvSource({
        "UNAVAILABLE,       ,         0,   true",
        "UNAVAILABLE,       A_REASON, 0,   true",
        "CANCELLED,         ,         0,   true",
        "CANCELLED,         A_REASON, 0,   false",
        "UNKNOWN,           ,         0,   true",
        "INTERNAL,          ,         0,   true",
        "INTERNAL,          A_REASON, 0,   false",
        "DEADLINE_EXCEEDED, ,         0,   true",
        "DEADLINE_EXCEEDED, A_REASON, 0,   false",
        "DEADLINE_EXCEEDED, A_REASON, 200, true",
        "RESOURCE_EXHAUSTED,,         0,   true",
        "RESOURCE_EXHAUSTED,A_REASON, 0,   false",
        "RESOURCE_EXHAUSTED,A_REASON, 200, true",
        "NOT_FOUND,         ,         0,   false",
        "DATA_LOSS,         A_REASON, 0,   false"
    })
    void aStreamIsTriedAgainIfItBrokeOrTheBrokerSaysSo(Code code, String reason, int delayMillis, boolean isTriedAgain)
            throws Exception {
        var topic = TestTopic.createEmpty();
        try (var relay = new Relay();
                var client = TrunklineClient.connect(relay.target())) {
            relay.publishStreams.add(answers -> answeringFirst(() -> answers.onError(error(code, reason, delayMillis))));
            var producer = client.producer(topic.name(), SHOP).open();
            var receipt = producer.publish("one coffee");
            if (isTriedAgain) {
                assertEquals(0, receipt.offset());
                producer.close();
            } else {
                assertEquals(code, assertThrows(TrunklineException.class, receipt::offset).code());
                assertThrows(TrunklineException.class, producer::close);
            }
        }
    }

    @Test
    void aBrokerThatOwesAnAnswerForTooLongIsGivenUp() throws Exception {
        var topic = TestTopic.createEmpty();
        try (var relay = new Relay();
                var client = TrunklineClient.connect(relay.target())) {
            relay.publishStreams.add(answers -> answeringFirst(() -> {}));
            var patience = java.time.Duration.ofSeconds(4);
            try (var producer = client.producer(topic.name(), SHOP).retryFor(patience).open()) {
                assertEquals(0, producer.publish("one coffee").offset());
            }
        }
    }

    @Test
    void aReceiptThatTheCallerCompletesKeepsNobodyFromWaiting() throws Exception {
        var topic = TestTopic.createEmpty();
        try (var broker = new TestBroker();
                var client = TrunklineClient.connect(broker.target());
                var producer = client.producer(topic.name(), SHOP).open()) {
            producer.publish("the connection is open").offset();
            broker.pause();
            producer.publish("cancelled").cancel(true);
            var invented = producer.publish("completed");
            invented.complete(99L);
            var flushed = CompletableFuture.runAsync(producer::flush);
            assertThrows(TimeoutException.class, () -> flushed.get(300, MILLISECONDS));
            broker.proceed();
            flushed.get(20, SECONDS);
            assertEquals(99, invented.offset());
            assertEquals(3, producer.publish("after both").offset());
        }
    }

    @Test
    void messagesAreUnknownToBeStoredOnlyIfTheyWereSent() throws Exception {
        var topic = TestTopic.createEmpty();
        try (var broker = new TestBroker();
                var client = TrunklineClient.connect(broker.target())) {
            var silent = client.producer(topic.name(), "silent").maxBatchMessages(1).retryFor(SOON).open();
            silent.publish("stored").offset();
            broker.pause();
            var receipts = new ArrayList<Receipt>();
            for (var i = 0; i < 9; i++) receipts.add(silent.publish("message " + i));
            // Eight requests are sent. The ninth waits for an answer.
            var reasons = new ArrayList<>(Collections.nCopies(8, "OUTCOME_UNKNOWN"));
            reasons.add("");
            assertEquals(reasons, receipts.stream().map(PackageRetriesTest::lostReason).toList());
            assertEquals("OUTCOME_UNKNOWN", assertThrows(TrunklineException.class, silent::flush).reason());
            broker.proceed();

            var lost = client.producer(topic.name(), "lost").retryFor(SOON).open();
            broker.kill();
            assertEquals("", lostReason(lost.publish("never sent")));
        }
    }

    @Test
    void whatWasSentBeforeABreakMayBeStoredWhateverRefusesTheRest() throws Exception {
        var topic = TestTopic.createEmpty();
        try (var relay = new Relay();
                var client = TrunklineClient.connect(relay.target())) {
            var arrived = new CompletableFuture<StreamObserver<PublishStreamResponse>>();
            relay.publishStreams.add(answers -> answeringFirst(() -> arrived.complete(answers)));
            var producer = client.producer(topic.name(), SHOP).linger(LONG).open();
            var sent = producer.publish("sent");
            var answers = arrived.get(20, SECONDS);
            var unsent = producer.publish("never sent");
            client.producer(topic.name(), SHOP).open().close();
            answers.onError(error(Code.UNAVAILABLE, null, 0));

            assertEquals("OUTCOME_UNKNOWN", lostReason(sent));
            var unknown = assertThrows(TrunklineException.class, sent::offset);
            assertTrue(unknown.getMessage().contains("not answered before the producer ended: "), unknown::getMessage);
            var refusal = new TrunklineException((StatusRuntimeException) unknown.getCause().getCause());
            assertEquals("PRODUCER_FENCED", refusal.reason());
            assertEquals("PRODUCER_FENCED", assertThrows(TrunklineException.class, unsent::offset).reason());
            assertEquals("OUTCOME_UNKNOWN", assertThrows(TrunklineException.class, producer::flush).reason());
            var late = assertThrows(TrunklineException.class, () -> producer.publish("too late"));
            assertEquals("PRODUCER_FENCED", late.reason());
        }
    }

    @Test
    void whatIsSentWhenAnInterruptEndsTheProducerMayBeStored() throws Exception {
        var topic = TestTopic.createEmpty();
        try (var relay = new Relay();
                var client = TrunklineClient.connect(relay.target())) {
            var requests = new CountDownLatch(8);
            relay.publishStreams.add(answers -> taking(requests::countDown));
            var producer = client.producer(topic.name(), SHOP).maxBatchMessages(1).open();
            var receipts = new ArrayList<Receipt>();
            // Eight requests are sent. The ninth waits for an answer.
            for (var i = 0; i < 9; i++) receipts.add(producer.publish("message " + i));
            assertTrue(requests.await(20, SECONDS));
            Thread.currentThread().interrupt();
            var interrupted = assertThrows(TrunklineException.class, producer::close);
            assertTrue(Thread.interrupted());
            assertEquals(Code.CANCELLED, interrupted.code());

            var unsent = assertThrows(TrunklineException.class, receipts.remove(8)::offset);
            assertEquals(Code.FAILED_PRECONDITION, unsent.code());
            for (var sent : receipts) {
                assertEquals("OUTCOME_UNKNOWN", lostReason(sent));
                var unknown = assertThrows(TrunklineException.class, sent::offset);
                assertTrue(unknown.getMessage().contains("the producer was closed before the broker answered"));
            }
        }
    }

    private static String lostReason(Receipt receipt) {
        var lost = assertThrows(TrunklineException.class, receipt::offset);
        assertEquals(Code.UNAVAILABLE, lost.code());
        return lost.reason();
    }

    @Test
    void anExceptionOfTheCallersWaitsForFiveSecondsAtMost() throws Exception {
        var topic = TestTopic.createEmpty();
        try (var broker = new TestBroker();
                var client = TrunklineClient.connect(broker.target())) {
            var fault = assertThrows(ArithmeticException.class, () -> {
                try (var producer = client.producer(topic.name(), SHOP).open()) {
                    producer.publish("stored").offset();
                    broker.pause();
                    producer.publish("sent");
                    throw new ArithmeticException("of the caller's");
                }
            });
            var lost = (TrunklineException) fault.getSuppressed()[0];
            assertEquals("OUTCOME_UNKNOWN", lost.reason());
            assertTrue(lost.getMessage().contains("the broker did not answer for 5000 ms"), lost::getMessage);
            var threads = Thread.getAllStackTraces().keySet().stream().map(Thread::getName);
            assertFalse(threads.anyMatch(("trunkline-producer-" + topic.name())::equals));
        }
    }

    @Test
    void whatIsFinishedIsCommittedWhileTheCallerIsBusy() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 3));
        try (var relay = new Relay();
                var client = TrunklineClient.connect(relay.target());
                var consumer = client.consumer(topic.name(), BILLING).open()) {
            for (var i = 0; i < 3; i++) consumer.next();
            var position = 0L;
            while (position < 2) position = relay.committed.poll(20, SECONDS);
        }
    }

    @Test
    void aRefusedCommitIsTriedAgainAndTheIterationGoesOn() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 3));
        try (var relay = new Relay();
                var client = TrunklineClient.connect(relay.target());
                var consumer = client.consumer(topic.name(), BILLING).commitByHand().open()) {
            relay.commitFailure.set(error(Code.PERMISSION_DENIED, "NOT_GRANTED", 0));
            var first = consumer.next();
            // The first commit is not refused yet.
            var refused = assertThrows(TrunklineException.class, () -> {
                for (;;) {
                    consumer.commit(first);
                    Thread.sleep(1);
                }
            });
            assertEquals("NOT_GRANTED", refused.reason());
            assertEquals(1, consumer.next().getOffset());
            assertEquals(2, consumer.next().getOffset());
            relay.commitFailure.set(null);
            assertEquals(1, relay.committed.poll(20, SECONDS));
        }
    }

    @Test
    void aConsumerThatIsClosedWhileCommitsAreRefusedSaysSo() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 2));
        try (var relay = new Relay();
                var client = TrunklineClient.connect(relay.target())) {
            relay.commitFailure.set(error(Code.PERMISSION_DENIED, "NOT_GRANTED", 0));
            var consumer = client.consumer(topic.name(), BILLING).open();
            consumer.next();
            consumer.next();
            assertEquals("NOT_GRANTED", assertThrows(TrunklineException.class, consumer::close).reason());
            consumer.close();
            relay.commitFailure.set(error(Code.UNAVAILABLE, null, 0));
            var next = client.consumer(topic.name(), BILLING).open();
            assertEquals(0, next.next().getOffset());
            next.next();
            var late = assertThrows(TrunklineException.class, next::close);
            assertTrue(late.getMessage().contains("messages from offset 0 on could not be committed"));
        }
    }

    @Test
    void aMessageFromBeforeASeekIsNotCommitted() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 5));
        try (var client = TrunklineClient.connect(System.getenv("TRUNKLINE_TARGET"));
                var consumer = client.consumer(topic.name(), BILLING).commitByHand().open()) {
            for (var i = 0; i < 4; i++) consumer.next();
            var fifth = consumer.next();
            seekToSecond(topic);
            // The broker refuses the old epoch, which ends neither the iteration nor what follows.
            consumer.commit(fifth);
            var second = consumer.next();
            assertEquals(1, second.getOffset());
            consumer.commit(fifth);
            consumer.commit(second);
            // Also once a message of its offset is handed out again.
            for (var i = 0; i < 3; i++) consumer.next();
            consumer.commit(fifth);
        }
        assertEquals(2, topic.billing().getPosition());
    }

    @Test
    void aConsumerThatIsClosedBehindASeekLosesNothing() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 5));
        try (var client = TrunklineClient.connect(System.getenv("TRUNKLINE_TARGET"))) {
            var consumer = client.consumer(topic.name(), BILLING).commitByHand().open();
            for (var i = 0; i < 4; i++) consumer.next();
            var fifth = consumer.next();
            seekToSecond(topic);
            consumer.commit(fifth);
            consumer.close();
        }
        assertEquals(1, topic.billing().getPosition());
    }

    private static void seekToSecond(TestTopic topic) throws StatusException {
        var second = SeekRequest.newBuilder().setTopic(topic.name()).setConsumerId(BILLING).setOffset(1).build();
        topic.consumers().seek(second);
    }

    /** Does something when the first request comes, and takes all. */
    private static StreamObserver<PublishStreamRequest> answeringFirst(Runnable onRequest) {
        var first = new AtomicBoolean(true);
        return taking(() -> {
            if (first.getAndSet(false)) onRequest.run();
        });
    }

    private static StreamObserver<PublishStreamRequest> taking(Runnable onRequest) {
        return new StreamObserver<>() {
            @Override
            public void onNext(PublishStreamRequest request) {
                onRequest.run();
            }

            @Override
            public void onError(Throwable cancelled) {}

            @Override
            public void onCompleted() {}
        };
    }

    private static StatusRuntimeException error(Code code, String reason, int delayMillis) {
        var status = com.google.rpc.Status.newBuilder().setCode(code.value()).setMessage("of the test's");
        if (reason != null) status.addDetails(Any.pack(ErrorInfo.newBuilder().setReason(reason).build()));
        if (delayMillis > 0) {
            var delay = Duration.newBuilder().setNanos(delayMillis * 1_000_000);
            status.addDetails(Any.pack(RetryInfo.newBuilder().setRetryDelay(delay).build()));
        }
        return StatusProto.toStatusRuntimeException(status.build());
    }
}
