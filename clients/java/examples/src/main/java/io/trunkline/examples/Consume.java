package io.trunkline.examples;

import static java.nio.charset.StandardCharsets.UTF_8;
import static java.util.concurrent.TimeUnit.SECONDS;

import io.grpc.Channel;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Status;
import io.grpc.StatusException;
import io.trunkline.v1.ConsumerServiceGrpc;
import io.trunkline.v1.RegisterConsumerRequest;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.time.Duration;

/** Prints a topic's messages as they come, until it is interrupted: {@code Consume TOPIC CONSUMER}. */
public final class Consume {
    public static void main(String[] arguments) throws StatusException, InterruptedException {
        if (arguments.length != 2) {
            System.err.println("usage: Consume TOPIC CONSUMER");
            System.exit(2);
        }
        var topic = arguments[0];
        var consumerId = arguments[1];
        var target = System.getenv().getOrDefault("TRUNKLINE_TARGET", "127.0.0.1:50051");
        var channel = Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).build();
        register(channel, topic, consumerId);

        // UTF-8, whatever the machine's default encoding is.
        var output = new PrintStream(new FileOutputStream(FileDescriptor.out), true, UTF_8);
        var consumer = new ResumingConsumer(channel, topic, consumerId, Duration.ofSeconds(5));
        stopAtExit(consumer);
        consumer.run(message -> output.println(message.getOffset() + " " + message.getPayload().toStringUtf8()));
    }

    private static void register(Channel channel, String topic, String consumerId) throws StatusException {
        try {
            ConsumerServiceGrpc.newBlockingV2Stub(channel)
                    .withDeadlineAfter(10, SECONDS)
                    .registerConsumer(RegisterConsumerRequest.newBuilder()
                            .setTopic(topic)
                            .setConsumerId(consumerId)
                            .build());
        } catch (StatusException refused) {
            if (refused.getStatus().getCode() != Status.Code.ALREADY_EXISTS) throw refused;
        }
    }

    /** Lets the consumer commit what it has handled before the program ends. */
    private static void stopAtExit(ResumingConsumer consumer) {
        var reading = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.stop();
            try {
                reading.join(10_000);
            } catch (InterruptedException impatient) {
                Thread.currentThread().interrupt();
            }
        }));
    }
}
