package io.trunkline.client;

import io.trunkline.v1.Message;
import java.lang.ref.WeakReference;
import java.util.ArrayDeque;

/**
 * Tells the messages that a seek has handed out again from those of the same offsets that the caller has had before:
 * committing one of those must have no effect.
 */
final class HandedOutAgain {
    private record HandedOut(long offset, WeakReference<Message> message) {}

    /** Those that are not finished. What the caller has dropped cannot be committed, so it need not be kept. */
    private final ArrayDeque<HandedOut> messages = new ArrayDeque<>();
    /** Behind the last message that was handed out before a seek. */
    private long end;

    /** Records a seek, before which everything up to an offset was handed out. */
    void seek(long nextOffset) {
        messages.clear();
        end = Math.max(end, nextOffset);
    }

    void add(Message message) {
        if (message.getOffset() < end) messages.add(new HandedOut(message.getOffset(), new WeakReference<>(message)));
    }

    /** Forgets the messages before an offset, which are finished. */
    void finish(long offset) {
        while (!messages.isEmpty() && messages.peek().offset < offset) messages.remove();
    }

    /** Whether a message is from before a seek. */
    boolean isVoid(Message message) {
        return message.getOffset() < end
                && messages.stream().noneMatch(handedOut -> handedOut.message.refersTo(message));
    }
}
