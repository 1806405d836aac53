package io.trunkline.client;

import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.trunkline.v1.NewMessage;
import io.trunkline.v1.PublishStreamRequest;
import io.trunkline.v1.PublishStreamResponse;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;

/**
 * The messages that are not answered yet: those that wait to be sent, and those of the requests in flight. A request
 * is due if no other is in flight, if it is full, or if its first message has lingered for long enough.
 */
final class Outbox {
    /** The broker recognises a producer's last eight requests when they are repeated. */
    private static final int MAX_IN_FLIGHT = 8;
    /** What a message, and each of its headers, takes of memory besides its bytes. */
    private static final int OVERHEAD = 150;

    private final Limits limits;
    private final PublishStreamRequest template;
    private final Backoff backoff = new Backoff();
    private final Patience patience;
    /** The last one gathers messages until it is full or sent. */
    private final ArrayDeque<Batch> waiting = new ArrayDeque<>();
    private final ArrayDeque<Batch> inFlight = new ArrayDeque<>();
    private long buffered;
    private long nextSequence;
    private boolean flushing;
    /** The end of the newest batch. */
    private CompletableFuture<Optional<StatusRuntimeException>> newest =
            CompletableFuture.completedFuture(Optional.empty());
    /** The stream whose answers count; null while there is none. */
    private Object stream;
    /** Whether it has reached the broker. What is taken before would count as sent, and it is not. */
    private boolean isConnected;
    /** Why that stream is of no use any more. */
    private StatusRuntimeException streamEnd;
    /** What messages whose answer may be lost fail with, if the reason below says too little. */
    private StatusRuntimeException unknown;
    /** Why no more messages are accepted. */
    private StatusRuntimeException failure;

    Outbox(Limits limits, PublishStreamRequest template, long nextSequence) {
        this.limits = limits;
        this.template = template;
        this.nextSequence = nextSequence;
        patience = new Patience(limits.retryMillis);
    }

    record Limits(long lingerMillis, int maxBatchMessages, int maxBatchBytes, long maxBufferedBytes, long retryMillis) {}

    /** Waits for room, and adds a message. */
    Receipt add(NewMessage message) {
        var bytes = MessageLimits.checkedSize(message);
        var cost = bytes + OVERHEAD * (1 + message.getHeadersCount());
        synchronized (this) {
            awaitRoom(cost);
            var batch = waiting.peekLast();
            if (batch == null || isFull(batch) || batch.bytes + bytes > limits.maxBatchBytes) {
                batch = new Batch(template);
                waiting.add(batch);
                notifyAll();
            }
            buffered += cost;
            newest = batch.ended;
            var receipt = batch.add(message, bytes, cost);
            if (isFull(batch)) notifyAll();
            return receipt;
        }
    }

    private void awaitRoom(int cost) {
        try {
            while (failure == null && buffered + cost > limits.maxBufferedBytes) wait();
        } catch (InterruptedException interrupted) {
            throw Errors.interrupted();
        }
        if (failure != null) throw new TrunklineException(failure);
    }

    private boolean isFull(Batch batch) {
        return batch.receipts.size() >= limits.maxBatchMessages;
    }

    /** Has the waiting messages sent without lingering, and waits until every message so far is on disk. */
    void flush() {
        try {
            // Messages are answered in order, and the first failure fails all that follow.
            var error = stopLingering().get();
            if (error.isPresent()) throw new TrunklineException(error.get());
        } catch (InterruptedException interrupted) {
            throw Errors.interrupted();
        } catch (ExecutionException never) {
            throw new AssertionError(never);
        }
    }

    private synchronized CompletableFuture<Optional<StatusRuntimeException>> stopLingering() {
        flushing = !waiting.isEmpty();
        notifyAll();
        return newest;
    }

    /** Flushes, and gives up once no message has been stored for a short time. */
    void close() {
        synchronized (this) {
            patience.recordClosing();
        }
        flush();
    }

    /** Waits for messages; returns false if none will come any more. */
    synchronized boolean awaitMessages() throws InterruptedException {
        while (failure == null && waiting.isEmpty() && inFlight.isEmpty()) wait();
        return failure == null;
    }

    /** Makes the answers of a new stream count; returns the requests that it must repeat. */
    synchronized List<PublishStreamRequest> begin(Object newStream) {
        stream = newStream;
        isConnected = false;
        streamEnd = null;
        patience.recordOwed();
        return inFlight.stream().map(batch -> batch.request.build()).toList();
    }

    /** Records that a stream has reached the broker. */
    synchronized void connect(Object connected) {
        if (connected != stream) return;
        isConnected = true;
        notifyAll();
    }

    /** Waits for the next request that is due; returns null if none will come any more. */
    synchronized PublishStreamRequest next() throws InterruptedException {
        while (failure == null) {
            if (streamEnd != null) throw streamEnd;
            var untilDue = millisUntilDue();
            if (untilDue <= 0) return take();
            var untilBroken = millisUntilBroken();
            if (untilBroken <= 0) throw Errors.unavailable("the broker does not answer");
            wait(Math.min(untilDue, untilBroken));
        }
        return null;
    }

    private long millisUntilDue() {
        var first = waiting.peek();
        if (!isConnected || first == null || inFlight.size() == MAX_IN_FLIGHT) return Long.MAX_VALUE;
        var isDue = inFlight.isEmpty() || flushing || waiting.size() > 1 || isFull(first);
        return isDue ? 0 : limits.lingerMillis - Patience.millisSince(first.began);
    }

    private long millisUntilBroken() {
        var owesAnswer = !isConnected || !inFlight.isEmpty();
        return Math.min(millisUntilLost(), owesAnswer ? patience.millisUntilBroken() : Long.MAX_VALUE);
    }

    /** How long the oldest message may go on to wait without any being stored. */
    private long millisUntilLost() {
        var oldest = inFlight.isEmpty() ? waiting.peek() : inFlight.peek();
        return oldest == null ? Long.MAX_VALUE : patience.millisUntilLost(oldest.began);
    }

    private PublishStreamRequest take() {
        var batch = waiting.remove();
        flushing &= !waiting.isEmpty();
        if (inFlight.isEmpty()) patience.recordOwed();
        inFlight.add(batch);
        batch.request.setSequence(nextSequence);
        nextSequence += batch.receipts.size();
        return batch.request.build();
    }

    /** Records the answer to the oldest request in flight. */
    void settle(Object from, PublishStreamResponse answer) {
        if (!answer.hasReceipt()) {
            end(from, answer.hasRefusal() ? Errors.of(answer.getRefusal()) : Errors.unavailable("no known answer"));
            return;
        }
        var batch = settled(from);
        if (batch == null) return;
        // Outside of the monitor, as callbacks run now.
        batch.complete(answer.getReceipt().getFirstOffset());
        synchronized (this) {
            buffered -= batch.cost;
            notifyAll();
        }
    }

    private synchronized Batch settled(Object from) {
        // Behind a refusal, an answer may belong to a later request than the oldest one.
        if (from != stream || streamEnd != null) return null;
        patience.recordProgress();
        backoff.reset();
        notifyAll();
        return inFlight.poll();
    }

    /** Records that a stream has ended, or must end. */
    synchronized void end(Object from, StatusRuntimeException why) {
        if (from != stream || streamEnd != null) return;
        streamEnd = why;
        notifyAll();
    }

    /** Waits until the next stream is due; throws if there should be none. */
    synchronized void awaitNextTry(StatusRuntimeException broken) throws InterruptedException {
        stream = null;
        if (!Errors.isTransient(broken)) throw broken;
        recordLoss();
        var brokenAt = System.nanoTime();
        var pause = backoff.millisAfter(broken);
        while (failure == null) {
            var untilLost = millisUntilLost();
            if (untilLost <= 0) throw lost(broken);
            var left = pause - Patience.millisSince(brokenAt);
            if (left <= 0) return;
            wait(Math.min(left, untilLost));
        }
    }

    /** Records that the answers to all that is sent may be lost. */
    private void recordLoss() {
        for (var batch : inFlight) batch.wasLost = true;
    }

    /** Gives the messages in flight an error of their own; returns that of all others. */
    private StatusRuntimeException lost(StatusRuntimeException last) {
        var lost = "the broker did not answer for %d ms, %%sat last: %%s".formatted(patience.millis());
        unknown = Errors.unknownOutcome(lost.formatted("so messages may be stored or not; ", last.getMessage()), last);
        return Errors.unavailable(lost.formatted("", last.getMessage()), last);
    }

    /**
     * Accepts no more messages, and fails those that are not answered, in their order. The reason is the answer to what
     * was sent since the last break, but not to what was sent before.
     */
    void fail(StatusRuntimeException why) {
        fail(why, null);
    }

    /** Fails as the producer is closed, which answers nothing that was sent. */
    void failClosed() {
        var why = Status.FAILED_PRECONDITION.withDescription("the producer is closed").asRuntimeException();
        fail(why, Errors.unknownOutcome("the producer was closed before the broker answered", null));
    }

    /** Fails because of a fault of the producer's own, which answers nothing that was sent. */
    void failBy(Throwable fault) {
        var why = Status.INTERNAL.withDescription("the producer failed").withCause(fault).asRuntimeException();
        fail(why, unanswered(why));
    }

    /** Without an error of their own, messages that were sent since the last break fail with the reason. */
    private void fail(StatusRuntimeException why, StatusRuntimeException ofSent) {
        var left = new ArrayList<Batch>();
        StatusRuntimeException ofLost;
        synchronized (this) {
            if (failure != null) return;
            failure = why;
            if (ofSent != null) {
                unknown = ofSent;
                recordLoss();
            }
            ofLost = unknown == null ? unanswered(why) : unknown;
            left.addAll(inFlight);
            left.addAll(waiting);
            inFlight.clear();
            waiting.clear();
            notifyAll();
        }
        var first = !left.isEmpty() && left.get(0).wasLost ? ofLost : why;
        for (var batch : left) batch.fail(batch.wasLost ? ofLost : why, first);
    }

    private static StatusRuntimeException unanswered(StatusRuntimeException why) {
        return Errors.unknownOutcome("not answered before the producer ended: " + why.getMessage(), why);
    }
}
