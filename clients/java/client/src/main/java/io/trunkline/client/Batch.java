package io.trunkline.client;

import io.grpc.StatusRuntimeException;
import io.trunkline.v1.NewMessage;
import io.trunkline.v1.PublishStreamRequest;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;

/** The messages of one request, with their receipts. */
final class Batch {
    /** When the first message came, by {@link System#nanoTime}. */
    final long began = System.nanoTime();
    final PublishStreamRequest.Builder request;
    final List<Receipt> receipts = new ArrayList<>();
    /**
     * Completed after the receipts, with the first error of the producer if it has failed. Receipts belong to the
     * caller, who may complete or cancel them, so nothing here may wait for one.
     */
    final CompletableFuture<Optional<StatusRuntimeException>> ended = new CompletableFuture<>();
    /** Whether it was sent, and its answer may be lost: it may be stored, whatever the next answer says. */
    boolean wasLost;
    /** The bytes of its messages. */
    int bytes;
    /** The memory that its messages take. */
    long cost;

    Batch(PublishStreamRequest template) {
        request = template.toBuilder();
    }

    Receipt add(NewMessage message, int messageBytes, int messageCost) {
        var receipt = new Receipt();
        request.addMessages(message);
        receipts.add(receipt);
        bytes += messageBytes;
        cost += messageCost;
        return receipt;
    }

    void complete(long firstOffset) {
        for (var i = 0; i < receipts.size(); i++) receipts.get(i).complete(firstOffset + i);
        ended.complete(Optional.empty());
    }

    void fail(StatusRuntimeException why, StatusRuntimeException first) {
        var error = new TrunklineException(why);
        for (var receipt : receipts) receipt.completeExceptionally(error);
        ended.complete(Optional.of(first));
    }
}
