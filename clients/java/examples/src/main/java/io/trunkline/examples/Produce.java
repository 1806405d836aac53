package io.trunkline.examples;

import static java.util.concurrent.TimeUnit.SECONDS;

import io.grpc.Channel;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Status;
import io.grpc.StatusException;
import io.trunkline.v1.CreateTopicRequest;
import io.trunkline.v1.TopicServiceGrpc;
import java.io.IOException;

/** Publishes the lines of standard input, and creates the topic if it does not exist: {@code Produce TOPIC PRODUCER}. */
public final class Produce {
    public static void main(String[] arguments) throws IOException, StatusException, InterruptedException {
        if (arguments.length != 2) {
            System.err.println("usage: Produce TOPIC PRODUCER");
            System.exit(2);
        }
        var topic = arguments[0];
        var producerId = arguments[1];
        var target = System.getenv().getOrDefault("TRUNKLINE_TARGET", "127.0.0.1:50051");
        var channel = Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).build();
        create(channel, topic);
        var producer = ResumingProducer.register(channel, topic, producerId);
        producer.publish(new Lines(System.in), receipt ->
                System.out.println("stored " + receipt.getCount() + " at " + receipt.getFirstOffset()));
        channel.shutdown();
    }

    private static void create(Channel channel, String topic) throws StatusException {
        try {
            TopicServiceGrpc.newBlockingV2Stub(channel)
                    .withDeadlineAfter(10, SECONDS)
                    .createTopic(CreateTopicRequest.newBuilder().setTopic(topic).build());
        } catch (StatusException refused) {
            if (refused.getStatus().getCode() != Status.Code.ALREADY_EXISTS) throw refused;
        }
    }
}
