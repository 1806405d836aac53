package io.trunkline.examples;

import com.google.protobuf.ByteString;
import io.trunkline.client.TrunklineClient;
import io.trunkline.v1.ConsumerServiceGrpc;
import io.trunkline.v1.DeleteTopicRequest;
import io.trunkline.v1.NewMessage;
import io.trunkline.v1.ProducerServiceGrpc;
import io.trunkline.v1.RegisterConsumerRequest;
import io.trunkline.v1.RegisterProducerRequest;
import io.trunkline.v1.TopicServiceGrpc;
import java.util.UUID;

/**
 * Publishes and consumes messages of 100 bytes through the package and through the stubs alone, in turn, with equal
 * batches and as many requests in flight: {@code Benchmark [MESSAGES [ROUNDS]]}. It prints the median of the rounds. A
 * round before them, which does not count, lets the JVM compile the code.
 */
public final class Benchmark {
    private static final ByteString PAYLOAD = ByteString.copyFrom(new byte[100]);
    private static final String PRODUCER = "producer";

    private final TrunklineClient client;
    private final RawStreams raw;
    private final int messages;
    private final Rates publishPackage = new Rates();
    private final Rates publishRaw = new Rates();
    private final Rates consumePackage = new Rates();
    private final Rates consumeRaw = new Rates();

    private Benchmark(TrunklineClient client, int messages) {
        this.client = client;
        this.messages = messages;
        raw = new RawStreams(client.channel());
    }

    public static void main(String[] arguments) throws Exception {
        var messages = arguments.length > 0 ? Integer.parseInt(arguments[0]) : 500_000;
        var rounds = arguments.length > 1 ? Integer.parseInt(arguments[1]) : 5;
        var target = System.getenv().getOrDefault("TRUNKLINE_TARGET", "127.0.0.1:50051");
        try (var client = TrunklineClient.connect(target)) {
            var benchmark = new Benchmark(client, messages);
            for (var round = 0; round <= rounds; round++) benchmark.runRound(round);
            benchmark.print();
        }
    }

    private void runRound(int round) throws Exception {
        var packaged = createTopic();
        var plain = createTopic();
        var isWarmUp = round == 0;
        Step[] steps = {
            () -> publishPackage.measure(isWarmUp, () -> publishThroughPackage(packaged)),
            () -> publishRaw.measure(isWarmUp, () -> publishRaw(plain)),
            () -> consumePackage.measure(isWarmUp, () -> consumeThroughPackage(packaged)),
            () -> consumeRaw.measure(isWarmUp, () -> consumeRaw(plain)),
        };
        // Neither of a pair is always the first.
        var first = round % 2;
        for (var step : new int[] {first, 1 - first, 2 + first, 3 - first}) steps[step].run();
        deleteTopic(packaged);
        deleteTopic(plain);
    }

    private long publishThroughPackage(String topic) {
        try (var producer = client.producer(topic, PRODUCER).open()) {
            for (var i = 0; i < messages; i++) producer.publish(message());
        }
        return messages;
    }

    private long publishRaw(String topic) throws InterruptedException {
        ProducerServiceGrpc.newBlockingStub(client.channel())
                .registerProducer(RegisterProducerRequest.newBuilder()
                        .setTopic(topic)
                        .setProducerId(PRODUCER)
                        .build());
        raw.publish(topic, PRODUCER, messages, Benchmark::message);
        return messages;
    }

    private long consumeThroughPackage(String topic) {
        var count = 0L;
        try (var consumer = client.consumer(topic, "package").untilCaughtUp().open()) {
            for (var message : consumer) {
                if (message.getPayload().size() > 0) count++;
            }
        }
        return count;
    }

    private long consumeRaw(String topic) {
        ConsumerServiceGrpc.newBlockingStub(client.channel())
                .registerConsumer(RegisterConsumerRequest.newBuilder()
                        .setTopic(topic)
                        .setConsumerId("raw")
                        .build());
        return raw.consume(topic, "raw");
    }

    private static NewMessage message() {
        return NewMessage.newBuilder().setPayload(PAYLOAD).build();
    }

    private String createTopic() {
        return client.ensureTopic("benchmark-" + UUID.randomUUID()).getName();
    }

    private void deleteTopic(String topic) {
        TopicServiceGrpc.newBlockingStub(client.channel())
                .deleteTopic(DeleteTopicRequest.newBuilder().setTopic(topic).build());
    }

    private void print() {
        System.out.println("          package/s     stubs/s   ratio");
        printLine("publish", publishPackage, publishRaw);
        printLine("consume", consumePackage, consumeRaw);
    }

    private static void printLine(String what, Rates packaged, Rates plain) {
        System.out.printf("%s %,11.0f %,11.0f %6.0f%%%n",
                what, packaged.median(), plain.median(), 100 * packaged.median() / plain.median());
    }

    private interface Step {
        void run() throws Exception;
    }
}
