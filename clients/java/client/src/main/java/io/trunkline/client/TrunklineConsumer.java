package io.trunkline.client;

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.NANOSECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

import io.grpc.StatusRuntimeException;
import io.trunkline.v1.Attached;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.ConsumeResponse;
import io.trunkline.v1.Gap;
import io.trunkline.v1.Message;
import io.trunkline.v1.OnBusy;
import io.trunkline.v1.Repositioned;
import java.lang.System.Logger.Level;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.concurrent.CountDownLatch;

/**
 * The messages of a topic, in the order of their offsets, each once while the consumer lives, however often its
 * connection breaks. A new consumer begins at the committed position.
 *
 * <p>Asking for the next message finishes the one before. Finished messages are committed together in the background,
 * every 100 ms, and as soon as half of {@link ConsumerBuilder#maxInFlight} wait. Only {@link #stop} may be called by
 * another thread.
 */
public final class TrunklineConsumer implements Iterable<Message>, Iterator<Message>, AutoCloseable {
    private static final long CLOSE_SECONDS = 5;
    private static final System.Logger LOG = System.getLogger(TrunklineConsumer.class.getName());

    private final TrunklineClient client;
    private final ConsumeRequest.Builder request;
    private final boolean commitsByHand;
    private final boolean untilCaughtUp;
    private final long silenceMillis;
    private final Committer committer;
    private final HandedOutAgain handedOutAgain = new HandedOutAgain();
    private final Backoff backoff = new Backoff();
    private final CountDownLatch stopped = new CountDownLatch(1);
    private volatile FrameStream stream;
    private StatusRuntimeException failure;
    private boolean isClosed;
    private boolean isCaughtUp;
    /** The newest epoch; 0 before the first. */
    private long epoch;
    /** The epoch in which the last message was handed out. */
    private long epochOfHandedOut;
    /** The offset of the next message to hand out. */
    private long nextOffset;
    private List<Message> batch = List.of();
    /** The index in the batch of the next message to hand out. */
    private int index;
    private boolean isHandedOut;

    TrunklineConsumer(ConsumerBuilder options) {
        client = options.client;
        request = options.request.clone();
        commitsByHand = options.commitsByHand;
        untilCaughtUp = options.untilCaughtUp;
        silenceMillis = 3 * options.heartbeat.toMillis();
        committer = new Committer(client, request);
        stream = open();
    }

    @Override
    public Iterator<Message> iterator() {
        return this;
    }

    /**
     * Finishes the previous message, and waits for the next one; returns false after {@link #stop}, or when it has
     * caught up if that was asked for.
     *
     * @throws TrunklineException if another stream took the lease, or for another refusal that a retry cannot remedy
     */
    @Override
    public boolean hasNext() {
        if (isHandedOut && !commitsByHand) finish(nextOffset);
        isHandedOut = false;
        while (stopped.getCount() > 0) {
            if (index < batch.size()) return true;
            if (isCaughtUp) return false;
            readFrame();
        }
        return false;
    }

    @Override
    public Message next() {
        if (!hasNext()) throw new NoSuchElementException("the consumer has stopped");
        var message = batch.get(index++);
        nextOffset = message.getOffset() + 1;
        epochOfHandedOut = epoch;
        handedOutAgain.add(message);
        isHandedOut = true;
        return message;
    }

    /**
     * Finishes a message and all before it. They are committed soon, at the latest by {@link #close}. Has no effect on
     * a message from before a seek.
     *
     * @throws TrunklineException if the broker refused the last commit; it is tried again nevertheless
     */
    public void commit(Message message) {
        if (message.getOffset() < nextOffset && !handedOutAgain.isVoid(message)) finish(message.getOffset() + 1);
        committer.check();
    }

    /**
     * The epoch in which the last message was handed out; 0 before the first one.
     *
     * <p>The SQL function {@code trunkline.commit_position} takes it, and refuses one that has ended, as another
     * consumer may have processed the message by then. So ask for it with each message: that of the next one may be
     * another. Only for a consumer with {@link ConsumerBuilder#commitByHand}.
     */
    public long epoch() {
        return epochOfHandedOut;
    }

    private void finish(long end) {
        handedOutAgain.finish(end);
        committer.finish(end);
    }

    /** Ends the iteration after the message that is being processed. */
    public void stop() {
        stopped.countDown();
        stream.wake();
    }

    /**
     * Waits until what is finished is committed, for 5 s at most, and gives the lease back. The last message that was
     * handed out is not finished: if an error ended its processing, it is delivered again.
     *
     * @throws TrunklineException if finished messages could not be committed
     */
    @Override
    public void close() {
        stop();
        try {
            // After the error that ended the iteration there is nothing left to say.
            if (failure == null && !isClosed) settle();
        } catch (StatusRuntimeException refused) {
            throw new TrunklineException(refused);
        } catch (InterruptedException interrupted) {
            throw Errors.interrupted();
        } finally {
            isClosed = true;
            committer.close();
            stream.close();
        }
    }

    private void settle() throws InterruptedException {
        var deadline = System.nanoTime() + SECONDS.toNanos(CLOSE_SECONDS);
        while (!committer.settle(deadline)) {
            var frame = stream.poll(NANOSECONDS.toMillis(deadline - System.nanoTime()));
            if (frame == null) throw committer.tooLate();
            handle(frame);
        }
    }

    private FrameStream open() {
        return new FrameStream(client.newChannel(), request.build(), silenceMillis);
    }

    private void readFrame() {
        if (failure != null) throw new TrunklineException(failure);
        try {
            handle(stream.next());
        } catch (StatusRuntimeException broken) {
            reopenAfter(broken);
        } catch (InterruptedException interrupted) {
            throw Errors.interrupted();
        }
    }

    private void reopenAfter(StatusRuntimeException broken) {
        stream.close();
        if (!Errors.isTransient(broken) && !Errors.reason(broken).equals("LEASE_LOST")) {
            failure = broken;
            committer.close();
            throw new TrunklineException(broken);
        }
        LOG.log(Level.WARNING, "The stream broke, and is opened again: {0}", broken.getMessage());
        try {
            if (stopped.await(backoff.millisAfter(broken), MILLISECONDS)) return;
        } catch (InterruptedException interrupted) {
            throw Errors.interrupted();
        }
        stream = open();
    }

    private void handle(ConsumeResponse frame) {
        switch (frame.getEventCase()) {
            case ATTACHED -> attach(frame.getAttached());
            case REPOSITIONED -> reposition(frame.getRepositioned());
            case GAP -> skip(frame.getGap());
            case BATCH -> deliver(frame.getBatch().getMessagesList());
            case CAUGHT_UP -> isCaughtUp = untilCaughtUp;
            case HEARTBEAT -> backoff.reset();
            default -> {
                // A standby frame, or one of a later version, only shows that the stream is alive.
            }
        }
    }

    private void attach(Attached attached) {
        // Epochs or offsets start again when the consumer is registered, or the topic created, again.
        var isOtherLog = attached.getEpoch() <= epoch || attached.getHead() < nextOffset;
        var isSeek = epoch > 0 && (attached.getSeekEpoch() > epoch || isOtherLog);
        if (isSeek) handedOutAgain.seek(nextOffset);
        nextOffset = isSeek ? attached.getPosition() : Math.max(nextOffset, attached.getPosition());
        epoch = attached.getEpoch();
        committer.begin(epoch, attached.getPosition(), isSeek);
        // If another stream takes the lease while this one is broken, this one waits for it.
        request.setOnBusy(OnBusy.ON_BUSY_WAIT);
    }

    private void reposition(Repositioned repositioned) {
        handedOutAgain.seek(nextOffset);
        nextOffset = repositioned.getPosition();
        epoch = repositioned.getEpoch();
        committer.begin(epoch, nextOffset, true);
    }

    private void skip(Gap gap) {
        LOG.log(Level.WARNING, "Messages were removed before they were read, from offset {0} to before {1}",
                gap.getFirstOffset(), gap.getEndOffset());
        nextOffset = Math.max(nextOffset, gap.getEndOffset());
        committer.deliver(gap.getEndOffset());
    }

    private void deliver(List<Message> messages) {
        backoff.reset();
        batch = messages;
        // Skips what was handed out before the last break.
        var first = messages.get(0).getOffset();
        index = (int) Math.min(messages.size(), Math.max(0, nextOffset - first));
        committer.deliver(first + messages.size());
    }
}
