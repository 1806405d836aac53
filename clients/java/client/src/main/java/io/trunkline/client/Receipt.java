package io.trunkline.client;

import io.grpc.StatusRuntimeException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;

/**
 * The offset of a published message, once it is on disk. Callbacks run on the producer's connection, so
 * they must not wait; {@code thenAcceptAsync} and its kin may.
 */
public final class Receipt extends CompletableFuture<Long> {
    Receipt() {}

    /**
     * Waits until the message is on disk.
     *
     * @throws TrunklineException if it was refused, or if the broker was not reached again in time; with the reason
     *     {@code OUTCOME_UNKNOWN}, it may be stored all the same
     */
    public long offset() {
        try {
            return join();
        } catch (CompletionException failed) {
            // Anything else comes from somebody who has completed the receipt.
            if (!(failed.getCause() instanceof TrunklineException error)) throw failed;
            throw new TrunklineException((StatusRuntimeException) error.getCause());
        }
    }
}
