package io.trunkline.examples;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.RetryInfo;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/** How long to wait before a broken stream is opened again: longer with each failure in a row. */
final class Backoff {
    private static final long FIRST_MILLIS = 100;
    private static final long LONGEST_MILLIS = 5_000;

    private int failures;

    /** Starts over after a success. */
    void reset() {
        failures = 0;
    }

    Duration pauseAfter(StatusException broken) {
        var longest = Math.min(FIRST_MILLIS << Math.min(failures++, 10), LONGEST_MILLIS);
        // Shortened at random, so that clients do not all reconnect at once.
        var pause = Duration.ofMillis(ThreadLocalRandom.current().nextLong(longest / 2, longest));
        var wanted = wantedByTheBroker(broken);
        return wanted.compareTo(pause) > 0 ? wanted : pause;
    }

    private static Duration wantedByTheBroker(StatusException broken) {
        try {
            for (var detail : StatusProto.fromThrowable(broken).getDetailsList()) {
                if (detail.is(RetryInfo.class)) {
                    var delay = detail.unpack(RetryInfo.class).getRetryDelay();
                    return Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
                }
            }
            return Duration.ZERO;
        } catch (InvalidProtocolBufferException unreadable) {
            return Duration.ZERO;
        }
    }
}
