package io.trunkline.client;

import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/** How long to wait before the next try: longer with each failure in a row. */
final class Backoff {
    private static final long FIRST_MILLIS = 100;
    private static final long LONGEST_MILLIS = 5_000;

    private int failures;

    /** Starts over after a success. */
    void reset() {
        failures = 0;
    }

    long millisAfter(StatusRuntimeException failure) {
        var longest = Math.min(FIRST_MILLIS << Math.min(failures++, 10), LONGEST_MILLIS);
        // Shortened at random, so that clients do not all return at once.
        var pause = ThreadLocalRandom.current().nextLong(longest / 2, longest);
        var asked = new TrunklineException(failure).retryDelay().map(Duration::toMillis).orElse(0L);
        return Math.max(pause, Math.min(asked, LONGEST_MILLIS));
    }
}
