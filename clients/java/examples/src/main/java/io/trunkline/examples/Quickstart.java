package io.trunkline.examples;

import static com.google.protobuf.ByteString.copyFromUtf8;

import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.trunkline.v1.*;
import java.util.concurrent.TimeUnit;

/** Publishes a message and prints every message that the consumer has not received yet. */
public final class Quickstart {
    public static void main(String[] arguments) {
        var target = System.getenv().getOrDefault("TRUNKLINE_TARGET", "127.0.0.1:50051");
        var channel = Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).build();
        var topics = TopicServiceGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);
        var producers = ProducerServiceGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);
        var consumers = ConsumerServiceGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);

        unlessThere(() -> topics.createTopic(CreateTopicRequest.newBuilder().setTopic("orders").build()));
        unlessThere(() -> producers.registerProducer(
                RegisterProducerRequest.newBuilder().setTopic("orders").setProducerId("shop").build()));
        unlessThere(() -> consumers.registerConsumer(
                RegisterConsumerRequest.newBuilder().setTopic("orders").setConsumerId("billing").build()));

        var order = NewMessage.newBuilder().setKey(copyFromUtf8("table 7")).setPayload(copyFromUtf8("one coffee"));
        var published = producers.publish(
                PublishRequest.newBuilder().setTopic("orders").setProducerId("shop").addMessages(order).build());
        System.out.println("published at offset " + published.getFirstOffset());

        var frames = consumers.consume(
                ConsumeRequest.newBuilder().setTopic("orders").setConsumerId("billing").setUntilCaughtUp(true).build());
        frames.forEachRemaining(frame -> {
            for (var message : frame.getBatch().getMessagesList()) {
                System.out.println("consumed " + message.getOffset() + ": " + message.getPayload().toStringUtf8());
            }
        });
        channel.shutdown();
    }

    private static void unlessThere(Runnable make) {
        try {
            make.run();
        } catch (StatusRuntimeException refused) {
            if (refused.getStatus().getCode() != Status.Code.ALREADY_EXISTS) throw refused;
        }
    }
}
