package io.trunkline.examples;

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

import io.grpc.Channel;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import io.trunkline.v1.Attached;
import io.trunkline.v1.CommitMode;
import io.trunkline.v1.CommitRequest;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.ConsumeResponse;
import io.trunkline.v1.ConsumerServiceGrpc;
import io.trunkline.v1.ConsumerServiceGrpc.ConsumerServiceBlockingV2Stub;
import io.trunkline.v1.Gap;
import io.trunkline.v1.Message;
import io.trunkline.v1.Repositioned;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeoutException;
import java.util.function.Consumer;

/**
 * Reads a topic for as long as its program runs, and resumes after every break.
 *
 * <p>Messages come in order, each once while the program lives. The position is committed after each
 * batch. If the program dies, the next one starts again at the committed position.
 */
public final class ResumingConsumer {
    private static final System.Logger LOG = System.getLogger(ResumingConsumer.class.getName());

    private final ConsumerServiceBlockingV2Stub consumers;
    private final ConsumeRequest request;
    private final long longestSilenceMillis;
    private final CountDownLatch stopped = new CountDownLatch(1);
    private volatile BlockingClientCall<?, ConsumeResponse> stream;
    /** The last epoch that the broker gave. */
    private long epoch;
    /** The offset of the first message that was not handled. */
    private long next;

    /**
     * Reads under an id that is registered on the topic.
     *
     * @param heartbeat how long the stream may be idle before the broker sends a heartbeat; a stream
     *     that misses three of them is opened again
     */
    public ResumingConsumer(Channel channel, String topic, String consumerId, Duration heartbeat) {
        consumers = ConsumerServiceGrpc.newBlockingV2Stub(channel);
        request = ConsumeRequest.newBuilder()
                .setTopic(topic)
                .setConsumerId(consumerId)
                .setCommitMode(CommitMode.COMMIT_MODE_MANUAL)
                .setHeartbeatInterval(com.google.protobuf.Duration.newBuilder()
                        .setSeconds(heartbeat.getSeconds())
                        .setNanos(heartbeat.getNano()))
                .build();
        longestSilenceMillis = 3 * heartbeat.toMillis();
    }

    /**
     * Passes message after message to the handler, and waits when there is none, until it is stopped.
     *
     * @throws StatusException if the broker ends the stream with an error that a retry will not help
     */
    public void run(Consumer<Message> handler) throws StatusException, InterruptedException {
        var backoff = new Backoff();
        while (!isStopped()) {
            try {
                read(handler, backoff);
            } catch (StatusException broken) {
                if (isStopped()) return;
                if (broken.getStatus().getCode() != Status.Code.UNAVAILABLE) throw broken;
                LOG.log(Level.WARNING, "The stream broke, and is opened again: {0}", broken.getMessage());
                stopped.await(backoff.pauseAfter(broken).toMillis(), MILLISECONDS);
            }
        }
    }

    /** Ends {@link #run} after the message that is being handled. */
    public void stop() {
        stopped.countDown();
        var open = stream;
        if (open != null) open.cancel("the consumer was stopped", null);
    }

    private boolean isStopped() {
        return stopped.getCount() == 0;
    }

    private void read(Consumer<Message> handler, Backoff backoff) throws StatusException, InterruptedException {
        var frames = consumers.consume(request);
        stream = frames;
        try {
            while (!isStopped()) {
                var frame = nextOf(frames);
                backoff.reset();
                switch (frame.getEventCase()) {
                    case ATTACHED -> attach(frame.getAttached());
                    case REPOSITIONED -> reposition(frame.getRepositioned());
                    case GAP -> report(frame.getGap());
                    case BATCH -> deliver(frame.getBatch().getMessagesList(), handler);
                    default -> {
                        // Frames of other kinds, including unknown ones, only show that the stream is alive.
                    }
                }
            }
        } finally {
            frames.cancel("the stream is not needed any more", null); // Frees the lease.
        }
    }

    private ConsumeResponse nextOf(BlockingClientCall<?, ConsumeResponse> frames)
            throws StatusException, InterruptedException {
        try {
            var frame = frames.read(longestSilenceMillis, MILLISECONDS);
            if (frame != null) return frame;
            throw Status.UNAVAILABLE.withDescription("the broker ended the stream").asException();
        } catch (TimeoutException silent) {
            throw Status.UNAVAILABLE.withDescription("the broker fell silent").asException();
        }
    }

    private void attach(Attached attached) {
        // A seek since the last stream: handled messages must be handled again.
        if (attached.getSeekEpoch() > epoch) next = 0;
        epoch = attached.getEpoch();
        next = Math.max(next, attached.getPosition());
    }

    private void reposition(Repositioned repositioned) {
        epoch = repositioned.getEpoch();
        next = repositioned.getPosition();
    }

    private void report(Gap gap) {
        LOG.log(Level.WARNING, "Messages were removed before they were read, from offset {0} to before {1}", gap.getFirstOffset(), gap.getEndOffset());
    }

    private void deliver(List<Message> messages, Consumer<Message> handler) throws StatusException {
        for (var message : messages) {
            // Handled before the stream broke, but not committed.
            if (message.getOffset() < next) continue;
            if (isStopped()) break;
            handler.accept(message);
            next = message.getOffset() + 1;
        }
        var end = messages.get(messages.size() - 1).getOffset() + 1;
        commit(Math.min(next, end));
    }

    private void commit(long position) throws StatusException {
        try {
            consumers.withDeadlineAfter(10, SECONDS).commit(CommitRequest.newBuilder()
                    .setTopic(request.getTopic())
                    .setConsumerId(request.getConsumerId())
                    .setEpoch(epoch)
                    .setPosition(position)
                    .build());
        } catch (StatusException refused) {
            switch (refused.getStatus().getCode()) {
                case ABORTED -> {
                    // The lease is lost, or a seek moved the position: the stream says which.
                }
                case DEADLINE_EXCEEDED ->
                    throw Status.UNAVAILABLE.withDescription("the broker did not answer a commit").asException();
                default -> throw refused;
            }
        }
    }
}
