package io.trunkline.client;

import java.util.concurrent.TimeUnit;

/** How long a producer waits for an answer, and for a broker that stores its messages. The outbox guards it. */
final class Patience {
    private static final long ANSWER_MILLIS = 30_000;
    private static final long CLOSE_MILLIS = 5_000;

    private final long retryMillis;
    /** When a message was last stored, by {@link System#nanoTime}. */
    private long progressAt = System.nanoTime();
    /** Since when the broker owes the next answer. */
    private long owedAt = progressAt;
    private long closingAt;
    private boolean isClosing;

    Patience(long retryMillis) {
        this.retryMillis = retryMillis;
    }

    void recordProgress() {
        progressAt = System.nanoTime();
        owedAt = progressAt;
    }

    /** Records that the broker owes an answer from now on. */
    void recordOwed() {
        owedAt = System.nanoTime();
    }

    /** Records that somebody waits for the producer to close. */
    void recordClosing() {
        if (!isClosing) closingAt = System.nanoTime();
        isClosing = true;
    }

    /** How long messages may wait without any being stored. */
    long millis() {
        return isClosing ? Math.min(CLOSE_MILLIS, retryMillis) : retryMillis;
    }

    /** How long the broker may still owe an answer until the stream is broken; at most twice within the patience. */
    long millisUntilBroken() {
        return Math.min(ANSWER_MILLIS, (retryMillis + 1) / 2) - millisSince(owedAt);
    }

    /** How long a message that began to wait then may go on to wait, if none is stored. */
    long millisUntilLost(long began) {
        var left = retryMillis - Math.min(millisSince(began), millisSince(progressAt));
        if (!isClosing) return left;
        return Math.min(left, millis() - Math.min(millisSince(closingAt), millisSince(progressAt)));
    }

    static long millisSince(long nanoTime) {
        return TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - nanoTime);
    }
}
