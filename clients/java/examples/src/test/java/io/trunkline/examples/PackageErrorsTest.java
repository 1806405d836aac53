package io.trunkline.examples;

import static io.trunkline.examples.TestTopic.BILLING;
import static io.trunkline.examples.TestTopic.SHOP;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.trunkline.client.TrunklineClient;
import io.trunkline.client.TrunklineException;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.ConsumerServiceGrpc;
import io.trunkline.v1.NewMessage;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AutoClose;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class PackageErrorsTest {
    @AutoClose
    private final TrunklineClient client = TrunklineClient.connect(System.getenv("TRUNKLINE_ENDPOINT"));

    @Test
    void packageErrors() throws Exception {
        var missing = List.<Executable>of(
                () -> client.producer("missing", SHOP).open(), () -> client.consumer("missing", BILLING).open());
        for (var open : missing) {
            var notFound = assertRefused(Code.NOT_FOUND, "TOPIC_NOT_FOUND", open);
            assertEquals("missing", notFound.metadata().get("topic"));
            assertTrue(notFound.getCause() instanceof StatusRuntimeException);
        }

        var topic = TestTopic.createEmpty();
        var first = client.producer(topic.name(), SHOP).open();
        var tooLarge = NewMessage.newBuilder().setPayload(ByteString.copyFrom(new byte[1_048_577])).build();
        var before = first.publish("before");
        var refused = assertInvalid("message", () -> first.publish(tooLarge));
        assertEquals("1048576", refused.metadata().get("limit"));
        assertTrue(refused.getMessage().contains("message has 1048577 bytes, and the limit is 1048576"));
        assertEquals(1, first.publish("after").offset());
        assertEquals(0, before.offset());

        try (var second = client.producer(topic.name(), SHOP).open()) {
            var fenced = first.publish("from an older instance");
            assertRefused(Code.FAILED_PRECONDITION, "PRODUCER_FENCED", fenced::offset);
            assertRefused(Code.FAILED_PRECONDITION, "PRODUCER_FENCED", first::close);
            assertEquals(2, second.publish("from the new one").offset());
        }
    }

    @Test
    void aBrokerThatStopsGivesARetryDelay() throws Exception {
        var topic = TestTopic.create();
        try (var broker = new TestBroker();
                var own = TrunklineClient.connect(broker.target())) {
            var frames = ConsumerServiceGrpc.newBlockingStub(own.channel())
                    .withDeadlineAfter(20, TimeUnit.SECONDS)
                    .consume(ConsumeRequest.newBuilder()
                            .setTopic(topic.name())
                            .setConsumerId(BILLING)
                            .build());
            frames.next();
            broker.stop();
            var ended = assertThrows(StatusRuntimeException.class, () -> frames.forEachRemaining(frame -> {}));
            var draining = new TrunklineException(ended);
            assertEquals("DRAINING", draining.reason());
            assertTrue(draining.retryDelay().orElseThrow().compareTo(Duration.ZERO) > 0);
        }
    }

    @Test
    void messagesOverALimitAreRefusedBeforeTheyAreSent() throws Exception {
        var topic = TestTopic.createEmpty();
        try (var producer = client.producer(topic.name(), SHOP).open()) {
            var many = NewMessage.newBuilder();
            for (var i = 0; i < 65; i++) many.putHeaders("h" + i, "");
            for (var headers : List.of(
                    many.build(),
                    header("", "value"),
                    header("name", "a\0b"),
                    header("na\0me", "value"),
                    header("ü".repeat(128), "value"),
                    header("name", "ü".repeat(8 << 10)))) {
                assertInvalid("headers", () -> producer.publish(headers));
            }
            // All that is allowed is stored.
            producer.publish(header("ü".repeat(127), "v".repeat((16 << 10) - 254))).offset();
        }
    }

    @Test
    void optionsOutOfTheirRangeAreRefused() {
        var producer = client.producer("any", SHOP);
        var wrong = List.<Executable>of(
                () -> producer.linger(Duration.ofMillis(-1)),
                () -> producer.maxBatchMessages(10_001),
                () -> producer.maxBatchBytes(0),
                () -> producer.maxBufferedBytes(1 << 20),
                () -> producer.retryFor(Duration.ZERO));
        var options = List.of("linger", "maxBatchMessages", "maxBatchBytes", "maxBufferedBytes", "retryFor");
        for (var i = 0; i < wrong.size(); i++) assertInvalid(options.get(i), wrong.get(i));
        assertInvalid("producer_id", () -> client.producer("any", ""));
        assertInvalid("consumer_id", () -> client.consumer("any", ""));
        assertInvalid("topic", () -> client.ensureTopic("no/slashes"));
    }

    @Test
    void theBrokerRefusesWrongOptionsOfAConsumer() throws Exception {
        var topic = TestTopic.create();
        try (var consumer = client.consumer(topic.name(), BILLING).maxInFlight(-1).open()) {
            assertInvalid("max_in_flight", consumer::hasNext);
            assertInvalid("max_in_flight", consumer::next);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "", "localhost", "127.0.0.1:", "127.0.0.1:a", "ftp://127.0.0.1:1", "http://127.0.0.1:1/path", "http://:1", "a b:1",
        "http://user@127.0.0.1:1", "127.0.0.1:65536"
    })
    void aTargetOfAnotherFormIsRefused(String target) {
        assertInvalid("target", () -> TrunklineClient.connect(target));
    }

    @ParameterizedTest
    @ValueSource(strings = {"broker.example:50051", "http://10.0.0.1:1", "http://127.0.0.1.example:1", "http://[::2]:1"})
    void aTokenIsNotSentUnencryptedToAnotherMachine(String target) {
        assertInvalid("token", () -> TrunklineClient.builder(target).token("secret").build());
    }

    @ParameterizedTest
    @ValueSource(strings = {"127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://broker.example:1"})
    void aTokenIsSentToThisMachineAndOverTls(String target) {
        TrunklineClient.builder(target).token("secret\n").build().close();
    }

    @ParameterizedTest
    @ValueSource(strings = {"", " \n", "two words", "sécret"})
    void aTokenThatNoBrokerGaveIsRefused(String token) {
        assertInvalid("token", () -> TrunklineClient.builder("127.0.0.1:1").token(token).build());
    }

    @Test
    void aCertificateThatCannotBeUsedIsRefused() {
        var authority = Path.of("missing.pem");
        for (var target : List.of("127.0.0.1:1", "https://127.0.0.1:1")) {
            assertInvalid("caCertificate", () -> TrunklineClient.builder(target).caCertificate(authority).build());
        }
    }

    private static NewMessage header(String name, String value) {
        return NewMessage.newBuilder().putHeaders(name, value).build();
    }

    private static TrunklineException assertRefused(Code code, String reason, Executable call) {
        var refused = assertThrows(TrunklineException.class, call);
        assertEquals(code, refused.code(), refused::getMessage);
        assertEquals(reason, refused.reason());
        return refused;
    }

    private static TrunklineException assertInvalid(String field, Executable call) {
        var refused = assertRefused(Code.INVALID_ARGUMENT, "INVALID_FIELD", call);
        assertEquals(field, refused.metadata().get("field"));
        assertEquals(field, refused.fieldViolations().get(0).getField());
        assertTrue(refused.getMessage().contains(field), refused::getMessage);
        return refused;
    }
}
