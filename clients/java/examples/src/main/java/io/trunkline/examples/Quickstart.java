package io.trunkline.examples;

import io.trunkline.client.TrunklineClient;

/** Publishes a message and prints every message that the consumer has not received yet. */
public final class Quickstart {
    public static void main(String[] arguments) {
        var target = System.getenv().getOrDefault("TRUNKLINE_TARGET", "127.0.0.1:50051");
        try (var client = TrunklineClient.connect(target)) {
            client.ensureTopic("orders");
            try (var producer = client.producer("orders", "shop").open()) {
                System.out.println("published at offset " + producer.publish("one coffee").offset());
            }
            try (var consumer = client.consumer("orders", "billing").untilCaughtUp().open()) {
                consumer.forEach(message -> System.out.println(
                        "consumed " + message.getOffset() + ": " + message.getPayload().toStringUtf8()));
            }
        }
    }
}
