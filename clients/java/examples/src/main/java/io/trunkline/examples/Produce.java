package io.trunkline.examples;

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import com.google.protobuf.ByteString;
import io.trunkline.client.TrunklineClient;
import io.trunkline.v1.NewMessage;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;

/** Publishes the lines of standard input, and creates the topic if it does not exist: {@code Produce TOPIC PRODUCER}. */
public final class Produce {
    public static void main(String[] arguments) throws IOException {
        if (arguments.length != 2) {
            System.err.println("usage: Produce TOPIC PRODUCER");
            System.exit(2);
        }
        var topic = arguments[0];
        var producerId = arguments[1];
        // ISO 8859-1 keeps every byte as it is, even if a line is not text.
        var input = new BufferedReader(new InputStreamReader(System.in, ISO_8859_1));
        var target = System.getenv().getOrDefault("TRUNKLINE_TARGET", "127.0.0.1:50051");
        try (var client = TrunklineClient.connect(target)) {
            client.ensureTopic(topic);
            try (var producer = client.producer(topic, producerId).open()) {
                for (var line = input.readLine(); line != null; line = input.readLine()) {
                    var payload = ByteString.copyFrom(line, ISO_8859_1);
                    var receipt = producer.publish(NewMessage.newBuilder().setPayload(payload).build());
                    // Before it waits for more input, it says how far it is.
                    if (!input.ready()) System.out.println("stored up to offset " + receipt.offset());
                }
                // Waits longer than close would for a broker that restarts.
                producer.flush();
            }
        }
    }
}
