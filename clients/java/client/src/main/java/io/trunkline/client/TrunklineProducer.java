package io.trunkline.client;

import com.google.protobuf.ByteString;
import io.trunkline.v1.NewMessage;
import io.trunkline.v1.Producer;
import io.trunkline.v1.PublishStreamRequest;

/**
 * Publishes to one topic, and stores each message once, however often its connection breaks. Safe to share between
 * threads; the messages of each thread are stored in its order.
 *
 * <p>It is the only live instance of its id: opening another one fences this one. A refusal of the broker's, and a
 * broker that stays away for too long, are final: every waiting message fails, and so does publishing from then on.
 */
public final class TrunklineProducer implements AutoCloseable {
    private static final long JOIN_MILLIS = 1_000;

    private final Outbox outbox;
    private final Thread delivery;

    TrunklineProducer(TrunklineClient client, Outbox.Limits limits, Producer registered) {
        var template = PublishStreamRequest.newBuilder()
                .setTopic(registered.getTopic())
                .setProducerId(registered.getProducerId())
                .setProducerEpoch(registered.getEpoch())
                .build();
        outbox = new Outbox(limits, template, registered.getNextSequence());
        delivery = new Thread(new Delivery(client, outbox), "trunkline-producer-" + registered.getTopic());
        delivery.setDaemon(true);
        delivery.start();
    }

    /** Publishes text as UTF-8, without a key and headers. */
    public Receipt publish(String payload) {
        return publish(NewMessage.newBuilder().setPayload(ByteString.copyFromUtf8(payload)).build());
    }

    /**
     * Enqueues a message, after waiting for room in the buffer.
     *
     * @throws TrunklineException if the message exceeds a limit, or if the producer has failed or is closed; the
     *     message is not sent then
     */
    public Receipt publish(NewMessage message) {
        return outbox.add(message);
    }

    /**
     * Waits until every message so far is on disk.
     *
     * @throws TrunklineException if one is not
     */
    public void flush() {
        outbox.flush();
    }

    /**
     * Flushes, and closes the connection. Gives up once no message has been stored for 5 s, so that a block that an
     * exception has left ends soon; {@link #flush} waits for as long as {@link ProducerBuilder#retryFor} says.
     *
     * @throws TrunklineException if a message is not stored
     */
    @Override
    public void close() {
        try {
            outbox.close();
        } finally {
            outbox.failClosed();
            awaitEndOfDelivery();
        }
    }

    private void awaitEndOfDelivery() {
        try {
            delivery.join(JOIN_MILLIS);
        } catch (InterruptedException interrupted) {
            // It ends by itself, and whoever interrupts does not want to wait.
            Thread.currentThread().interrupt();
        }
    }
}
