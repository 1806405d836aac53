package io.trunkline.examples;

import static io.trunkline.examples.Refusals.assertRefused;
import static io.trunkline.examples.TestTopic.BILLING;
import static io.trunkline.examples.TestTopic.SHOP;
import static io.trunkline.examples.TestTopic.numbered;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.CreateTopicRequest;
import io.trunkline.v1.GetTopicRequest;
import io.trunkline.v1.Message;
import io.trunkline.v1.PublishRequest;
import io.trunkline.v1.RegisterConsumerRequest;
import io.trunkline.v1.RegisterProducerRequest;
import java.util.List;
import org.junit.jupiter.api.Test;

class TokenTest {
    @Test
    void callWithAToken() throws Exception {
        var elsewhere = TestTopic.createEmpty();
        var channel = TestTopic.connect(System.getenv("TRUNKLINE_SECURE_TARGET"));
        var own = new TestTopic(channel, "scenarios." + elsewhere.name());
        var hidden = GetTopicRequest.newBuilder().setTopic(elsewhere.name()).build();
        assertRefused(Code.UNAUTHENTICATED, "TOKEN_MISSING", assertThrows(
                StatusException.class, () -> own.topics().getTopic(hidden)));

        var token = new BearerToken(System.getenv("TRUNKLINE_SECURE_TOKEN"));
        var topics = own.topics().withCallCredentials(token);
        var producers = own.producers().withCallCredentials(token);
        var consumers = own.consumers().withCallCredentials(token);
        topics.createTopic(CreateTopicRequest.newBuilder().setTopic(own.name()).build());
        producers.registerProducer(RegisterProducerRequest.newBuilder()
                .setTopic(own.name())
                .setProducerId(SHOP)
                .build());
        consumers.registerConsumer(RegisterConsumerRequest.newBuilder()
                .setTopic(own.name())
                .setConsumerId(BILLING)
                .build());
        var sent = numbered(0, 1);
        producers.publish(PublishRequest.newBuilder()
                .setTopic(own.name())
                .setProducerId(SHOP)
                .addAllMessages(sent)
                .build());
        try (var stream = own.consume(consumers, ConsumeRequest.newBuilder().setUntilCaughtUp(true))) {
            var got = stream.rest().stream().flatMap(frame -> frame.getBatch().getMessagesList().stream());
            assertEquals(List.of(sent.get(0).getPayload()), got.map(Message::getPayload).toList());
        }

        assertRefused(Code.NOT_FOUND, "TOPIC_NOT_FOUND", assertThrows(
                StatusException.class, () -> topics.getTopic(hidden)));
    }
}
