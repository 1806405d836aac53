package io.trunkline.client;

import static java.util.concurrent.TimeUnit.SECONDS;

import io.trunkline.v1.CommitMode;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.ConsumerServiceGrpc;
import io.trunkline.v1.LogEdge;
import io.trunkline.v1.OnBusy;
import io.trunkline.v1.RegisterConsumerRequest;
import java.time.Duration;

/** The options of a consumer; from {@link TrunklineClient#consumer}. */
public final class ConsumerBuilder {
    final TrunklineClient client;
    private final RegisterConsumerRequest.Builder registration;
    final ConsumeRequest.Builder request;
    boolean commitsByHand;
    boolean untilCaughtUp;
    Duration heartbeat = Duration.ofSeconds(15);

    ConsumerBuilder(TrunklineClient client, String topic, String consumerId) {
        // Without an id, the broker would make one up that no later start knows.
        if (consumerId.isEmpty()) throw Errors.invalid("consumer_id", "must not be empty");
        this.client = client;
        registration = RegisterConsumerRequest.newBuilder()
                .setTopic(topic)
                .setConsumerId(consumerId)
                .setIfMissing(true);
        request = ConsumeRequest.newBuilder()
                .setTopic(topic)
                .setConsumerId(consumerId)
                .setCommitMode(CommitMode.COMMIT_MODE_MANUAL);
    }

    /** Where a consumer that is not registered yet begins; at the oldest message by default. */
    public ConsumerBuilder startAt(LogEdge edge) {
        registration.setEdge(edge);
        return this;
    }

    /** Commits only what is passed to {@link TrunklineConsumer#commit}. */
    public ConsumerBuilder commitByHand() {
        commitsByHand = true;
        return this;
    }

    /** Ends the iteration when nothing is left to read; by default it waits for more. */
    public ConsumerBuilder untilCaughtUp() {
        untilCaughtUp = true;
        return this;
    }

    /** Takes the lease from its holder instead of waiting for it. */
    public ConsumerBuilder takeOver() {
        request.setOnBusy(OnBusy.ON_BUSY_TAKE_OVER);
        return this;
    }

    /** The name by which others see the holder of the lease, at most 255 bytes. */
    public ConsumerBuilder clientName(String name) {
        request.setClientName(name);
        return this;
    }

    /** How many messages the broker sends beyond the committed position; 0, the default, is no limit. */
    public ConsumerBuilder maxInFlight(int messages) {
        request.setMaxInFlight(messages);
        return this;
    }

    /** How often an idle broker says that it is alive, 100 ms to 60 s; after three misses it is lost. 15 s by default. */
    public ConsumerBuilder heartbeatInterval(Duration interval) {
        heartbeat = interval;
        return this;
    }

    /** Registers the consumer if it is missing, and asks for its lease. */
    public TrunklineConsumer open() {
        client.call(channel -> ConsumerServiceGrpc.newBlockingStub(channel)
                .withDeadlineAfter(TrunklineClient.CALL_SECONDS, SECONDS)
                .registerConsumer(registration.build()));
        request.setHeartbeatInterval(com.google.protobuf.Duration.newBuilder()
                .setSeconds(heartbeat.getSeconds())
                .setNanos(heartbeat.getNano()));
        return new TrunklineConsumer(this);
    }
}
