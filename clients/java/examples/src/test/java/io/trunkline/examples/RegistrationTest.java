package io.trunkline.examples;

import static io.trunkline.examples.Refusals.assertRefused;
import static io.trunkline.examples.Refusals.violation;
import static io.trunkline.examples.TestTopic.BILLING;
import static io.trunkline.examples.TestTopic.SHOP;
import static io.trunkline.examples.TestTopic.numbered;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.trunkline.v1.Consumer;
import io.trunkline.v1.CreateTopicRequest;
import io.trunkline.v1.GetTopicRequest;
import io.trunkline.v1.ListConsumersRequest;
import io.trunkline.v1.ListProducersRequest;
import io.trunkline.v1.Producer;
import io.trunkline.v1.PublishRequest;
import io.trunkline.v1.RegisterConsumerRequest;
import io.trunkline.v1.RegisterProducerRequest;
import java.util.List;
import org.junit.jupiter.api.Test;

class RegistrationTest {
    @Test
    void register() throws Exception {
        var topic = TestTopic.createEmpty();
        var shop = RegisterProducerRequest.newBuilder().setTopic(topic.name()).setProducerId(SHOP).build();
        var billing = RegisterConsumerRequest.newBuilder().setTopic(topic.name()).setConsumerId(BILLING).build();
        assertEquals(SHOP, topic.producers().registerProducer(shop).getProducer().getProducerId());
        assertEquals(0, topic.consumers().registerConsumer(billing).getConsumer().getPosition());

        var producers = topic.producers()
                .listProducers(ListProducersRequest.newBuilder().setTopic(topic.name()).build());
        assertEquals(List.of(SHOP), producers.getProducersList().stream().map(Producer::getProducerId).toList());
        var consumers = topic.consumers()
                .listConsumers(ListConsumersRequest.newBuilder().setTopic(topic.name()).build());
        assertEquals(List.of(BILLING), consumers.getConsumersList().stream().map(Consumer::getConsumerId).toList());

        assertRefused(Code.ALREADY_EXISTS, "PRODUCER_EXISTS", assertThrows(
                StatusException.class, () -> topic.producers().registerProducer(shop)));
        var again = topic.producers().registerProducer(shop.toBuilder().setIfMissing(true).build());
        assertTrue(again.getExisted());
        assertEquals(SHOP, again.getProducer().getProducerId());
        var sameConsumer = topic.consumers().registerConsumer(billing.toBuilder().setIfMissing(true).build());
        assertTrue(sameConsumer.getExisted());
        assertEquals(BILLING, sameConsumer.getConsumer().getConsumerId());
        var sameTopic = topic.topics()
                .createTopic(CreateTopicRequest.newBuilder().setTopic(topic.name()).setIfMissing(true).build());
        assertTrue(sameTopic.getExisted());
        assertEquals(topic.name(), sameTopic.getTopic().getName());

        assertRefused(Code.NOT_FOUND, "TOPIC_NOT_FOUND", assertThrows(
                StatusException.class,
                () -> topic.topics().getTopic(GetTopicRequest.newBuilder().setTopic("missing").build())));
        assertRefused(Code.NOT_FOUND, "TOPIC_NOT_FOUND", assertThrows(
                StatusException.class,
                () -> topic.producers().registerProducer(shop.toBuilder().setTopic("missing").build())));

        var generated = topic.producers().registerProducer(shop.toBuilder().clearProducerId().build());
        assertFalse(generated.getProducer().getProducerId().isEmpty());
    }

    @Test
    void errorDetails() throws Exception {
        var topic = TestTopic.create();

        var misnamed = assertThrows(
                StatusException.class,
                () -> topic.topics().createTopic(CreateTopicRequest.newBuilder().setTopic("no/slashes").build()));
        var invalid = assertRefused(Code.INVALID_ARGUMENT, "INVALID_FIELD", misnamed);
        assertEquals("topic", invalid.getMetadataOrThrow("field"));
        assertEquals("topic", violation(misnamed).getField());

        var unknown = assertThrows(
                StatusException.class,
                () -> topic.producers().publish(PublishRequest.newBuilder()
                        .setTopic(topic.name())
                        .setProducerId("stranger")
                        .addAllMessages(numbered(0, 1))
                        .build()));
        var denied = assertRefused(Code.PERMISSION_DENIED, "PRODUCER_NOT_REGISTERED", unknown);
        assertEquals(topic.name(), denied.getMetadataOrThrow("topic"));
        assertEquals("stranger", denied.getMetadataOrThrow("producer_id"));
    }
}
