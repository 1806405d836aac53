package io.trunkline.client;

import static java.util.concurrent.TimeUnit.SECONDS;

import io.trunkline.v1.ProducerServiceGrpc;
import io.trunkline.v1.RegisterProducerRequest;
import java.time.Duration;

/** The options of a producer; from {@link TrunklineClient#producer}. */
public final class ProducerBuilder {
    private static final int MIB = 1 << 20;

    private final TrunklineClient client;
    private final RegisterProducerRequest registration;
    private Duration linger = Duration.ofMillis(1);
    private int maxBatchMessages = 4_000;
    private int maxBatchBytes = MIB;
    private int maxBufferedBytes = 32 * MIB;
    private Duration retryFor = Duration.ofSeconds(60);

    ProducerBuilder(TrunklineClient client, String topic, String producerId) {
        // Without an id, the broker would make one up that no later instance knows.
        if (producerId.isEmpty()) throw Errors.invalid("producer_id", "must not be empty");
        this.client = client;
        registration = RegisterProducerRequest.newBuilder()
                .setTopic(topic)
                .setProducerId(producerId)
                .setFence(true)
                .build();
    }

    /** How long a message waits for others to share its request while requests are unanswered; 1 ms by default. */
    public ProducerBuilder linger(Duration linger) {
        check("linger", linger.toMillis(), 0, 600_000, "ms");
        this.linger = linger;
        return this;
    }

    /** How many messages a request holds; 4,000 by default. */
    public ProducerBuilder maxBatchMessages(int messages) {
        check("maxBatchMessages", messages, 1, 10_000, "messages");
        maxBatchMessages = messages;
        return this;
    }

    /** How many bytes a request holds; 1 MiB by default. A larger message gets a request of its own. */
    public ProducerBuilder maxBatchBytes(int bytes) {
        check("maxBatchBytes", bytes, 1, 8 * MIB, "bytes");
        maxBatchBytes = bytes;
        return this;
    }

    /**
     * How many bytes of messages are unanswered before publishing waits; 32 MiB by default. A message counts for
     * its size and 150 bytes more, and 150 for each header.
     */
    public ProducerBuilder maxBufferedBytes(int bytes) {
        check("maxBufferedBytes", bytes, 2 * MIB, 1024 * MIB, "bytes");
        maxBufferedBytes = bytes;
        return this;
    }

    /** How long to look for a lost broker before the waiting messages fail; 60 s by default. */
    public ProducerBuilder retryFor(Duration patience) {
        check("retryFor", patience.toMillis(), 1, Duration.ofDays(365).toMillis(), "ms");
        retryFor = patience;
        return this;
    }

    /** Registers the producer if it is missing, and fences older instances of it. */
    public TrunklineProducer open() {
        var registered = client.call(channel -> ProducerServiceGrpc.newBlockingStub(channel)
                .withDeadlineAfter(TrunklineClient.CALL_SECONDS, SECONDS)
                .registerProducer(registration));
        var limits = new Outbox.Limits(
                linger.toMillis(), maxBatchMessages, maxBatchBytes, maxBufferedBytes, retryFor.toMillis());
        return new TrunklineProducer(client, limits, registered.getProducer());
    }

    private static void check(String option, long value, long least, long most, String unit) {
        if (value < least || value > most) {
            throw Errors.invalid(option, "must be %d to %d %s, but is %d".formatted(least, most, unit, value));
        }
    }
}
