package io.trunkline.examples;

import static io.trunkline.examples.Refusals.assertRefused;
import static io.trunkline.examples.TestTopic.BILLING;
import static io.trunkline.examples.TestTopic.SHOP;
import static io.trunkline.examples.TestTopic.numbered;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.trunkline.client.TrunklineClient;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.CreateTopicRequest;
import io.trunkline.v1.GetTopicRequest;
import io.trunkline.v1.Message;
import io.trunkline.v1.RegisterConsumerRequest;
import io.trunkline.v1.RegisterProducerRequest;
import java.util.List;
import java.util.UUID;
import org.junit.jupiter.api.Test;

class TokenTest {
    @Test
    void callWithAToken() throws Exception {
        var elsewhere = TestTopic.createEmpty();
        var target = System.getenv("TRUNKLINE_SECURE_TARGET");
        var hidden = GetTopicRequest.newBuilder().setTopic(elsewhere.name()).build();
        var stranger = new TestTopic(TestTopic.connect(target), "scenarios." + elsewhere.name());
        assertRefused(Code.UNAUTHENTICATED, "TOKEN_MISSING", assertThrows(
                StatusException.class, () -> stranger.topics().getTopic(hidden)));

        try (var client = TrunklineClient.builder(target)
                .token(System.getenv("TRUNKLINE_SECURE_TOKEN"))
                .build()) {
            var own = new TestTopic(client.channel(), stranger.name());
            own.topics().createTopic(CreateTopicRequest.newBuilder().setTopic(own.name()).build());
            own.producers().registerProducer(RegisterProducerRequest.newBuilder()
                    .setTopic(own.name())
                    .setProducerId(SHOP)
                    .build());
            own.consumers().registerConsumer(RegisterConsumerRequest.newBuilder()
                    .setTopic(own.name())
                    .setConsumerId(BILLING)
                    .build());
            var sent = numbered(0, 1);
            own.publish(sent);
            try (var stream = own.consume(ConsumeRequest.newBuilder().setUntilCaughtUp(true))) {
                var got = stream.rest().stream().flatMap(frame -> frame.getBatch().getMessagesList().stream());
                assertEquals(List.of(sent.get(0).getPayload()), got.map(Message::getPayload).toList());
            }

            assertRefused(Code.NOT_FOUND, "TOPIC_NOT_FOUND", assertThrows(
                    StatusException.class, () -> own.topics().getTopic(hidden)));
        }
    }

    /** The package's streams have connections of their own, which send the token as well. */
    @Test
    void publishAndConsumeWithAToken() {
        try (var client = TrunklineClient.builder("http://" + System.getenv("TRUNKLINE_SECURE_TARGET"))
                .token(System.getenv("TRUNKLINE_SECURE_TOKEN"))
                .build()) {
            var topic = client.ensureTopic("scenarios." + UUID.randomUUID()).getName();
            try (var producer = client.producer(topic, SHOP).open()) {
                assertEquals(0, producer.publish("one coffee").offset());
            }
            try (var consumer = client.consumer(topic, BILLING).untilCaughtUp().open()) {
                assertEquals("one coffee", consumer.next().getPayload().toStringUtf8());
                assertFalse(consumer.hasNext());
            }
        }
    }
}
