package io.trunkline.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import io.trunkline.v1.Attached;
import io.trunkline.v1.ConsumeResponse;
import io.trunkline.v1.ConsumeResponse.EventCase;
import io.trunkline.v1.Message;
import java.util.ArrayList;
import java.util.List;

/** A consumer's stream, which is cancelled when it is closed. */
record TestStream(BlockingClientCall<?, ConsumeResponse> frames) implements AutoCloseable {
    ConsumeResponse next() throws StatusException, InterruptedException {
        return frames.read();
    }

    /** Waits for the attached frame, past any standby frames. */
    Attached attached() throws StatusException, InterruptedException {
        var frame = next();
        while (frame.hasStandby()) frame = next();
        assertEquals(EventCase.ATTACHED, frame.getEventCase());
        return frame.getAttached();
    }

    /** Waits for at least this many messages; the last frame may hold more. */
    List<Message> messages(int count) throws StatusException, InterruptedException {
        var messages = new ArrayList<Message>();
        while (messages.size() < count) messages.addAll(next().getBatch().getMessagesList());
        return messages;
    }

    /** All frames until the stream ends OK. */
    List<ConsumeResponse> rest() throws StatusException, InterruptedException {
        var rest = new ArrayList<ConsumeResponse>();
        for (var frame = next(); frame != null; frame = next()) rest.add(frame);
        return rest;
    }

    /** The error with which the stream ends; skips all frames before it. */
    StatusException end() {
        return assertThrows(StatusException.class, this::rest);
    }

    @Override
    public void close() {
        frames.cancel("the test is done with the stream", null);
    }
}
