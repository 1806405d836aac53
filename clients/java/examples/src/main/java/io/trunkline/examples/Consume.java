package io.trunkline.examples;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.trunkline.client.TrunklineClient;
import io.trunkline.client.TrunklineConsumer;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;

/** Prints a topic's messages as they come, until it is interrupted: {@code Consume TOPIC CONSUMER}. */
public final class Consume {
    public static void main(String[] arguments) {
        if (arguments.length != 2) {
            System.err.println("usage: Consume TOPIC CONSUMER");
            System.exit(2);
        }
        // UTF-8, whatever the machine's default encoding is.
        var output = new PrintStream(new FileOutputStream(FileDescriptor.out), true, UTF_8);
        var target = System.getenv().getOrDefault("TRUNKLINE_TARGET", "127.0.0.1:50051");
        try (var client = TrunklineClient.connect(target);
                var consumer = client.consumer(arguments[0], arguments[1]).open()) {
            stopAtExit(consumer);
            for (var message : consumer) {
                output.println(message.getOffset() + " " + message.getPayload().toStringUtf8());
            }
        }
    }

    /** Lets the consumer commit what it has processed before the program ends. */
    private static void stopAtExit(TrunklineConsumer consumer) {
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
